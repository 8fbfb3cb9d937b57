"""What the options of a KL penalty must satisfy, whatever the caller calls them."""

from typing import Literal

from llmref._require import require_choice
from llmref.rl.kl.divergences import Kind

Ratio = Literal["none", "attached", "detached"]
RatioScope = Literal["prefix", "token"]


def require_gradient(kind: str, ratio: str, *, prefix: str = "") -> None:
    """Refuse what has no gradient, or that of no divergence; `prefix` begins the names of both."""
    name, weight = f"{prefix}kind", f"{prefix}ratio"
    require_choice(Kind, **{name: kind})
    require_choice(Ratio, **{weight: ratio})
    if kind == "k1" and ratio != "attached":
        raise ValueError(
            f"{name}='k1' with {weight}={ratio!r}: its expected gradient is zero on-policy, and "
            f"stays zero under a fixed ratio; use {weight}='attached', {name}='k2', or kl_reward"
        )
    if kind == "k2" and ratio == "attached":
        raise ValueError(
            f"{name}='k2' with {weight}='attached' follows no KL: use 'detached', or k3"
        )
