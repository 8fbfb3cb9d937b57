"""Attention, by hand."""
