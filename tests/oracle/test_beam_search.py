"""Beam search against transformers' generate, on tiny Llama models with sharp logits."""

from itertools import product

import pytest
import torch

from llmref.inference.beam_search import beam_search

TOPIC = "inference/beam_search"
SEEDS, TOKENS, EOS = (4, 23, 36), 10, 1
CASES = [(2, -0.5), (2, 1.0), (2, 2.0), (3, 0.0), (3, 0.6)]  # width and length penalty


@pytest.fixture(scope="module")
def models():
    from transformers import LlamaConfig, LlamaForCausalLM

    found = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=7,
            hidden_size=8,
            intermediate_size=12,
            num_hidden_layers=1,
            num_attention_heads=2,
            bos_token_id=None,
            eos_token_id=EOS,
            pad_token_id=0,
        )
        model = LlamaForCausalLM(config).eval()
        torch.nn.init.normal_(model.lm_head.weight, std=1.0)
        found.append(model)
    return found


def prompt_of(seed):
    return torch.tensor([2, 3, 5, 4])[: 2 + seed % 3]


@torch.no_grad()
def theirs(model, prompt, B, alpha, early_stopping):
    """Score, and the new tokens up to EOS."""
    out = model.generate(
        prompt[None],
        attention_mask=torch.ones_like(prompt[None]),
        num_beams=B,
        max_new_tokens=TOKENS,
        length_penalty=alpha,
        early_stopping=early_stopping,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
    )
    new = out.sequences[0, len(prompt) :]
    end = (new == EOS).nonzero()
    return out.sequences_scores[0], new[: end[0] + 1] if len(end) else new


@torch.no_grad()
def ours(model, prompt, B, alpha):
    found = beam_search(
        lambda tokens: model(tokens).logits[:, -1].log_softmax(-1),
        prompt,
        num_beams=B,
        max_new_tokens=TOKENS,
        eos_token_id=EOS,
        length_penalty=alpha,
        finish="ranked",
    )
    return found.score, found.tokens


def all_cases(models, early_stopping):
    for (seed, model), (B, alpha) in product(zip(SEEDS, models, strict=True), CASES):
        prompt = prompt_of(seed)
        yield ours(model, prompt, B, alpha), theirs(model, prompt, B, alpha, early_stopping)


def test_the_search_that_never_stops_too_early(models, agreement):
    pairs = list(all_cases(models, "never"))
    for (_, tokens), (_, their_tokens) in pairs:
        assert tokens.tolist() == their_tokens.tolist()
    agreement(
        "beam search",
        "transformers",
        torch.stack([score for (score, _), _ in pairs]),
        torch.stack([score for _, (score, _) in pairs]),
        atol=2e-5,  # float32: sums of 10 log-probabilities of some nats, times 10^0.5
        convention='generate with early_stopping="never"; length_penalty is our alpha; "ranked"',
    )


@pytest.mark.parametrize("early_stopping", [False, True])
def test_the_other_rules_lose_scores_and_never_win(models, early_stopping):
    """Of 15 cases, by up to some tenths."""
    gaps = [float(score - other) for (score, _), (other, _) in all_cases(models, early_stopping)]
    assert min(gaps) > -2e-5
    assert max(gaps) > 0.01
