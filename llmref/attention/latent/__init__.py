"""How can one short vector per token stand for the keys and values of all heads?

Multi-head latent attention (MLA). forms: the expanded and the absorbed form. storage: the cache.
layer: projections, norms and rotary positions around them. cost: operations of each form.
grouped: a layer with shared heads, written as a latent one.
Leaves out: scaled rotary frequencies (YaRN) and their factor on the scores, FP8 caches, kernels.
"""

from llmref.attention.latent.cost import latent_attention_flops
from llmref.attention.latent.forms import absorbed_latent_attention, latent_attention
from llmref.attention.latent.grouped import latent_from_grouped
from llmref.attention.latent.layer import LatentAttention
from llmref.attention.latent.storage import LatentCache

__all__ = [
    "LatentAttention",
    "LatentCache",
    "absorbed_latent_attention",
    "latent_attention",
    "latent_attention_flops",
    "latent_from_grouped",
]
