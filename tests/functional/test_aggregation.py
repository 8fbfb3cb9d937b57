"""Aggregation of token losses, and the validation that the losses share."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from llmref.functional.aggregation import aggregate
from llmref.rl._tokens import token_log_probs

MODES = ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "constant"]

LOSS = torch.tensor(
    [[1.0, 2.0, 3.0, 6.0], [5.0, 7.0, 99.0, 99.0], [4.0, 99.0, 99.0, 99.0]], dtype=torch.float64
)
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()


def by_loops(loss, mask, mode, norm):
    """The four normalisers, spelled out; empty rows are skipped."""
    rows = [
        [x for x, counts in zip(row, keep, strict=True) if counts]
        for row, keep in zip(loss.tolist(), mask.tolist(), strict=True)
    ]
    filled = [row for row in rows if row]
    if mode == "token-mean":
        return sum(map(sum, filled)) / sum(map(len, filled))
    if mode == "seq-mean-token-mean":
        return sum(sum(row) / len(row) for row in filled) / len(filled)
    if mode == "seq-mean-token-sum":
        return sum(map(sum, filled)) / len(filled)
    return sum(map(sum, filled)) / (len(rows) * norm)


@pytest.mark.parametrize(
    ("mode", "norm", "expected"),
    [
        ("token-mean", None, 28 / 7),
        ("seq-mean-token-mean", None, (3 + 6 + 4) / 3),
        ("seq-mean-token-sum", None, (12 + 12 + 4) / 3),
        ("constant", 8.0, 28 / 24),
    ],
)
def test_normalisers_on_lengths_4_2_1(mode, norm, expected):
    """Sums 12, 12, 4 and lengths 4, 2, 1: 28/7; (3+6+4)/3; 28/3; 28/(3*8)."""
    assert aggregate(LOSS, MASK, agg=mode, norm=norm).item() == pytest.approx(expected, abs=1e-15)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any),
    mode=st.sampled_from(MODES),
    seed=st.integers(0, 2**16),
)
def test_equals_the_loops_with_empty_rows_skipped(lengths, mode, seed):
    generator = torch.Generator().manual_seed(seed)
    loss = torch.randn(len(lengths), 5, dtype=torch.float64, generator=generator)
    mask = torch.arange(5).expand(len(lengths), 5) < torch.tensor(lengths).unsqueeze(1)
    norm = 2.5 if mode == "constant" else None
    actual = aggregate(loss, mask, agg=mode, norm=norm, empty="skip")
    assert actual.item() == pytest.approx(by_loops(loss, mask, mode, norm), abs=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_equal_lengths_make_all_modes_proportional(mode):
    loss = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    norm = 5.0 if mode == "constant" else None
    scale = 5 if mode == "seq-mean-token-sum" else 1
    actual = aggregate(loss, torch.ones(3, 5).bool(), agg=mode, norm=norm)
    torch.testing.assert_close(actual, loss.mean() * scale, atol=1e-15, rtol=0)


def test_an_empty_row_leaves_n_of_the_means_and_stays_in_n_of_the_constant():
    loss, mask = torch.cat([LOSS, LOSS[:1]]), torch.cat([MASK, torch.zeros(1, 4).bool()])
    for mode in MODES[:3]:
        assert aggregate(loss, mask, agg=mode, empty="skip") == aggregate(LOSS, MASK, agg=mode)
    skipped = aggregate(loss, mask, agg="constant", norm=1.0, empty="skip")
    assert skipped.item() == pytest.approx(28 / 4, abs=1e-15)


@pytest.mark.parametrize("padding", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("mode", MODES)
def test_padding_changes_neither_value_nor_gradient(mode, padding):
    norm = 3.0 if mode == "constant" else None
    clean = torch.where(MASK, LOSS, 0.0).requires_grad_()
    dirty = torch.where(MASK, LOSS, padding).requires_grad_()
    values = [aggregate(x, MASK, agg=mode, norm=norm) for x in (clean, dirty)]
    gradients = [torch.autograd.grad(v, x)[0] for v, x in zip(values, (clean, dirty), strict=True)]
    assert values[0] == values[1]
    assert torch.equal(gradients[0], gradients[1])


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32, torch.bfloat16])
def test_masks_of_zeros_and_ones_are_accepted_in_any_dtype(dtype):
    assert aggregate(LOSS, MASK.to(dtype), agg="token-mean").item() == 4.0


def test_bfloat16_sums_in_float32():
    """A sum of 257 is no bfloat16 (256 is the nearest), but the mean of 2 x 257 ones is 1."""
    ones = torch.ones(2, 257, dtype=torch.bfloat16)
    mean = aggregate(ones, ones, agg="token-mean")
    assert mean.dtype == torch.bfloat16
    assert mean.item() == 1


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "agg must be one of .*got 'mean'", lambda: aggregate(LOSS, MASK, agg="mean")),
        (ValueError, "agg 'constant' needs norm", lambda: aggregate(LOSS, MASK, agg="constant")),
        (
            ValueError,
            "'token-mean' takes no norm",
            lambda: aggregate(LOSS, MASK, agg="token-mean", norm=2.0),
        ),
        (ValueError, "norm must be pos", lambda: aggregate(LOSS, MASK, agg="constant", norm=0.0)),
        (
            ValueError,
            "norm must be positive and finite, got inf",
            lambda: aggregate(LOSS, MASK, agg="constant", norm=float("inf")),
        ),
        (
            ValueError,
            "empty must be one of",
            lambda: aggregate(LOSS, MASK, empty="zero", agg="token-mean"),
        ),
        (ValueError, "got 0.5", lambda: aggregate(LOSS, MASK * 0.5, agg="token-mean")),
        (ValueError, "got nan", lambda: aggregate(LOSS, MASK * float("nan"), agg="token-mean")),
        (
            ValueError,
            r"mask must be \(N, T\) = \(3, 4\) beside loss \(3, 4\), got \(3, 3\)",
            lambda: aggregate(LOSS, MASK[:, 1:], agg="token-mean"),
        ),
        (
            ValueError,
            r"\(N, T\), got \(4,\)",
            lambda: aggregate(LOSS[0], MASK[0], agg="token-mean"),
        ),
        (
            ValueError,
            "NaN at a counted",
            lambda: aggregate(LOSS * float("nan"), MASK, agg="token-mean"),
        ),
        (
            ValueError,
            "a mean over nothing",
            lambda: aggregate(LOSS, ~MASK & MASK, empty="skip", agg="token-mean"),
        ),
        (
            ValueError,
            "a mean over nothing",
            lambda: aggregate(LOSS[:0], MASK[:0], agg="token-mean"),
        ),
        (
            ValueError,
            r"rows \[0\] count no token: drop them .*, or aggregate with empty='skip'",
            lambda: aggregate(LOSS, ~MASK, agg="token-mean"),
        ),
        (
            TypeError,
            "^loss must be floating point",
            lambda: aggregate(LOSS.long(), MASK, agg="token-mean"),
        ),
    ],
)
def test_wrong_input_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_log_probs_are_zeroed_before_any_exp():
    logp = torch.tensor([[-1.0, float("-inf"), float("nan")]])
    kept = token_log_probs("logp", logp, torch.tensor([[True, False, False]]), constant=True)
    assert kept.tolist() == [[-1.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("error", "message", "logp"),
    [
        (ValueError, "x must be finite where the mask counts", torch.tensor([[-1.0, -torch.inf]])),
        (ValueError, "x must be finite where the mask counts", torch.tensor([[-1.0, torch.nan]])),
        (ValueError, "x holds log-probabilities, at most 0, got 0.5", torch.tensor([[-1.0, 0.5]])),
        (
            ValueError,
            r"x must be \(N, T\) = \(1, 2\) beside mask \(1, 2\), got \(1, 3\)",
            torch.zeros(1, 3),
        ),
        (ValueError, "x must not require grad", torch.zeros(1, 2, requires_grad=True)),
        (TypeError, "x must be floating point, got torch.int64", torch.tensor([[-1, 0]])),
    ],
)
def test_invalid_log_probs_are_refused(error, message, logp):
    with pytest.raises(error, match=message):
        token_log_probs("x", logp, torch.ones(1, 2).bool(), constant=True)
