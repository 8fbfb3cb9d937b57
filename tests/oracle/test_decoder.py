"""Decoder against torch. (Compare with what people really run, or delete this file.)"""

import torch

from llmref.components.decoder import decoder

TOPIC = "components/decoder"


def test_values_equal_torch(agreement):
    x, y = torch.randn(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    agreement(
        "decoder",
        "torch",
        decoder(x, y),
        torch.square(x + y),
        atol=1e-12,
        convention="none: the same formula",
    )
