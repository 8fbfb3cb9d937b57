"""How do the parts make a language model, and what does it compute, cost and start from?

model: the block and the decoder. weights: those of transformers, by name. cost: parameters, and the
spread that its weights are drawn with. Leaves out: training, sampling other than greedy, experts,
windows, encoders, and models whose blocks are not two pre-norm branches one after the other.
"""

from llmref.components.decoder.cost import (
    decoder_parameters,
    residual_init_std,
)
from llmref.components.decoder.model import (
    Decoder,
    DecoderBlock,
)
from llmref.components.decoder.weights import (
    load_transformers,
)

__all__ = [
    "Decoder",
    "DecoderBlock",
    "decoder_parameters",
    "load_transformers",
    "residual_init_std",
]
