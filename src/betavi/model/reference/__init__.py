"""Query mapping and minified mode."""
