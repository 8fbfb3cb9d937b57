"""The time of one cached decoding step against the length of the cache: O(T), not O(T^2)."""

import math
import statistics
import time

import pytest
import torch

from llmref.attention.kv_cache import CachedAttention, KVCache

C, H, G, D = 256, 8, 2, 32
LENGTHS = (32768, 65536, 131072, 262144)
ROUNDS = 15


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@pytest.fixture(scope="module")
def medians():
    """Median seconds of a cached step at each length, and of a full pass at two short ones."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layer = CachedAttention(C, H, G, head_dim=D)
    token = torch.randn(1, 1, C)
    caches = {}
    for length in LENGTHS:
        caches[length] = KVCache(1, G, length + 1, D)
        held = torch.randn(1, G, length, D)
        caches[length].update(held, held)

    def step(length):
        caches[length].truncate(length)
        layer(token, caches[length])

    texts = {length: torch.randn(1, length, C) for length in (512, 1024, 2048)}
    with torch.no_grad():
        for length in LENGTHS:
            step(length)
        # All lengths in turn, against drift of the machine.
        steps = [{n: seconds(lambda n=n: step(n)) for n in LENGTHS} for _ in range(ROUNDS)]
        passes = [{n: seconds(lambda n=n: layer(texts[n])) for n in texts} for _ in range(5)]
    return tuple(
        {n: statistics.median(each[n] for each in rounds) for n in rounds[0]}
        for rounds in (steps, passes)
    )


def slope(times):
    """Exponent of the length: least squares on logarithms."""
    xs, ys = [math.log(n) for n in times], [math.log(t) for t in times.values()]
    mean_x, mean_y = statistics.fmean(xs), statistics.fmean(ys)
    top = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return top / sum((x - mean_x) ** 2 for x in xs)


def test_a_cached_step_is_linear_in_the_length(medians, report):
    steps, _ = medians
    exponent = slope(steps)
    report(f"cached step: exponent {exponent:.2f}, distance from 1", abs(exponent - 1), 0.3, "")


def test_a_step_costs_less_than_a_short_full_pass(medians, report):
    """A step over 32768 cached tokens against a pass over 2048: 32768 pairs to 2 million."""
    steps, passes = medians
    ratio = steps[32768] / passes[2048]
    report("cached step at 32768 / full pass over 2048", ratio, 0.5, "times")


def test_a_full_pass_grows_faster_than_a_step(medians, report):
    steps, passes = medians
    report("exponent of a step / exponent of a full pass", slope(steps) / slope(passes), 0.85, "")
