"""Functions without weights: softmax, activations, losses and samplers, on plain tensors."""
