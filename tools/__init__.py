"""What only authors run, from a checkout; nothing here is installed with the package."""
