"""Beam search: numbers by hand, the search on lists, what theorems say, gradients, and errors."""

import itertools
import math

import pytest
import torch

from llmref.inference.beam_search import (
    BeamResult,
    beam_search,
    beam_step,
    certificate,
    length_normalized_score,
)
from tests.tensors import close, f64

START = torch.tensor([4, 2])
ALPHAS = (-0.5, 0.0, 0.6, 2.0)


def one(value):
    return f64(value).squeeze()


def bigrams(*rows):
    """A model that reads the last token alone."""
    logp = f64(*rows).log()
    return lambda tokens: logp[tokens[:, -1]]


def tree(V, T, seed):
    """A random distribution after each prefix, by a hash of the tokens after the prompt."""
    generator = torch.Generator().manual_seed(seed)
    rows = 1.5 * torch.randn(V**T, V, generator=generator, dtype=torch.float64)
    rows = rows.masked_fill(torch.rand(rows.shape, generator=generator) < 0.1, -math.inf)
    rows[:, 1] = rows[:, 1].nan_to_num(neginf=0.0)
    rows = rows.log_softmax(-1)

    def model(tokens):
        place = torch.zeros(len(tokens), dtype=torch.long)
        for new in tokens[:, len(START) :].T:
            place = (V * place + new + 1) % len(rows)
        return rows[place]

    return model


def search(model, B, T, *, alpha=0.0, eos=0, finish="ranked", prompt=START):
    return beam_search(
        model,
        prompt,
        num_beams=B,
        max_new_tokens=T,
        eos_token_id=eos,
        length_penalty=alpha,
        finish=finish,
    )


def on_lists(model, B, T, alpha, finish):
    """The definition, run to the end: score, tokens, and what was given up when one may stop."""
    live, best, pruned, given_up = [(0.0, [])], (-math.inf, []), -math.inf, None
    for t in range(1, T + 1):
        grown = [
            (logp + p, [*y, v])
            for logp, y in live
            for v, p in enumerate(model(torch.tensor([[*START.tolist(), *y]]))[0].tolist())
            if p > -math.inf
        ]
        grown.sort(key=lambda it: -it[0])
        live = [it for it in grown if it[1][-1] != 0 and t < T][:B]
        for place, (logp, y) in enumerate(grown):
            ends = y[-1] == 0 or t == T
            if ends and (finish == "any" or place < B):
                best = max(best, (logp / t**alpha, y), key=lambda it: it[0])
            elif (logp, y) not in live:
                pruned = max(pruned, logp)
        left = max([logp for logp, _ in live], default=-math.inf)
        if given_up is None and best[0] >= left / (T if alpha > 0 else t + 1) ** alpha:
            given_up = pruned
    return best[0], best[1], given_up


def test_greedy_misses_what_two_beams_find():
    """1 has .6 and then 1/3 at best: .2; 2 has .4 and then .9: .36."""
    model = bigrams([1, 0, 0], [1 / 3] * 3, [0.9, 0.05, 0.05], [0, 0, 1], [0, 0.6, 0.4])
    start = torch.tensor([4])
    rows = model(start[None])
    assert rows.shape == (1, 3)
    greedy, wide = (search(model, B, 2, eos=None, prompt=start) for B in (1, 2))
    close(greedy.logp.exp(), one(0.2))
    close(wide.logp.exp(), one(0.36))
    assert wide.tokens.tolist() == [2, 0]
    assert greedy.score == greedy.logp


def test_scores_by_hand():
    """-6 over 4 is -1.5, over the root of 4 it is -3, times the square of 4 it is -96."""
    for alpha, score in ((1, -1.5), (0.5, -3.0), (0, -6.0), (-2, -96.0)):
        found = length_normalized_score(f64(-6.0), torch.tensor([4], dtype=torch.int8), alpha=alpha)
        close(found, f64(score))
    impossible = length_normalized_score(f64(-math.inf), torch.tensor([3]), alpha=1.0)
    assert impossible == -math.inf


def test_a_step_by_hand():
    """.5 * (.7, .2, .1) and .4 * (.1, .6, .3): .35, .24, .12, .1, .05, .04."""
    rows = f64([0.7, 0.2, 0.1], [0.1, 0.6, 0.3]).log()
    scores, parents, tokens = beam_step(f64(0.5, 0.4).log(), rows, num_beams=4)
    close(scores.exp(), f64(0.35, 0.24, 0.12, 0.1))
    assert parents.tolist() == [0, 1, 1, 0]
    assert tokens.tolist() == [0, 1, 2, 1]


def test_ties_go_by_beam_and_token_and_the_impossible_is_dropped():
    rows = f64([0.5, 0.0, 0.5], [0.0, 0.5, 0.5]).log()
    _, parents, tokens = beam_step(f64(0.0, 0.0), rows, num_beams=9)
    assert parents.tolist() == [0, 0, 1, 1]
    assert tokens.tolist() == [0, 2, 1, 2]
    many = torch.full((1, 700), 1 / 700, dtype=torch.float64).log()
    assert beam_step(f64(0.0), many, num_beams=5)[2].tolist() == [0, 1, 2, 3, 4]
    _, parents, _ = beam_step(f64(-math.inf, -1.0), rows, num_beams=9)
    assert parents.tolist() == [1, 1]


def test_of_equal_scores_the_first_found_wins():
    """EOS has .5, and .5 again one token later: -log 2 each for alpha = 1."""
    found = search(bigrams([0.5, 0.5], [0.5, 0.5]), 2, 2, alpha=1.0, prompt=START[1:] - 1)
    assert found.tokens.tolist() == [0]
    close(found.score, one(-math.log(2)))


def test_with_a_negative_penalty_the_next_length_decides_when_to_stop():
    """EOS at once scores -1.2; token 1 and a sure EOS, of length 2, score -2 * 0.5."""
    model = bigrams([0.301, 0.607, 0.092], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0])
    found = search(model, 1, 5, alpha=-1.0, finish="any", prompt=torch.tensor([0]))
    assert found.tokens.tolist() == [1, 0]
    assert found.score.item() == pytest.approx(2 * math.log(0.607), rel=1e-6)


def test_with_a_penalty_up_to_1_the_longest_length_decides_when_to_stop():
    """EOS scores log .7; token 1 is then sure, and log .3 over 5 is better, over 2 not."""
    model = bigrams([0.7, 0.3], [0.0, 1.0], [0.7, 0.3])
    for alpha in (0.9, 1.0):
        found = search(model, 2, 5, alpha=alpha, finish="any", prompt=torch.tensor([2]))
        assert found.tokens.tolist() == [1] * 5


def test_scores_decide_when_to_stop_and_not_log_probabilities():
    """For alpha = -1: EOS of .4 after token 1 scores 2 log .4, one token later 3 log .6."""
    rows = f64([0.0, 1.0], [0.4, 0.6], [1.0, 0.0]).log()

    def model(tokens):
        return rows[tokens.shape[1] - 1].expand(len(tokens), 2)

    found = search(model, 2, 5, alpha=-1.0, finish="any", prompt=torch.tensor([1]))
    assert found.tokens.tolist() == [1, 1, 0]


def test_it_stops_where_no_live_beam_can_be_better_though_it_can_be_as_good():
    calls = []

    def model(tokens):
        calls.append(len(tokens))
        return f64([0.5, 0.5]).log().expand(len(tokens), 2)

    assert search(model, 2, 5).tokens.tolist() == [0]
    assert calls == [1]


def test_a_row_may_be_off_by_the_rounding_of_its_dtype_and_no_more():
    """With one token: 1e-4 and 2^-7 log 2 are 0.0055 in bfloat16, and 1e-4 in float64."""
    for dtype, accepted, refused in (
        (torch.bfloat16, 0.005, 0.0058),
        (torch.float64, 0.00009, 0.00011),
    ):
        for sign in (1, -1):
            row = torch.full((2, 1), sign * accepted, dtype=dtype)
            assert beam_step(f64(0.0, 0.0), row, num_beams=2)[2].tolist() == [0, 0]
            with pytest.raises(ValueError, match="sum to 1 in each row"):
                beam_step(f64(0.0, 0.0), row / accepted * refused, num_beams=2)


def test_it_equals_the_search_on_lists():
    for seed, B, alpha, finish in itertools.product(range(4), (1, 3), ALPHAS, ("ranked", "any")):
        model = tree(4, 4, seed)
        found = search(model, B, 4, alpha=alpha, finish=finish)
        score, tokens, given_up = on_lists(model, B, 4, alpha, finish)
        close(found.score, one(score))
        assert found.tokens.tolist() == tokens
        assert found[4:] == (alpha, 4)
        close(found.pruned, one(given_up))


def test_a_certified_text_is_the_best_of_all():
    """All texts: beam search with so many beams that none is pruned."""
    certified = 0
    for seed, B, alpha in itertools.product(range(6), (1, 3), ALPHAS):
        model = tree(3, 4, seed)
        everything = search(model, 81, 4, alpha=alpha, finish="any")
        found = search(model, B, 4, alpha=alpha)
        if certificate(found):
            certified += 1
            close(found.score, everything.score)
    assert certified > 5


def test_a_certificate_by_hand():
    """Pruned -3: with 4 tokens -.75 at best for alpha = 1; -3 for 0, and for -1 with 1 token."""
    for alpha, bound in ((1.0, -0.75), (0.0, -3.0), (-1.0, -3.0)):
        given = torch.tensor([1]), one(-1.0)
        for gap, told in ((0.01, True), (-0.01, False)):
            score = one(bound + gap)
            result = BeamResult(*given, score, one(-3.0), alpha, 4)
            assert certificate(result) is told
        assert certificate(BeamResult(*given, one(bound), one(-3.0), alpha, 4))  # as good suffices
    assert certificate(BeamResult(*given, one(-9.0), one(-math.inf), 1.0, 4))


def test_a_sure_model_needs_one_pass_per_token():
    calls = []

    def model(tokens):
        calls.append(len(tokens))
        return f64([1.0, 0.0]).log().expand(len(tokens), 2)

    found = search(model, 3, 5)
    assert found.tokens.tolist() == [0]
    assert calls == [1]
    assert found.pruned == -math.inf


def test_the_first_pass_has_one_row_and_the_later_ones_at_most_the_width():
    rows = []

    def model(tokens):
        rows.append(tuple(tokens.shape))
        return torch.full((len(tokens), 3), 1 / 3).log()

    search(model, 4, 3, eos=None)
    assert rows == [(1, 2), (3, 3), (4, 4)]


def test_half_precision_is_searched_in_float32():
    found = search(lambda tokens: tree(4, 3, 0)(tokens).bfloat16(), 2, 3, alpha=1.0)
    assert found.logp.dtype == found.score.dtype == torch.float32
    wide = search(tree(4, 3, 0), 2, 3, alpha=1.0)
    assert found.tokens.tolist() == wide.tokens.tolist()
    assert abs(found.score - wide.score) < 0.02


def test_gradients():
    rows = torch.tensor([[0.5, -1.0], [0.2, 0.9]], dtype=torch.float64, requires_grad=True)

    def score(logits):
        return search(lambda tokens: logits.log_softmax(-1)[tokens[:, -1] % 2], 2, 3).logp

    assert torch.autograd.gradcheck(score, (rows,), fast_mode=True)
    normalised = lambda x: length_normalized_score(x, torch.tensor([2, 3]), alpha=0.6)  # noqa: E731
    assert torch.autograd.gradcheck(normalised, (f64(-1.0, -2.0).requires_grad_(),))


def test_a_log_probability_above_0_by_rounding_counts_as_0():
    """EOS has 1/2, and so has 1, which is then sure four times: log 1/2 for both, EOS is first."""
    above = f64([-math.inf, 9e-5])  # its exponential is within 1e-4 of 1

    def model(tokens):
        first = f64([0.5, 0.5]).log()
        return (first if tokens.shape[1] == len(START) else above).expand(len(tokens), 2)

    for alpha, tokens in ((0.0, [0]), (-1.0, [0]), (1.0, [1] * 5)):
        found = search(model, 1, 5, alpha=alpha, finish="any")
        assert found.tokens.tolist() == tokens
        close(found.score, one(math.log(0.5) / len(tokens) ** alpha))
    close(beam_step(f64(-1.0), above, num_beams=2)[0], f64(-1.0))


def test_what_is_refused():
    model, logp, rows = tree(4, 3, 0), f64(-1.0), f64([0.5, 0.5]).log()
    cases = (
        ("num_beams must be at least 1, got 0", lambda: search(model, 0, 3)),
        ("max_new_tokens must be at least 1", lambda: search(model, 1, 0)),
        ("max_new_tokens must be below", lambda: search(model, 1, 2**63, alpha=1.0)),
        ("num_beams must be below", lambda: search(model, 2**63, 1)),
        ("num_beams must be below", lambda: beam_step(logp, rows, num_beams=10**400)),
        ("num_beams must be at least 1, got 0", lambda: beam_step(logp, rows, num_beams=0)),
        ("with V >= 1", lambda: search(lambda tokens: torch.zeros(len(tokens), 0), 1, 3)),
        ("finish must be one of", lambda: search(model, 1, 3, finish="first")),
        (r"eos_token_id must be in \[0, 4\), got 4", lambda: search(model, 1, 3, eos=4)),
        (r"prompt must be \(P\), got \(1, 2\)", lambda: search(model, 1, 3, prompt=START[None])),
        ("got a sum of 2", lambda: beam_step(logp, 0 * rows, num_beams=1)),
        ("got a sum of nan", lambda: beam_step(logp, math.nan * rows, num_beams=1)),
        ("got a sum of 0", lambda: beam_step(logp, rows - math.inf, num_beams=1)),
        ("no candidate is possible", lambda: beam_step(logp - math.inf, rows, num_beams=1)),
        (
            r"logp must be in \[-inf, inf\), got nan",
            lambda: beam_step(logp * math.nan, rows, num_beams=1),
        ),
        (
            r"next_log_probs must be \(b, V\) beside logp \(2,\), got \(1, 2\)",
            lambda: beam_step(f64(0.0, 0.0), rows, num_beams=1),
        ),
        ("with V >= 1", lambda: beam_step(logp, torch.zeros(1, 0), num_beams=1)),
        (
            r"length must be in \[1, inf\), got 0",
            lambda: length_normalized_score(logp, torch.tensor([0]), alpha=1),
        ),
        (
            "got inf for alpha = 2000",
            lambda: length_normalized_score(logp, torch.tensor([9]), alpha=2000),
        ),
        (
            "got 0 for alpha = -2000",
            lambda: length_normalized_score(logp, torch.tensor([9]), alpha=-2000),
        ),
        (
            "got nan for alpha = nan",
            lambda: length_normalized_score(logp, torch.tensor([9]), alpha=math.nan),
        ),
        (
            r"length must be \(...\)",
            lambda: length_normalized_score(logp, torch.tensor(2), alpha=1),
        ),
    )
    for message, call in cases:
        with pytest.raises(ValueError, match=message):
            call()
    for message, call in (
        ("prompt must hold integers", lambda: search(model, 1, 3, prompt=f64(1.0))),
        (
            "next_log_probs must be floating point",
            lambda: beam_step(logp, rows.long(), num_beams=1),
        ),
        ("length must hold integers", lambda: length_normalized_score(logp, logp, alpha=1)),
        (
            "alpha must be a number",
            lambda: length_normalized_score(logp, torch.tensor([2]), alpha="1"),
        ),
        ("num_beams must be an int", lambda: search(model, 2.0, 3)),
    ):
        with pytest.raises(TypeError, match=message):
            call()
