"""Time of scaled_dot_product_attention against the kernel of torch, on this processor."""

import statistics
import time

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from llmref.attention.scaled_dot_product import scaled_dot_product_attention

B, H, T, D = 4, 8, 1024, 64
ROUNDS = 11


@pytest.fixture(autouse=True)
def one_thread():
    """With several, what else runs on the machine delays the one form more than the other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def seconds(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def test_attention_is_within_three_times_of_torch(report):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(B, H, T, D, generator=generator) for _ in range(3)]
    torch.testing.assert_close(
        scaled_dot_product_attention(*inputs), F.scaled_dot_product_attention(*inputs)
    )  # and the first calls, which load kernels
    ratios = [  # one after the other, so that both see the same load
        seconds(scaled_dot_product_attention, *inputs)
        / seconds(F.scaled_dot_product_attention, *inputs)
        for _ in range(ROUNDS)
    ]
    report("scaled_dot_product_attention: time / torch", statistics.median(ratios), 3.0, "times")
