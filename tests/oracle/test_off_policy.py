"""Off policy against torch. (Compare with what people really run, or delete this file.)"""

import torch

from llmref.rl.off_policy import off_policy

TOPIC = "rl/off_policy"


def test_values_equal_torch(agreement):
    x, y = torch.randn(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    agreement(
        "off_policy",
        "torch",
        off_policy(x, y),
        torch.square(x + y),
        atol=1e-12,
        convention="none: the same formula",
    )
