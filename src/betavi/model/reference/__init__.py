"""Query mapping and minified objects."""
