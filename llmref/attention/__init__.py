"""Attention: which values a query reads, with what weights, and at what cost."""
