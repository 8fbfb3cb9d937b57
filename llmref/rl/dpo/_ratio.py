"""The log-ratio of a policy to its reference, of which both reward and losses are made."""

from torch import Tensor

from llmref._require import require_constant, require_shapes
from llmref.rl._tokens import log_probs


def log_ratio(which: str, policy: Tensor, ref: Tensor) -> Tensor:
    """Log of policy over reference, in float32 at least, once both are log-probabilities.

    Shapes: policy (...), ref (...) -> (...)
    Raises: ValueError if the shapes differ, the reference requires grad, a log-probability is not
    finite or above 1e-6; TypeError unless floating point.
    """
    ours, theirs = f"policy_{which}logps", f"ref_{which}logps"
    require_shapes(f"{ours} (...), {theirs} (...)", **{ours: policy, theirs: ref})
    require_constant(**{theirs: ref})
    return log_probs(ours, policy) - log_probs(theirs, ref)
