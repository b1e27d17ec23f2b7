"""Files and large results."""
