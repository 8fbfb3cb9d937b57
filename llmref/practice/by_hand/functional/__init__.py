"""Softmax, losses and sampling, by hand."""
