"""Inference, by hand."""
