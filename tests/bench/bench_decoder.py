"""The time of a whole decoder against that of transformers with its eager attention, on one core.

Both in float32 with the same weights: a prompt in one pass, and decoding steps with a cache.
"""

import statistics
import time

import pytest
import torch

from llmref.components.decoder import Decoder, load_transformers

V, C, L, H, G, F = 1000, 256, 4, 8, 4, 688
PROMPT, STEPS, ROUNDS = 256, 32, 7
LIMIT = 3.0


@pytest.fixture(scope="module")
def pair():
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=V,
        hidden_size=C,
        intermediate_size=F,
        num_hidden_layers=L,
        num_attention_heads=H,
        num_key_value_heads=G,
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    theirs = transformers.LlamaForCausalLM(config).eval().requires_grad_(False)
    base, eps = config.rope_parameters["rope_theta"], config.rms_norm_eps
    ours = Decoder(V, C, L, H, G, F, rope_base=base, eps=eps, tied=False, max_len=PROMPT + STEPS)
    load_transformers(ours, theirs.state_dict())
    return ours.requires_grad_(False), theirs


@pytest.fixture(scope="module")
def ratios(pair):
    """Median over rounds of our seconds over theirs, for the prompt and for all steps."""
    ours, theirs = pair
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(V, (1, PROMPT + STEPS), generator=generator)
    prompt, *steps = ids.split([PROMPT] + [1] * STEPS, dim=1)

    def run_ours():
        cache: list = []
        return timed(lambda it: ours(it, cache))

    def run_theirs():
        held = {"past_key_values": None}

        def call(it):
            out = theirs(it, use_cache=True, **held)
            held["past_key_values"] = out.past_key_values
            return out.logits

        return timed(call)

    def timed(call):
        start = time.perf_counter()
        call(prompt)
        middle = time.perf_counter()
        for step in steps:
            logits = call(step)
        return middle - start, time.perf_counter() - middle, logits

    found = []
    for _ in range(ROUNDS + 1):  # in turn, against drift of the machine; the first one warms up
        mine, other = run_ours(), run_theirs()
        torch.testing.assert_close(mine[2], other[2], rtol=1e-3, atol=1e-4)
        found.append((mine[0] / other[0], mine[1] / other[1]))
    return tuple(statistics.median(column) for column in zip(*found[1:], strict=True))


def test_a_prompt_takes_at_most_three_times_as_long(ratios, report):
    report(f"prompt of {PROMPT}: llmref / transformers, eager", ratios[0], LIMIT)


def test_decoding_takes_at_most_three_times_as_long(ratios, report):
    report(f"{STEPS} cached steps: llmref / transformers, eager", ratios[1], LIMIT)
