"""Training, by hand."""
