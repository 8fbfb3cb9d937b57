"""Normalisation, by hand."""
