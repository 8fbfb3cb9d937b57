"""Filters and draws against transformers, x-transformers, torch, torchtune, TRL."""

import itertools
import math

import pytest
import torch

from llmref.functional.sampling import (
    apply_temperature,
    filtered_logprob,
    gumbel_noise,
    min_p_filter,
    process_logits,
    repetition_penalty,
    sample,
    sample_without_replacement,
    top_k_filter,
    top_p_filter,
)
from llmref.functional.softmax import softmax
from tests.tensors import generator

TOPIC = "functional/sampling"
V = 9


def random(*shape, seed=0):
    return 3 * torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def rational_laws():
    """Every distribution with four weights of 0 to 4: almost all of them have ties."""
    weights = torch.tensor(list(itertools.product(range(5), repeat=4)), dtype=torch.float64)
    weights = weights[weights.sum(-1) > 0]
    return (weights / weights.sum(-1, keepdim=True)).log()


def warper(name, *args):
    import transformers

    call = getattr(transformers, name)(*args)
    return lambda logits, ids=None: call(ids, logits.clone())


def sizes(logits):
    return logits.isfinite().sum(-1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_temperature(agreement, temperature):
    z = random(5, V)
    ours = softmax(apply_temperature(z, temperature))
    theirs = softmax(warper("TemperatureLogitsWarper", temperature)(z))
    how = "compared after softmax: ours shifts the largest logit to 0"
    agreement("apply_temperature", "transformers", ours, theirs, atol=1e-12, convention=how)


@pytest.mark.parametrize("k", [1, 4, 50])
def test_top_k(agreement, k):
    z = random(5, V)
    from x_transformers.autoregressive_wrapper import top_k

    ours, how = top_k_filter(z, k), "no ties"
    theirs = {"transformers": warper("TopKLogitsWarper", k)(z), "x-transformers": top_k(z, k=k)}
    for library, value in theirs.items():
        agreement("top_k_filter", library, ours, value, atol=0, convention=how)


def test_a_threshold_keeps_more_than_k_tokens_on_ties_in_transformers():
    z = torch.tensor([[3.0, 3.0, 3.0, 1.0]])
    assert sizes(warper("TopKLogitsWarper", 2)(z)) == 3
    assert sizes(top_k_filter(z, 2)) == 2


@pytest.mark.parametrize("p", [0.137, 0.477, 0.731, 0.851])
def test_top_p_on_every_small_rational_law(agreement, p):
    """No mass of a few sixteenths and smaller is near these thresholds; ties are everywhere."""
    from x_transformers.autoregressive_wrapper import top_p

    z = rational_laws()
    ours = top_p_filter(z, p)
    removed = warper("TopPLogitsWarper", p)(z)
    mass = [(softmax(z) * kept.isfinite()).sum(-1) for kept in (ours, removed)]
    how = "mass kept; among tokens tied at the boundary it keeps the last, we keep the first"
    agreement("top_p_filter, ties", "transformers", *mass, atol=1e-12, convention=how)
    assert (sizes(ours) == sizes(removed)).all()
    assert (ours.isfinite() != removed.isfinite()).any()
    distinct = random(50, V)
    ours, how = top_p_filter(distinct, p), "no ties"
    removed = {
        "transformers": warper("TopPLogitsWarper", p)(distinct),
        "x-transformers": top_p(distinct, p),
    }
    for library, value in removed.items():
        agreement("top_p_filter", library, ours, value, atol=0, convention=how)


def test_of_two_equal_tokens_transformers_keeps_the_second():
    z = torch.tensor([[0.0, 0.0]])
    assert warper("TopPLogitsWarper", 0.5)(z).tolist() == [[-math.inf, 0.0]]
    assert top_p_filter(z, 0.5).tolist() == [[0.0, -math.inf]]


def test_at_an_exact_boundary_x_transformers_keeps_one_token_more():
    from x_transformers.autoregressive_wrapper import top_p

    z = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()
    assert sizes(top_p(z, 0.5)) == 2
    assert sizes(top_p_filter(z, 0.5)) == 1


@pytest.mark.parametrize("p", [0.03, 0.26, 0.7, 1.0])
def test_min_p(agreement, p):
    from x_transformers.autoregressive_wrapper import min_p

    for z in (random(50, V), rational_laws()):
        theirs = warper("MinPLogitsWarper", p)(z)
        how = "ties are kept together"
        ours = min_p_filter(z, p)
        agreement("min_p_filter", "transformers", ours, theirs, atol=0, convention=how)
        agreement("min_p_filter", "x-transformers", ours, min_p(z, p), atol=0, convention=how)


@pytest.mark.parametrize("penalty", [0.8, 1.2, 2.0])
def test_repetition_penalty(agreement, penalty):
    z, seen = random(3, V), torch.tensor([[0, 1, 1, 5], [8, 8, 8, 8], [2, 3, 4, 7]])
    theirs = warper("RepetitionPenaltyLogitsProcessor", penalty)(z, seen)
    how = "divide above 0, multiply below, once for each token"
    ours = repetition_penalty(z, seen, penalty)
    agreement("repetition_penalty", "transformers", ours, theirs, atol=1e-12, convention=how)


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).double().eval()


FILTERS = {"temperature": 0.7, "top_k": 7, "top_p": 0.85, "min_p": 0.15}


def generate(**options):
    return llama().generate(
        torch.tensor([[3, 1, 4], [1, 5, 9]]),
        attention_mask=torch.ones(2, 3, dtype=torch.long),
        do_sample=True,
        max_new_tokens=6,
        output_logits=True,
        output_scores=True,
        return_dict_in_generate=True,
        **options,
    )


def test_the_scores_of_generate_are_the_processed_logits(agreement):
    out = generate(**FILTERS, repetition_penalty=1.3)
    how = "penalties, temperature, top-k, top-p, min-p, in this order"
    differences = []
    for step, (logits, scores) in enumerate(zip(out.logits, out.scores, strict=True)):
        penalised = repetition_penalty(logits, out.sequences[:, : 3 + step], 1.3)
        ours, theirs = softmax(process_logits(penalised, **FILTERS)), softmax(scores)
        assert (ours > 0).sum() > 2
        agreement("process_logits", "transformers", ours, theirs, atol=1e-6, convention=how)
        other = process_logits(penalised, **FILTERS, order=tuple(FILTERS)[::-1])
        differences.append((softmax(other) - ours).abs().max())
    assert max(differences) > 1e-2


def test_generate_samples_from_the_top_fifty_unless_told_otherwise():
    assert (sizes(generate().scores[0]) == 50).all()
    assert (sizes(generate(top_k=0).scores[0]) == 60).all()


def test_log_probabilities_of_generate_are_those_of_the_filtered_law(agreement):
    model_output = generate(**FILTERS)
    scores = torch.stack(model_output.scores, dim=1).double()  # (B, steps, V)
    logits = torch.stack(model_output.logits, dim=1).double()
    tokens = model_output.sequences[:, 3:]
    theirs = scores.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
    how = "scores, not logits, hold the distribution that was drawn from"
    ours = filtered_logprob(logits, tokens, **FILTERS)
    agreement("filtered_logprob", "transformers", ours, theirs, atol=1e-6, convention=how)


def test_log_probabilities_of_trl_know_the_temperature_alone(agreement):
    from trl.trainer.utils import selective_log_softmax

    z, tokens = random(3, 5, V), torch.arange(15).reshape(3, 5) % V
    theirs = selective_log_softmax(z, tokens, temperature=0.7)
    ours = filtered_logprob(z, tokens, temperature=0.7)
    how = "temperature alone; top-k, top-p and min-p do not enter"
    agreement("filtered_logprob", "trl", ours, theirs, atol=1e-12, convention=how)
    filtered = filtered_logprob(z, tokens, temperature=0.7, top_k=4)
    assert (filtered - theirs).abs().max() > 1e-2


def test_an_exponential_race_equals_torchtune_token_by_token(agreement, torchtune_imports):
    from torchtune.generation import sample as torchtune_sample

    z = random(400, V)
    clocks = (-gumbel_noise(z.shape, generator=generator(7))).exp()  # the clocks of the same seed
    theirs = torchtune_sample(z, temperature=0.7, top_k=4, q=clocks).squeeze(-1)
    how = "argmax of p / E with the same E: every token equal"
    for method in ("exponential", "gumbel"):
        ours = sample(z, method=method, generator=generator(7), temperature=0.7, top_k=4)
        agreement(f"sample, {method}", "torchtune", ours, theirs, atol=0, convention=how)


@pytest.mark.parametrize("method", ["inverse_cdf", "gumbel", "exponential"])
def test_frequencies_of_draws_equal_multinomial(agreement, method):
    """400 000 draws a side: the standard error of a difference is at most 0.0011."""
    z, n = random(V), 400_000
    ours = sample(z.expand(n, V), method=method, generator=generator(1))
    theirs = torch.multinomial(softmax(z), n, replacement=True, generator=generator(2))
    counts = [torch.bincount(x, minlength=V) / n for x in (ours, theirs)]
    how = "frequencies of 400000 draws"
    agreement(f"sample, {method}", "torch", *counts, atol=0.005, convention=how)


def test_frequencies_of_draws_without_replacement_equal_multinomial(agreement):
    z, n = random(4) / 3, 200_000
    ours = sample_without_replacement(z.expand(n, 4), 2, generator=generator(1))
    theirs = torch.multinomial(softmax(z).expand(n, 4), 2, generator=generator(2))
    counts = [torch.bincount(4 * x[:, 0] + x[:, 1], minlength=16) / n for x in (ours, theirs)]
    how = "frequencies of 200000 ordered pairs"
    agreement("sample_without_replacement", "torch", *counts, atol=0.007, convention=how)


def test_noise_has_the_distribution_function_of_torch(agreement):
    from torch.distributions import Gumbel

    points = torch.linspace(-2, 6, 17, dtype=torch.float64)
    noise = gumbel_noise((200_000,), generator=generator())
    ours = (noise[:, None] <= points).double().mean(0)
    theirs = Gumbel(torch.zeros(()).double(), torch.ones(()).double()).cdf(points)
    how = "fraction of 200000 draws below 17 points"
    agreement("gumbel_noise", "torch", ours, theirs, atol=0.006, convention=how)
