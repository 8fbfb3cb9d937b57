"""Peak memory of flash attention against attention that stores its weights, as T grows."""

import json
import os
import statistics
import subprocess
import sys

import pytest

LENGTHS = (2048, 4096)

# Each form runs in a process of its own, whose peak is read. Not ru_maxrss, which begins at the
# memory of the process that started it.
PROGRAM = """
import json, re, sys
from pathlib import Path
import torch
from llmref.attention.online_softmax import flash_attention
from llmref.attention.scaled_dot_product import scaled_dot_product_attention

form, T = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)  # threads add arenas of their own to the peak
forms = {
    "flash": lambda *x: flash_attention(*x, block_q=512, block_k=512),
    "stored": scaled_dot_product_attention,
}

def run(T):
    generator = torch.Generator().manual_seed(0)
    leaves = [torch.randn(1, 1, T, 64, generator=generator).requires_grad_() for _ in range(3)]
    return leaves, lambda: torch.autograd.grad(forms[form](*leaves).square().sum(), leaves)

def peak():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1024

run(8)[1]()  # what a first call loads
leaves, work = run(T)
before = peak()
grads = work()
print(json.dumps({"mib": peak() - before, "norms": [g.norm().item() for g in grads]}))
"""


def run(form, length):
    command = [sys.executable, "-c", PROGRAM, form, str(length)]
    # Large blocks go back to the system at once, so that the peak is what was alive, not fragments.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "100000"}
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def measured():
    assert sys.platform == "linux", "the peak of a process is read from /proc"
    keys = [(form, length) for form in ("flash", "stored") for length in LENGTHS]
    rounds = [{key: run(*key) for key in keys} for _ in range(3)]  # in turn, against drift
    return {key: [each[key] for each in rounds] for key in keys}


def mib(measured, form, length):
    return statistics.median(entry["mib"] for entry in measured[form, length])


def test_both_forms_give_the_same_gradients(measured):
    for length in LENGTHS:
        pairs = zip(
            measured["flash", length][0]["norms"],
            measured["stored", length][0]["norms"],
            strict=True,
        )
        assert all(abs(a - b) <= 1e-4 * b for a, b in pairs)


def test_peak_memory_grows_with_the_length_and_not_with_its_square(measured, report):
    """Twice the length: at most twice the memory, where stored weights take four times."""
    growth = mib(measured, "flash", LENGTHS[1]) / mib(measured, "flash", LENGTHS[0])
    report("flash attention: peak memory, T = 4096 / T = 2048", growth, 2.3, "times")
    stored = mib(measured, "stored", LENGTHS[1]) / mib(measured, "stored", LENGTHS[0])
    report("the same for stored weights, inverted", 1 / stored, 1 / 3, "times")


def test_peak_memory_is_a_fraction_of_the_weights(measured, report):
    weights = LENGTHS[1] ** 2 * 4 / 2**20
    report(
        "flash attention: peak memory / weights",
        mib(measured, "flash", 4096) / weights,
        0.5,
        "times",
    )
    ratio = mib(measured, "flash", 4096) / mib(measured, "stored", 4096)
    report("flash attention: peak memory / stored form", ratio, 0.2, "times")
