"""What do k1, k2, k3 estimate, and what do their gradients optimise?

divergences: the exact ones and the three one-sample estimators. penalties: where a policy pays for
leaving its reference. A divergence names its direction, KL(p||q) with p the law that the samples
come from; everything is in nats. Leaves out: clamping (it stops the gradient where the policy is
furthest away), adaptive coefficients, divergences other than KL.
"""

from llmref.rl.kl._options import Ratio, RatioScope
from llmref.rl.kl.divergences import (
    Kind,
    expm1_minus_x,
    kl_categorical,
    kl_estimate,
    kl_gaussian,
)
from llmref.rl.kl.penalties import kl_loss, kl_reward, sequence_kl_loss

__all__ = [
    "Kind",
    "Ratio",
    "RatioScope",
    "expm1_minus_x",
    "kl_categorical",
    "kl_estimate",
    "kl_gaussian",
    "kl_loss",
    "kl_reward",
    "sequence_kl_loss",
]
