"""What every ability is built on."""
