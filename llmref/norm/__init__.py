"""The normalisations of a transformer: LayerNorm and RMSNorm."""
