"""What does it cost to compute with integers in place of real numbers?

uniform: the grid and its codes. integer: arithmetic with codes. nf4: four-bit packing and NF4.
double: scales that are quantised in turn.
Leaves out: kernels, and the search for codes that keep a layer's output (GPTQ, AWQ).
"""

from llmref.functional.quantization._grid import code_range
from llmref.functional.quantization.double import (
    bits_per_weight,
    double_dequantize,
    double_quantize,
    dynamic_codebook,
)
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
    quantize_groupwise_affine,
    symmetric_scale,
)

__all__ = [
    "affine_qparams",
    "bits_per_weight",
    "code_range",
    "dequantize",
    "dequantize_groupwise",
    "double_dequantize",
    "double_quantize",
    "dynamic_codebook",
    "fake_quantize",
    "int_matmul",
    "nf4_codebook",
    "nf4_dequantize",
    "nf4_quantize",
    "pack_int4",
    "quantize",
    "quantize_groupwise",
    "quantize_groupwise_affine",
    "sqnr_db",
    "stochastic_round",
    "symmetric_scale",
    "unpack_int4",
]
