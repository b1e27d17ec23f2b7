"""Generated cells, archetypes, paths and holes."""
