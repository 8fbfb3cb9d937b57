"""What does it cost to compute with integers in place of real numbers?

uniform: the grid and its codes. integer: arithmetic with codes. nf4: four-bit packing and NF4.
Leaves out: kernels, and the search for codes that keep a layer's output (GPTQ, AWQ).
"""

from llmref.functional.quantization._grid import code_range
from llmref.functional.quantization.integer import (
    fake_quantize,
    int_matmul,
    sqnr_db,
    stochastic_round,
)
from llmref.functional.quantization.nf4 import (
    nf4_codebook,
    nf4_dequantize,
    nf4_quantize,
    pack_int4,
    unpack_int4,
)
from llmref.functional.quantization.uniform import (
    affine_qparams,
    dequantize,
    dequantize_groupwise,
    quantize,
    quantize_groupwise,
    symmetric_scale,
)

__all__ = [
    "affine_qparams",
    "code_range",
    "dequantize",
    "dequantize_groupwise",
    "fake_quantize",
    "int_matmul",
    "nf4_codebook",
    "nf4_dequantize",
    "nf4_quantize",
    "pack_int4",
    "quantize",
    "quantize_groupwise",
    "sqnr_db",
    "stochastic_round",
    "symmetric_scale",
    "unpack_int4",
]
