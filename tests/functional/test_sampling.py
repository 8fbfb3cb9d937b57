"""Decoding filters, and the draws from what they leave."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmref.functional.sampling import (
    apply_temperature,
    filtered_logprob,
    gumbel_noise,
    min_p_filter,
    presence_frequency_penalty,
    process_logits,
    repetition_penalty,
    sample,
    sample_without_replacement,
    top_k_filter,
    top_p_filter,
)
from llmref.functional.softmax import softmax
from tests.tensors import close, generator, random

INF = math.inf
METHODS = ["inverse_cdf", "gumbel", "exponential"]
FILTERS = {
    "temperature": lambda z: apply_temperature(z, 2.0),
    "top_k": lambda z: top_k_filter(z, 2),
    "top_p": lambda z: top_p_filter(z, 0.7),
    "min_p": lambda z: min_p_filter(z, 0.3),
    "process": lambda z: process_logits(z, temperature=2.0, top_p=0.7),
}
law = settings(deadline=None, max_examples=60)


def logits_of(*p):
    return torch.tensor(p, dtype=torch.float64).log()


def kept(filtered):
    """Which tokens are left, as a list of indices."""
    return filtered.isfinite().nonzero().flatten().tolist()


def first(p, size):
    """The most probable tokens, ties by lower index."""
    return sorted(sorted(range(len(p)), key=lambda i: (-p[i], i))[:size])


# Small weights, many ties; 1009 is prime, so that no sum of them is at a threshold and rounding
# decides nothing.
weights = st.lists(st.integers(0, 6), min_size=1, max_size=6).filter(any)
thresholds = st.integers(1, 1008).map(lambda n: Fraction(n, 1009))


def test_temperature_two_halves_the_distances():
    z = torch.tensor([3.0, 1.0, -INF], dtype=torch.float64)
    close(apply_temperature(z, 2.0), torch.tensor([0.0, -1.0, -INF], dtype=torch.float64))


def test_temperature_does_not_overflow():
    z = torch.tensor([3e38, 2e38], dtype=torch.float32)
    assert softmax(apply_temperature(z, 1e-30)).tolist() == [1.0, 0.0]


def test_a_high_temperature_keeps_removed_tokens_out():
    z = torch.tensor([1.0, 0.0, -INF])
    assert softmax(apply_temperature(z, 1e30)).tolist() == [0.5, 0.5, 0.0]


def test_top_k_keeps_exactly_k_and_the_lower_index_among_ties():
    """(1, 3, 3, 3, 2) with k = 2: tokens 1 and 2, not all three threes."""
    z = torch.tensor([1.0, 3.0, 3.0, 3.0, 2.0])
    assert kept(top_k_filter(z, 2)) == [1, 2]
    assert kept(top_k_filter(z, 4)) == [1, 2, 3, 4]
    close(top_k_filter(z, 9), z, atol=0)
    assert kept(top_k_filter(torch.tensor([0.0, -INF, 1.0]), 3)) == [0, 2]


def test_top_p_keeps_the_token_that_crosses():
    """(0.6, 0.3, 0.1): 0.6 reaches 0.5 and 0.6, not 0.7; 0.9 reaches 0.7, not 0.95."""
    z = logits_of(0.6, 0.3, 0.1)
    for p, expected in {1e-9: [0], 0.5: [0], 0.7: [0, 1], 0.95: [0, 1, 2], 1.0: [0, 1, 2]}.items():
        assert kept(top_p_filter(z, p)) == expected


def test_top_p_stops_when_the_mass_is_reached_exactly():
    """(1/2, 1/4, 1/4): the first reaches 1/2; the first two reach 3/4."""
    z = torch.tensor([0.0, -1.0, -1.0], dtype=torch.float64) * math.log(2)
    assert kept(top_p_filter(z, 0.5)) == [0]
    assert kept(top_p_filter(z, 0.75)) == [0, 1]


def test_top_p_of_one_removes_nothing_even_where_the_sum_is_rounded():
    z = torch.zeros(100_000)
    z[1:] = -20.0
    assert top_p_filter(z, 1.0).isfinite().all()
    assert not top_p_filter(z, 1 - 1e-7).isfinite().all()
    far = torch.tensor([0.0, -50.0], dtype=torch.float64)  # 1 + e^-50 is 1
    assert torch.equal(top_p_filter(far, 1.0), far)


def test_min_p_compares_with_the_largest_and_keeps_ties():
    """(0.4, 0.2, 0.2, 0.15, 0.05): 0.4 * 0.45 = 0.18 keeps three, 0.4 * 1 keeps one."""
    z = logits_of(0.4, 0.2, 0.2, 0.15, 0.05)
    assert kept(min_p_filter(z, 0.45)) == [0, 1, 2]
    assert kept(min_p_filter(z, 1.0)) == [0]
    assert kept(min_p_filter(torch.zeros(3), 1.0)) == [0, 1, 2]


def test_repetition_penalty_divides_the_positive_and_multiplies_the_negative():
    z = torch.tensor([[2.0, -1.0, 3.0, 0.0, 0.5]])
    seen = torch.tensor([[0, 1, 0, 3, 4]])  # token 0 twice, still divided once
    close(repetition_penalty(z, seen, 2.0), torch.tensor([[1.0, -2.0, 3.0, 0.0, 0.25]]))


def test_repetition_penalty_depends_on_a_constant_that_softmax_does_not_see():
    z = torch.tensor([[2.0, 1.9, -1.0]], dtype=torch.float64)
    seen = torch.tensor([[0]])
    shares = [softmax(repetition_penalty(z + c, seen, 1.2))[0, 0].item() for c in (0, 10, -10)]
    assert max(shares) - min(shares) > 0.2


def test_presence_and_frequency_are_subtracted():
    z = torch.tensor([[2.0, -1.0, 3.0], [0.0, 0.0, 0.0]])
    seen = torch.tensor([[0, 1, 0], [2, -1, -1]])  # -1: the second row has one token only
    expected = torch.tensor([[0.0, -2.5, 3.0], [0.0, 0.0, -1.5]])
    close(presence_frequency_penalty(z, seen, 1.0, 0.5), expected)


def test_penalties_skip_what_is_no_token():
    z, seen = random(2, 5), torch.tensor([[1, -1, 1], [-1, -1, -1]])
    close(repetition_penalty(z, seen, 1.3)[1], z[1], atol=0)
    close(repetition_penalty(z, seen, 1.3)[0], repetition_penalty(z[:1], seen[:1, :1], 1.3)[0])
    close(repetition_penalty(z, seen[:, :0], 1.3), z, atol=0)


def test_subtractions_do_not_depend_on_the_default_dtype():
    """0.3 in float32 is 0.3 + 1.2e-8: too coarse for logits in float64."""
    z, seen = random(1, 5), torch.tensor([[0, 1, 1]])
    expected = z - torch.tensor([[0.4, 0.5, 0, 0, 0]], dtype=torch.float64)
    assert torch.get_default_dtype() == torch.float32
    close(presence_frequency_penalty(z, seen, 0.3, 0.1), expected, atol=1e-15)


@pytest.mark.parametrize(
    "penalise",
    [
        lambda z, seen: repetition_penalty(z, seen, 2.0),
        lambda z, seen: repetition_penalty(z, seen, 0.5),
        lambda z, seen: presence_frequency_penalty(z, seen, -1e4, 0.0),
        lambda z, seen: presence_frequency_penalty(z, seen, 0.0, 1e300),
        lambda z, seen: presence_frequency_penalty(z, seen, 1e308, -1e308),
    ],
)
def test_penalties_that_overflow_are_refused(penalise):
    """Twice -60000, or 60000 + 10000, is beyond float16; before, a token was lost or NaN."""
    z = torch.tensor([[60000.0, 1.0, -60000.0]], dtype=torch.float16)
    with pytest.raises(ValueError, match=r"overflow torch\.float16"):
        penalise(z, torch.tensor([[0, 2, 2, 2]]))


def test_what_is_removed_already_is_no_overflow():
    z, seen = torch.tensor([[1.0, -INF]]), torch.tensor([[1]])
    assert repetition_penalty(z, seen, 2.0).tolist() == [[1.0, -INF]]
    assert presence_frequency_penalty(z, seen, 1.0, 1.0).tolist() == [[1.0, -INF]]


def test_top_p_counts_tails_that_float32_would_lose():
    """One token has all but 2e-6 of the mass; 999 others share that: 1 - 1e-9 needs all of them."""
    z = torch.zeros(1000)
    z[0] = 20.0
    assert top_p_filter(z, 1 - 1e-9).isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_a_large_constant_does_not_swallow_the_noise(method):
    """Around 1e17 float64 has steps of 16, beside which Gumbel noise would be rounded away."""
    z = torch.full((4000, 2), 1e17, dtype=torch.float64)
    share = sample(z, method=method, generator=generator()).double().mean()
    assert abs(share - 0.5) < 0.04
    firsts = sample_without_replacement(z, 1, generator=generator()).double().mean()
    assert abs(firsts - 0.5) < 0.04


@pytest.mark.parametrize(
    "call",
    [
        lambda x: apply_temperature(torch.zeros(2, 3), x),
        lambda x: process_logits(torch.zeros(2, 3), temperature=x),
        lambda x: sample(torch.zeros(2, 3), temperature=x),
        lambda x: top_p_filter(torch.zeros(2, 3), x),
        lambda x: min_p_filter(torch.zeros(2, 3), x),
        lambda x: process_logits(torch.zeros(2, 3), min_p=x),
        lambda x: repetition_penalty(torch.zeros(2, 3), torch.zeros(2, 1).long(), x),
        lambda x: presence_frequency_penalty(torch.zeros(2, 3), torch.zeros(2, 1).long(), x, 0),
    ],
)
def test_numbers_are_numbers(call):
    with pytest.raises(TypeError, match=r"must be one number, got a tensor \(3,\)"):
        call(torch.tensor([0.5, 0.6, 0.7]))
    with pytest.raises(TypeError, match="must be a number, got '0.5'"):
        call("0.5")
    with pytest.raises(TypeError, match="must be a number, got True"):
        call(True)


def test_more_draws_than_an_index_can_hold_are_refused():
    with pytest.raises(ValueError, match="different tokens from 3 finite logits"):
        sample_without_replacement(torch.zeros(3), 10**30)
    assert sample_without_replacement(torch.zeros(0, 3), 2).shape == (0, 2)


@given(weights, st.integers(1, 7))
@law
def test_top_k_is_the_heaviest_set_of_its_size(w, k):
    z = logits_of(*w)
    size = min(k, sum(x > 0 for x in w))
    assert kept(top_k_filter(z, k)) == first(w, size)
    assert sum(sorted(w)[::-1][:size]) == max(
        sum(subset) for subset in itertools.combinations(w, size)
    )


@given(weights, thresholds)
@law
def test_top_p_is_the_smallest_set_that_reaches_p(w, p):
    total = sum(w)
    sizes = [
        size
        for size in range(1, len(w) + 1)
        if max(map(sum, itertools.combinations(w, size))) >= p * total
    ]
    assert kept(top_p_filter(logits_of(*w), float(p))) == first(w, sizes[0])


@given(weights, thresholds)
@law
def test_min_p_is_a_ratio_to_the_largest(w, p):
    expected = [i for i, x in enumerate(w) if x >= p * max(w)]
    assert kept(min_p_filter(logits_of(*w), float(p))) == expected


@given(weights, st.integers(1, 6), thresholds, st.sampled_from([0.25, 0.5, 2.0, 4.0]))
@law
def test_orders_that_do_not_matter(w, k, p, temperature):
    z = logits_of(*w)
    for names in (("temperature", "top_k"), ("top_k", "min_p")):
        options = {"temperature": temperature, "top_k": k, "min_p": float(p)}
        chosen = {name: options[name] for name in names}
        close(
            softmax(process_logits(z, order=names, **chosen)),
            softmax(process_logits(z, order=names[::-1], **chosen)),
        )


def test_orders_that_matter():
    """Of (.5, .25, .15, .10) top-3 then top-p 0.8 leaves (2/3, 1/3); the reverse three tokens."""
    z = logits_of(0.5, 0.25, 0.15, 0.10)
    options = {"top_k": 3, "top_p": 0.8}
    close(
        softmax(process_logits(z, order=("top_k", "top_p"), **options)),
        torch.tensor([2 / 3, 1 / 3, 0, 0], dtype=torch.float64),
    )
    close(
        softmax(process_logits(z, order=("top_p", "top_k"), **options)),
        torch.tensor([5 / 9, 5 / 18, 1 / 6, 0], dtype=torch.float64),
    )


def test_the_default_order_is_temperature_top_k_top_p_min_p():
    z = random(3, 7)
    by_hand = min_p_filter(top_p_filter(top_k_filter(apply_temperature(z, 0.7), 5), 0.9), 0.1)
    chained = process_logits(z, temperature=0.7, top_k=5, top_p=0.9, min_p=0.1)
    close(chained, by_hand, atol=0)
    close(process_logits(z), z, atol=0)


@pytest.mark.parametrize("name", FILTERS)
def test_rows_are_filtered_one_by_one_whatever_the_batch_axes(name):
    z = 3 * random(2, 3, 5, 7)
    filtered = FILTERS[name](z)
    assert filtered.shape == z.shape
    for index in itertools.product(range(2), range(3), range(5)):
        close(filtered[index], FILTERS[name](z[index]), atol=0)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_filters_keep_the_dtype_and_decide_as_in_float64(name, dtype):
    z = (3 * random(30, 40)).to(dtype)
    filtered, exact = FILTERS[name](z), FILTERS[name](z.double())
    assert filtered.dtype == dtype
    if name != "temperature":
        assert (filtered.isfinite() == exact.isfinite()).double().mean() > 0.999
    both = filtered.isfinite() & exact.isfinite()
    close(filtered[both], exact[both].to(dtype), atol=1e-6)


@pytest.mark.parametrize("name", FILTERS)
def test_gradients_pass_to_the_tokens_that_stay(name):
    z = random(2, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: softmax(FILTERS[name](t)), z)
    left = FILTERS[name](z).isfinite()
    (grad,) = torch.autograd.grad((softmax(FILTERS[name](z)) * random(2, 5, seed=1)).sum(), z)
    assert grad.isfinite().all()
    assert ((grad != 0) == left)[left.sum(-1) > 1].all()


def test_penalties_pass_gradcheck():
    z = random(2, 5).requires_grad_()
    seen = torch.tensor([[0, 1, 1], [4, 2, -1]])
    assert torch.autograd.gradcheck(lambda t: repetition_penalty(t, seen, 1.3), z)
    assert torch.autograd.gradcheck(lambda t: presence_frequency_penalty(t, seen, 0.5, 0.2), z)


def frequencies(tokens, V):
    return torch.bincount(tokens, minlength=V).double() / len(tokens)


@pytest.mark.parametrize("method", METHODS)
def test_draws_have_the_law_of_the_softmax(method):
    """200 000 draws: the largest deviation stays below 4.5 standard errors."""
    p = torch.tensor([0.45, 0.0, 0.3, 0.2, 0.05], dtype=torch.float64)
    n = 200_000
    tokens = sample(p.log().expand(n, 5), method=method, generator=generator())
    error = (frequencies(tokens, 5) - p).abs()
    assert (error <= 4.5 * (p * (1 - p) / n).sqrt()).all()


@pytest.mark.parametrize("method", METHODS)
def test_draws_have_the_law_of_the_filters(method):
    z = logits_of(0.5, 0.25, 0.15, 0.1).expand(100_000, 4)
    options = {"temperature": 2.0, "top_k": 3, "top_p": 0.9, "min_p": 0.1}
    q = softmax(process_logits(z[0], **options))
    tokens = sample(z, method=method, generator=generator(), **options)
    error = (frequencies(tokens, 4) - q).abs()
    assert (error <= 4.5 * (q * (1 - q) / len(z)).sqrt()).all()


@pytest.mark.parametrize("method", METHODS)
def test_temperature_zero_is_greedy_with_the_lowest_index_among_ties(method):
    z = torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, -INF], [0.0, 0.0, 5.0]])
    for filters in ({}, {"top_k": 2}, {"top_p": 0.3, "min_p": 0.5}):
        tokens = sample(z, method=method, temperature=0, **filters)
        assert tokens.tolist() == [1, 0, 2]
    assert sample(torch.tensor([0.0, 1e-45]), method=method, temperature=0) == 1  # half of it is 0


def test_tokens_are_sorted_so_that_ties_keep_their_order(monkeypatch):
    """On a CPU torch does so unasked; elsewhere only if it is asked to."""
    asked, argsort = [], torch.Tensor.argsort

    def noted(*args, **options):
        asked.append(options.get("stable"))
        return argsort(*args, **options)

    monkeypatch.setattr(torch.Tensor, "argsort", noted)
    top_k_filter(torch.zeros(3), 2)
    top_p_filter(torch.zeros(3), 0.5)
    assert asked == [True, True]


@pytest.mark.parametrize("method", METHODS)
def test_every_shape_of_rows_is_drawn(method):
    z = 3 * random(2, 3, 5)
    assert sample(z, method=method).shape == (2, 3)
    assert sample(z[0, 0], method=method).shape == ()
    assert sample(z[:0], method=method).shape == (0, 3)
    certain = torch.eye(5).log()
    assert sample(certain, method=method).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("p", "u", "token"),
    [
        ([0.0, 0.5, 0.5], 2.0**-53, 1),
        ([0.5, 0.5], 0.5, 1),  # F_1 = u is not larger than u
        ([0.5, 0.5], 0.5 - 2.0**-53, 0),
        ([0.1] * 10, 1 - 2.0**-53, 9),  # ten times 0.1 is 1 - 2^-53: no sum is larger than u
        ([0.5, 0.5, 0.0], 1 - 2.0**-53, 1),
    ],
)
def test_inverse_cdf_at_the_edges_of_the_uniform(monkeypatch, p, u, token):
    def fixed(shape, *_):
        return torch.full(shape, u, dtype=torch.float64)

    monkeypatch.setattr("llmref.functional.sampling.draws._uniform", fixed)
    assert sample(logits_of(*p), method="inverse_cdf") == token


def test_the_exponential_race_and_gumbel_max_draw_the_same_tokens_from_one_generator():
    z = 3 * random(500, 7)
    race, perturbed = (sample(z, method=m, generator=generator()) for m in METHODS[:0:-1])
    assert race.equal(perturbed)


@pytest.mark.parametrize("method", METHODS)
def test_the_generator_decides(method):
    z = random(50, 5)
    draws = [sample(z, method=method, generator=generator(s)) for s in (1, 1, 2)]
    assert draws[0].equal(draws[1])
    assert not draws[0].equal(draws[2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_noise_is_finite_between_the_extremes_of_its_grid(dtype):
    """The uniforms run from 2^-s to 1 - 2^-s, s = 53, 24, 8 or 11."""
    s = {torch.float64: 53, torch.float32: 24, torch.bfloat16: 8, torch.float16: 11}[dtype]
    noise = gumbel_noise((300, 700), generator=generator(), dtype=dtype)
    assert noise.dtype == dtype
    assert noise.isfinite().all()
    low, high = -math.log(s * math.log(2)), -math.log(-math.log1p(-(2.0**-s)))
    slack = 1 + 4 * torch.finfo(dtype).eps
    assert low * slack <= noise.min().item()
    assert noise.max().item() <= high * slack
    if s < 12:
        assert noise.min().item() <= low / slack
        assert noise.max().item() >= high / slack


def test_noise_has_the_mean_and_variance_of_a_gumbel():
    """Mean 0.5772 (Euler), variance pi^2 / 6."""
    noise = gumbel_noise((400_000,), generator=generator())
    deviation = math.pi / math.sqrt(6)
    assert abs(noise.mean().item() - 0.5772156649) < 4 * deviation / 400_000**0.5
    assert abs(noise.var().item() - deviation**2) < 0.03


def test_the_largest_perturbed_logit_is_a_gumbel_around_the_lse():
    z = random(4)
    largest = (z + gumbel_noise((200_000, 4), generator=generator())).amax(-1)
    assert abs(largest.mean() - z.logsumexp(-1) - 0.5772156649) < 4 * 1.2826 / 200_000**0.5


def test_draws_without_replacement_have_the_law_of_successive_draws():
    p = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    n = 200_000
    pairs = sample_without_replacement(p.log().expand(n, 4), 2, generator=generator())
    assert (pairs[:, 0] != pairs[:, 1]).all()
    found = frequencies(4 * pairs[:, 0] + pairs[:, 1], 16).view(4, 4)
    expected = p[:, None] * p / (1 - p[:, None])
    expected.fill_diagonal_(0)
    assert ((found - expected).abs() <= 4.5 * (expected / n).sqrt()).all()


def test_drawing_all_tokens_gives_a_permutation():
    z = 3 * random(2, 3, 5)
    assert (sample_without_replacement(z, 5).sort(-1).values == torch.arange(5)).all()
    z[0, 0, 1] = -INF
    assert 1 not in sample_without_replacement(z, 4)[0, 0]


def test_filtered_logprob_is_the_conditional_law():
    """(0.5, 0.25, 0.15, 0.1), top-2: (2/3, 1/3, 0, 0)."""
    z = logits_of(0.5, 0.25, 0.15, 0.1).expand(4, 4)
    found = filtered_logprob(z, torch.arange(4), top_k=2)
    close(found[:2].exp(), torch.tensor([2 / 3, 1 / 3], dtype=torch.float64))
    assert (found[2:] == -INF).all()
    close(filtered_logprob(z, torch.arange(4)), z[0])


def test_filtered_logprob_sums_to_one_and_agrees_with_the_draws():
    z = 2 * random(3, 7)
    for filters in ({"temperature": 0.5}, {"top_k": 3, "top_p": 0.8}, {"min_p": 0.2}):
        every = torch.stack(
            [filtered_logprob(z, torch.full((3,), i), **filters) for i in range(7)], dim=-1
        )
        close(every.exp().sum(-1), torch.ones(3, dtype=torch.float64))
        drawn = sample(z, generator=generator(), **filters)
        assert every.gather(-1, drawn[:, None]).isfinite().all()


def test_filtered_logprob_at_temperature_zero_is_one_hot():
    z = torch.tensor([[1.0, 3.0, 3.0]]).expand(3, 3)
    assert filtered_logprob(z, torch.arange(3), temperature=0).tolist() == [-INF, 0.0, -INF]


def test_filtered_logprob_passes_gradcheck_and_widens_half_precision():
    z, token = random(2, 3, 5).requires_grad_(), torch.tensor([[0, 1, 2], [3, 4, 0]])
    assert torch.autograd.gradcheck(
        lambda t: filtered_logprob(t, token, temperature=0.7, top_k=5), z
    )
    assert filtered_logprob(z.bfloat16(), token, temperature=0.7).dtype == torch.float32


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("bad", [-INF, INF, math.nan])
def test_a_row_without_finite_maximum_is_refused(name, bad):
    z = torch.zeros(2, 3)
    z[1] = bad
    with pytest.raises(ValueError, match=f"needs a finite maximum, got {bad}"):
        FILTERS[name](z)
    for draw in (sample, lambda t: sample_without_replacement(t, 1)):
        with pytest.raises(ValueError, match="needs a finite maximum"):
            draw(z)
    with pytest.raises(ValueError, match="needs a finite maximum"):
        repetition_penalty(z, torch.zeros(2, 1, dtype=torch.long), 2.0)


@pytest.mark.parametrize("name", FILTERS)
def test_integer_logits_are_refused(name):
    with pytest.raises(TypeError, match=r"must be floating point, got torch\.int64"):
        FILTERS[name](torch.zeros(2, 3, dtype=torch.long))


@pytest.mark.parametrize("bad", [0, -1.0, math.nan, INF, 1e-50])
def test_temperatures_that_are_not_positive_and_finite_are_refused(bad):
    with pytest.raises(ValueError, match="must be positive and finite in torch.float32, got"):
        apply_temperature(torch.zeros(3), bad)
    if bad != 0:
        with pytest.raises(ValueError, match="must be positive and finite"):
            sample(torch.zeros(3), temperature=bad)


def test_the_least_and_the_largest_temperature_of_a_dtype_are_accepted():
    limits = torch.finfo(torch.float32)
    for temperature in (limits.tiny, limits.max):
        found = apply_temperature(torch.tensor([0.0, -temperature]), temperature)
        close(found, torch.tensor([0.0, -1.0]))


def test_counts_below_one_are_refused():
    for bad in (0, -3):
        with pytest.raises(ValueError, match=f"k must be at least 1, got {bad}"):
            top_k_filter(torch.zeros(3), bad)
        with pytest.raises(ValueError, match=f"k must be at least 1, got {bad}"):
            sample_without_replacement(torch.zeros(3), bad)
    for bad in (2.0, True):
        with pytest.raises(TypeError, match=f"k must be an int, got {bad}"):
            top_k_filter(torch.zeros(3), bad)


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.5, math.nan])
def test_shares_outside_zero_to_one_are_refused(bad):
    with pytest.raises(ValueError, match=r"^p must be in \(0, 1\], got"):
        top_p_filter(torch.zeros(3), bad)
    with pytest.raises(ValueError, match=r"^p must be in \(0, 1\], got"):
        min_p_filter(torch.zeros(3), bad)
    for name in ("top_p", "min_p"):
        with pytest.raises(ValueError, match=rf"{name} must be in \(0, 1\], got"):
            process_logits(torch.zeros(3), **{name: bad})


def test_what_is_drawn_from_takes_the_filters_by_name():
    with pytest.raises(TypeError, match=r"sample\(\) got an unexpected keyword argument 'topk'"):
        sample(torch.zeros(3), topk=3)
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        filtered_logprob(torch.zeros(3), torch.tensor(1), top_k=0)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: apply_temperature(x, 1.0),
        lambda x: top_k_filter(x, 1),
        lambda x: top_p_filter(x, 0.5),
        lambda x: min_p_filter(x, 0.5),
        process_logits,
        sample,
        lambda x: repetition_penalty(x[None], x[None], 2.0),
    ],
)
def test_integer_logits_are_refused_by_their_name(call):
    with pytest.raises(TypeError, match="logits must be floating point, got torch.int64"):
        call(torch.tensor([0, 1]))


def test_penalties_refuse_what_does_not_fit():
    z, seen = torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.long)
    for bad in (0.0, -1.0, math.nan, INF):
        with pytest.raises(ValueError, match="penalty must be positive and finite, got"):
            repetition_penalty(z, seen, bad)
    with pytest.raises(ValueError, match=r"presence must be in \(-inf, inf\), got nan"):
        presence_frequency_penalty(z, seen, math.nan, 0)
    with pytest.raises(
        ValueError, match=r"previous must be \(B, T\) beside logits \(2, 3\), got \(4,\)"
    ):
        repetition_penalty(z, seen[0], 2.0)
    with pytest.raises(
        ValueError, match=r"previous must be \(B, T\) beside logits .* got \(1, 4\)"
    ):
        repetition_penalty(z, seen[:1], 2.0)
    for bad in (-2, 3):
        with pytest.raises(ValueError, match=rf"previous holds the id {bad}, outside \[-1, 3\)"):
            repetition_penalty(z, torch.full((2, 1), bad), 2.0)
    with pytest.raises(TypeError, match="previous must hold integers, got torch.float32"):
        repetition_penalty(z, seen.float(), 2.0)


def test_an_order_that_forgets_repeats_or_misspells_is_refused():
    z = torch.zeros(3)
    for order in (("temperature",), ("top_k", "top_k"), ("top_k", "topp"), ("top-k",)):
        with pytest.raises(ValueError, match="order must name each filter in use once, got"):
            process_logits(z, top_k=2, order=order)


def test_an_unknown_method_or_filter_is_refused():
    with pytest.raises(ValueError, match="method must be one of .*gumbel.*, got 'greedy'"):
        sample(torch.zeros(3), method="greedy")
    with pytest.raises(TypeError, match="unexpected keyword argument 'topk'"):
        sample(torch.zeros(3), topk=2)


def test_more_draws_than_tokens_are_refused():
    z = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, -INF]])
    with pytest.raises(ValueError, match="cannot draw 3 different tokens from 2 finite logits"):
        sample_without_replacement(z, 3)


def test_noise_needs_a_floating_point_dtype():
    with pytest.raises(TypeError, match=r"must be floating point, got torch\.int64"):
        gumbel_noise((2,), dtype=torch.long)


def test_tokens_that_do_not_fit_are_refused():
    z = torch.zeros(2, 3)
    with pytest.raises(
        ValueError, match=r"token must be \(\.\.\.\) = \(2,\) beside logits \(2, 3\), got \(3,\)"
    ):
        filtered_logprob(z, torch.zeros(3, dtype=torch.long))
    for bad in (-1, 3):
        with pytest.raises(ValueError, match=rf"token holds the id {bad}, outside \[0, 3\)"):
            filtered_logprob(z, torch.tensor([0, bad]))
    with pytest.raises(TypeError, match="token must hold integers, got torch.float32"):
        filtered_logprob(z, torch.zeros(2))
