"""Positions against torch. (Compare with what people really run, or delete this file.)"""

import torch

from llmref.components.positions import positions

TOPIC = "components/positions"


def test_values_equal_torch(agreement):
    x, y = torch.randn(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    agreement(
        "positions",
        "torch",
        positions(x, y),
        torch.square(x + y),
        atol=1e-12,
        convention="none: the same formula",
    )
