"""How is a prediction over V classes scored in nats, and what do gradient and average of it mean?

loss: of one position, with gradient and Hessian. chunked: without its logits. measures: what is
read off it. Leaves out: which position predicts which token (see functional.sft). Classes are the
last axis; float16 and bfloat16 logits are widened to float32, and so is the loss.
"""

from llmref._numeric import Reduction
from llmref.functional.cross_entropy.chunked import linear_cross_entropy
from llmref.functional.cross_entropy.loss import (
    cross_entropy,
    cross_entropy_grad,
    cross_entropy_hessian,
)
from llmref.functional.cross_entropy.measures import (
    bits_per_byte,
    combine_microbatches,
    kl_divergence,
    perplexity,
)

__all__ = [
    "Reduction",
    "bits_per_byte",
    "combine_microbatches",
    "cross_entropy",
    "cross_entropy_grad",
    "cross_entropy_hessian",
    "kl_divergence",
    "linear_cross_entropy",
    "perplexity",
]
