"""What does each decoding filter do to the distribution, and how is one token drawn from it?

filters: temperature, top-k, top-p, min-p, and their order. penalties: on tokens seen before. draws:
from what is left. Leaves out: beam search and filters by entropy. A filter takes logits and returns
logits, -inf where it removes a token; softmax then renormalises. Tokens are ordered by logit, ties
by lower index.
"""

from llmref.functional.sampling.draws import (
    Method,
    filtered_logprob,
    gumbel_noise,
    sample,
    sample_without_replacement,
)
from llmref.functional.sampling.filters import (
    FILTERS,
    apply_temperature,
    min_p_filter,
    process_logits,
    top_k_filter,
    top_p_filter,
)
from llmref.functional.sampling.penalties import (
    presence_frequency_penalty,
    repetition_penalty,
)

__all__ = [
    "FILTERS",
    "Method",
    "apply_temperature",
    "filtered_logprob",
    "gumbel_noise",
    "min_p_filter",
    "presence_frequency_penalty",
    "process_logits",
    "repetition_penalty",
    "sample",
    "sample_without_replacement",
    "top_k_filter",
    "top_p_filter",
]
