"""Peak memory and time of the chunked loss against the plain one, for a vocabulary of 128k."""

import json
import os
import statistics
import subprocess
import sys

import pytest

V, C, TOKENS, CHUNK = 128_256, 64, 1024, 32
LOGITS = TOKENS * V * 4 / 2**20  # the full float32 logits, in MiB

# Each form runs in a process of its own, whose peak is read. Not ru_maxrss, which begins at the
# memory of the process that started it.
PROGRAM = """
import json, re, sys, time
from pathlib import Path
import torch
from torch.nn import functional as F
from llmref.functional.cross_entropy import cross_entropy, linear_cross_entropy

form, V, C, tokens, chunk = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(1)  # threads add arenas of their own to the peak
generator = torch.Generator().manual_seed(0)
hidden = torch.randn(tokens, C, generator=generator).requires_grad_()
head = (torch.randn(V, C, generator=generator) / C**0.5).requires_grad_()
target = torch.randint(0, V, (tokens,), generator=generator)
forms = {
    "chunked": lambda: linear_cross_entropy(hidden, head, target, chunk_size=chunk),
    "plain": lambda: cross_entropy(hidden @ head.T, target),
    "torch": lambda: F.cross_entropy(hidden @ head.T, target),
}

def peak():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1024

small = (hidden[:2] @ head[:100].T).logsumexp(-1).sum()  # what a first call loads
torch.autograd.grad(small, (hidden, head))
before, start = peak(), time.perf_counter()
loss = forms[form]()
loss.backward()
seconds = time.perf_counter() - start
norms = [hidden.grad.norm().item(), head.grad.norm().item()]
print(json.dumps({"mib": peak() - before, "s": seconds, "values": [loss.item(), *norms]}))
"""


def run(form):
    sizes = [str(n) for n in (V, C, TOKENS, CHUNK)]
    command = [sys.executable, "-c", PROGRAM, form, *sizes]
    # Large blocks go back to the system at once, so that the peak is what was alive, not fragments.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def measured():
    forms = ("chunked", "plain", "torch")
    rounds = [{form: run(form) for form in forms} for _ in range(3)]  # in turn, against drift
    return {form: [each[form] for each in rounds] for form in forms}


def median(runs, key):
    return statistics.median(entry[key] for entry in runs)


def test_chunks_give_the_loss_and_the_gradients_of_the_plain_form(measured):
    for form in ("plain", "torch"):
        for ours, theirs in zip(
            measured["chunked"][0]["values"], measured[form][0]["values"], strict=True
        ):
            assert abs(ours - theirs) <= 1e-5 * abs(theirs)


def test_chunks_need_a_fraction_of_the_memory(measured, report):
    chunked = median(measured["chunked"], "mib")
    report("chunked cross-entropy: peak memory / full logits", chunked / LOGITS, 0.5, "times")
    for form in ("plain", "torch"):
        ratio = chunked / median(measured[form], "mib")
        report(f"chunked cross-entropy: peak memory / {form} form", ratio, 0.25, "times")


def test_chunks_cost_time_for_the_second_forward_pass(measured, report):
    ratio = median(measured["chunked"], "s") / median(measured["plain"], "s")
    report("chunked cross-entropy: time / plain form", ratio, 4.0, "times")
