"""The components of a transformer, by hand."""
