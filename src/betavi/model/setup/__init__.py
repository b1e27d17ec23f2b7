"""Registration, input checks, selections of cells and features, and messages."""
