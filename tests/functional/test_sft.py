"""The supervised fine-tuning loss: shift, mask, normaliser, packing."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmref.functional.sft import (
    pack_sequences,
    packed_attention_mask,
    response_mask,
    sequence_logprob,
    sft_loss,
    sft_token_losses,
)
from tests.tensors import close, generator

INF = math.inf
MEANS = ["token-mean", "seq-mean-token-mean"]
law = settings(deadline=None, max_examples=40)


def batch(B=3, T=5, V=7, seed=0):
    g = generator(seed)
    logits = torch.randn(B, T, V, dtype=torch.float64, generator=g)
    tokens = torch.randint(0, V, (B, T), generator=g)
    mask = torch.rand(B, T, generator=g) < 0.6
    mask[:, 1] = True
    return logits, tokens, mask


def loop_losses(logits, tokens, mask):
    """-log p(y_t | y_<t), token by token: logits at t - 1 predict token t."""
    B, T, _ = logits.shape
    losses = torch.zeros(B, T - 1, dtype=torch.float64)
    for i in range(B):
        for t in range(1, T):
            if mask[i, t]:
                scores = logits[i, t - 1].double().tolist()
                total = math.log(sum(math.exp(z) for z in scores))
                losses[i, t - 1] = total - scores[tokens[i, t]]
    return losses


def test_losses_of_two_counted_tokens():
    """Everywhere p = (1/4, 3/4); targets 1 and 0 cost -log(3/4) and -log(1/4)."""
    logits = torch.tensor([0.0, math.log(3)], dtype=torch.float64).expand(1, 3, 2)
    tokens, mask = torch.tensor([[1, 1, 0]]), torch.tensor([[0, 1, 1]])
    expected = -torch.tensor([[3 / 4, 1 / 4]], dtype=torch.float64).log()
    close(sft_token_losses(logits, tokens, mask)[0], expected)
    close(sft_loss(logits, tokens, mask, agg="token-mean"), expected.mean())
    close(sequence_logprob(logits, tokens, mask), torch.tensor([3 / 16]).double().log())


def test_means_of_unequal_rows():
    """Counts (1, 3), row means (3, 1) in units of log 2: tokens 6/4 = 1.5, sequences 2."""
    unit = math.log(2)
    logits = torch.zeros(2, 4, 8, dtype=torch.float64)  # log 8 = 3 log 2
    logits[1, :, 2:] = -INF  # log 2
    tokens = torch.zeros(2, 4, dtype=torch.long)
    mask = torch.tensor([[0, 1, 0, 0], [0, 1, 1, 1]])
    close(sft_loss(logits, tokens, mask, agg="token-mean") / unit, torch.tensor(1.5).double())
    mean = sft_loss(logits, tokens, mask, agg="seq-mean-token-mean")
    close(mean / unit, torch.tensor(2.0).double())
    close(
        sft_loss(logits, tokens, mask, agg="token-mean", denom=1) / unit, torch.tensor(6.0).double()
    )


def test_every_aggregation_equals_the_definition_written_as_a_loop():
    logits, tokens, mask = batch()
    losses, counts = loop_losses(logits, tokens, mask), mask[:, 1:].sum(-1)
    expected = {
        "token-mean": losses.sum() / counts.sum(),
        "seq-mean-token-mean": (losses.sum(-1) / counts).sum() / 3,
        "seq-mean-token-sum": losses.sum() / 3,
    }
    close(sft_token_losses(logits, tokens, mask)[0], losses)
    close(sft_loss(logits, tokens, mask, agg="token-mean", denom=1), losses.sum())
    close(sft_loss(logits, tokens, mask, agg="constant", norm=2.0), losses.sum() / (3 * 2))
    for agg, value in expected.items():
        close(sft_loss(logits, tokens, mask, agg=agg), value)
    close(sequence_logprob(logits, tokens, mask), -losses.sum(-1))


def test_a_perfect_predictor_of_the_next_token_has_loss_zero_and_no_other_shift_has():
    tokens = torch.tensor([[0, 1, 2, 3, 4, 5]])
    mask = torch.ones_like(tokens)
    logits = 100 * torch.eye(7)[tokens + 1]
    assert sft_loss(logits, tokens, mask, agg="token-mean") < 1e-9
    assert sft_loss(logits.roll(1, 1), tokens, mask, agg="token-mean") > 50  # not shifted
    assert (
        sft_loss(logits[:, :-1], tokens[:, 1:], mask[:, 1:], agg="token-mean") > 50
    )  # shifted before as well


def test_the_first_response_token_is_predicted_at_the_last_prompt_position():
    logits, tokens, _ = batch(B=1)
    mask = response_mask(torch.tensor([2]), torch.tensor([4]), 5)
    grad = torch.autograd.functional.jacobian(
        lambda z: sft_loss(z, tokens, mask, agg="token-mean"), logits
    )
    assert (grad.abs().sum(-1) > 0).tolist() == [[False, True, True, False, False]]


def test_the_first_token_is_never_a_target():
    logits, tokens, mask = batch()
    mask[:, 0] = False
    for agg in (*MEANS, "seq-mean-token-sum"):
        base = sft_loss(logits, tokens, mask, agg=agg)
        mask[:, 0] = True
        close(sft_loss(logits, tokens, mask, agg=agg), base, atol=0)
        mask[:, 0] = False


def test_the_id_zero_counts_like_any_other():
    logits = torch.zeros(1, 3, 4, dtype=torch.float64)
    tokens = torch.zeros(1, 3, dtype=torch.long)
    loss = sft_loss(logits, tokens, torch.ones(1, 3, dtype=torch.bool), agg="token-mean", denom=1)
    close(loss, torch.tensor(2 * math.log(4), dtype=torch.float64))


def test_the_gradient_is_p_minus_the_target_where_a_token_counts():
    logits, tokens, mask = batch()
    grad = torch.autograd.functional.jacobian(
        lambda z: sft_loss(z, tokens, mask, agg="token-mean", denom=1), logits
    )
    expected = torch.zeros_like(logits)
    for i in range(3):
        for t in range(1, 5):
            if mask[i, t]:
                expected[i, t - 1] = logits[i, t - 1].softmax(-1)
                expected[i, t - 1, tokens[i, t]] -= 1
    close(grad, expected)


@pytest.mark.parametrize("agg", [*MEANS, "seq-mean-token-sum"])
def test_autograd_agrees_with_finite_differences(agg):
    logits, tokens, mask = batch(2, 4, 3)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: sft_loss(z, tokens, mask, agg=agg), logits)
    assert torch.autograd.gradcheck(lambda z: sequence_logprob(z, tokens, mask), logits)


def test_uncounted_positions_may_hold_anything():
    logits, tokens, mask = batch()
    mask[:, 3:] = False
    base = sft_loss(logits, tokens, mask, agg="token-mean")
    logits[:, 2:], tokens[:, 3:] = math.nan, -100
    logits.requires_grad_()
    loss = sft_loss(logits, tokens, mask, agg="token-mean")
    close(loss, base, atol=0)
    (grad,) = torch.autograd.grad(loss, logits)
    assert grad.isfinite().all()
    assert (grad[:, 2:] == 0).all()


@given(st.integers(0, 10_000))
@law
def test_the_difference_of_the_means_is_a_covariance(seed):
    logits, tokens, mask = batch(5, 7, 3, seed)
    counts = mask[:, 1:].sum(-1).double()
    means = sft_token_losses(logits, tokens, mask)[0].sum(-1) / counts
    covariance = (counts * means).mean() - counts.mean() * means.mean()
    token, sequence = (sft_loss(logits, tokens, mask, agg=r) for r in MEANS)
    close(token - sequence, covariance / counts.mean())


@given(st.integers(0, 10_000), st.integers(1, 4))
@law
def test_micro_batches_with_the_global_count_add_up(seed, cut):
    logits, tokens, mask = batch(5, 4, 3, seed)
    mask[0] = False  # a piece may be empty
    parts = [slice(0, cut), slice(cut, 5)]
    counts = mask[:, 1:].sum(-1)
    for agg, denom in zip(MEANS, (counts.sum(), (counts > 0).sum()), strict=True):
        whole = sft_loss(logits, tokens, mask, agg=agg)
        pieces = [sft_loss(logits[s], tokens[s], mask[s], agg=agg, denom=denom) for s in parts]
        close(sum(pieces), whole)


def test_averaging_the_means_of_micro_batches_is_something_else():
    logits, tokens, mask = batch()
    mask[0, 2:], mask[1:, 1:] = False, True
    parts = [slice(0, 1), slice(1, 3)]
    means = [sft_loss(logits[s], tokens[s], mask[s], agg="token-mean") for s in parts]
    assert (sum(means) / 2 - sft_loss(logits, tokens, mask, agg="token-mean")).abs() > 1e-2


@pytest.mark.parametrize("denom", [12, 12.0, torch.tensor(12), torch.tensor([12.0])])
def test_denom_replaces_the_divisor_and_the_loss_stays_a_scalar(denom):
    logits, tokens, mask = batch()
    total = sft_loss(logits, tokens, mask, agg="token-mean", denom=1)
    for agg in ("token-mean", "seq-mean-token-sum"):
        loss = sft_loss(logits, tokens, mask, agg=agg, denom=denom)
        assert loss.shape == ()
        close(loss, total / 12)


def test_a_batch_that_counts_nothing_has_no_mean_but_a_sum_of_zero_with_gradient_zero():
    logits, tokens, mask = batch()
    mask[:, 1:] = False
    mask[:, 0] = True
    for agg in MEANS:
        with pytest.raises(ValueError, match="a mean over nothing does not exist"):
            sft_loss(logits, tokens, mask, agg=agg)
    logits.requires_grad_()
    for agg in (*MEANS, "seq-mean-token-sum"):
        loss = sft_loss(logits, tokens, mask, agg=agg, denom=9)
        assert loss == 0
        assert (torch.autograd.grad(loss, logits)[0] == 0).all()
    assert (sequence_logprob(logits, tokens, mask) == 0).all()


def test_a_row_that_counts_nothing_is_left_out_of_both_means():
    logits, tokens, mask = batch()
    mask[1] = False
    rows = [0, 2]
    for agg in MEANS:
        close(
            sft_loss(logits, tokens, mask, agg=agg),
            sft_loss(logits[rows], tokens[rows], mask[rows], agg=agg),
        )


def test_a_single_column_has_no_target():
    logits, tokens = torch.zeros(2, 1, 3), torch.zeros(2, 1, dtype=torch.long)
    mask = torch.ones(2, 1, dtype=torch.bool)
    assert sft_token_losses(logits, tokens, mask)[0].shape == (2, 0)
    assert sft_loss(logits, tokens, mask, agg="token-mean", denom=1) == 0
    with pytest.raises(ValueError, match="a mean over nothing"):
        sft_loss(logits, tokens, mask, agg="token-mean")


def test_a_target_of_probability_zero_costs_infinity():
    logits = torch.tensor([0.0, -INF]).expand(1, 2, 2)
    assert sft_loss(logits, torch.tensor([[0, 1]]), torch.tensor([[0, 1]]), agg="token-mean") == INF


@pytest.mark.parametrize("kind", [torch.bool, torch.long, torch.uint8, torch.float32])
def test_masks_of_zeros_and_ones_are_booleans(kind):
    logits, tokens, mask = batch()
    close(
        sft_loss(logits, tokens, mask.to(kind), agg="token-mean"),
        sft_loss(logits, tokens, mask, agg="token-mean"),
        atol=0,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_logits_give_a_loss_in_float32(dtype):
    logits, tokens, mask = batch(V=40)
    logits = (3 * logits).to(dtype)
    expected = sft_loss(logits.double(), tokens, mask, agg="token-mean")
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for agg in (*MEANS, "seq-mean-token-sum"):
        assert sft_loss(logits, tokens, mask, agg=agg).dtype == wide
    assert sequence_logprob(logits, tokens, mask).dtype == wide
    close(sft_loss(logits, tokens, mask, agg="token-mean").double(), expected, atol=1e-6)


def test_tokens_of_any_integer_type_are_taken():
    logits, tokens, mask = batch()
    close(
        sft_loss(logits, tokens.to(torch.int32), mask, agg="token-mean"),
        sft_loss(logits, tokens, mask, agg="token-mean"),
        atol=0,
    )


def test_response_mask_counts_the_end_of_sequence_and_not_the_padding():
    """Prompt 2 of 4 tokens in 5; prompt 0 of 3: all; prompt 5 of 5: nothing."""
    mask = response_mask(torch.tensor([2, 0, 5]), torch.tensor([4, 3, 5]), 5)
    expected = [[0, 0, 1, 1, 0], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]
    assert mask.dtype == torch.bool
    assert mask.int().tolist() == expected


def test_packing_two_documents_into_one_row():
    """Documents (3, 1, 4) and (1, 5) in a row of 6; both first tokens lose their mask."""
    packed = pack_sequences(
        [torch.tensor([3, 1, 4]), torch.tensor([1, 5])],
        [torch.tensor([1, 1, 1]), torch.tensor([1, 1])],
        max_len=6,
        pad_id=9,
    )
    assert packed.tokens.tolist() == [[3, 1, 4, 1, 5, 9]]
    assert packed.mask.int().tolist() == [[0, 1, 1, 0, 1, 0]]
    assert packed.segment_ids.tolist() == [[0, 0, 0, 1, 1, -1]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 0, 1, 0]]


@pytest.mark.parametrize("small", [torch.int8, torch.uint8, torch.int16, torch.int32])
def test_packing_documents_of_several_dtypes_changes_no_id(small):
    """Id 40000 does not fit into the first document's int16, nor -100 for padding into uint8."""
    docs = [torch.tensor([1, 2], dtype=small), torch.tensor([40000, 300])]
    packed = pack_sequences(docs, [torch.ones(2)] * 2, max_len=5, pad_id=-100)
    assert packed.tokens.dtype == torch.int64
    assert packed.tokens.tolist() == [[1, 2, 40000, 300, -100]]
    with pytest.raises(TypeError, match=r"pad_id must be an int, got 0\.5"):
        pack_sequences(docs, [torch.ones(2)] * 2, max_len=5, pad_id=0.5)


@pytest.mark.parametrize("small", [torch.int8, torch.uint8])
def test_lengths_in_eight_bits_are_compared_in_full(small):
    """Rows of 300 wrap to 44 in eight bits, below a length of 120."""
    mask = response_mask(torch.tensor([100], dtype=small), torch.tensor([120], dtype=small), 300)
    assert mask.nonzero()[:, 1].tolist() == list(range(100, 120))


def test_packing_puts_the_longest_first_into_the_tightest_row():
    """Lengths 2, 4, 3, 1 in rows of 5: 4 + 1 and 3 + 2, each in the given order.

    Lengths 4, 5, 2 in rows of 7: the 2 goes to the 5, which leaves no room, not to the 4.
    """
    for lengths, max_len, expected in [
        ((2, 4, 3, 1), 5, [[2, 2, 3, 3, 3], [4, 4, 4, 4, 1]]),
        ((4, 5, 2), 7, [[4, 4, 4, 4, 0, 0, 0], [5, 5, 5, 5, 5, 2, 2]]),
    ]:
        docs = [torch.full((n,), n) for n in lengths]
        packed = pack_sequences(docs, [torch.ones_like(d) for d in docs], max_len, pad_id=0)
        assert packed.tokens.tolist() == expected


@given(st.lists(st.integers(1, 7), min_size=1, max_size=9), st.integers(0, 1000))
@law
def test_packing_loses_no_token_and_no_target(lengths, seed):
    g = generator(seed)
    docs = [torch.randint(0, 50, (n,), generator=g) for n in lengths]
    masks = [torch.rand(n, generator=g) < 0.5 for n in lengths]
    packed = pack_sequences(docs, masks, max_len=7, pad_id=99)
    found = []
    for row in range(len(packed.tokens)):
        for segment in range(int(packed.segment_ids[row].max()) + 1):
            where = packed.segment_ids[row] == segment
            assert packed.position_ids[row, where].tolist() == list(range(int(where.sum())))
            found.append(
                (packed.tokens[row, where].tolist(), packed.mask[row, where].int().tolist())
            )
    expected = [(d.tolist(), [0, *m[1:].int().tolist()]) for d, m in zip(docs, masks, strict=True)]
    assert sorted(found) == sorted(expected)
    padding = packed.segment_ids < 0
    assert (packed.tokens[padding] == 99).all()
    assert not packed.mask[padding].any()
    assert padding.sum() + sum(lengths) == packed.tokens.numel()


def test_packed_attention_equals_the_definition_written_as_a_loop():
    ids = torch.tensor([[0, 0, 1, 1, 1, -1, -1], [4, 4, 4, 4, 2, 2, 0]])
    mask = packed_attention_mask(ids)
    assert mask.shape == (2, 1, 7, 7)
    for b in range(2):
        for t in range(7):
            for s in range(7):
                same = ids[b, t] == ids[b, s] and ids[b, t] >= 0
                assert mask[b, 0, t, s] == ((same and s <= t) or s == t)
    assert mask.any(-1).all()


def attention_lm(tokens, allowed, positions, seed=0):
    """One layer of attention with learned positions, then a head: logits (B, T, 5)."""
    g = generator(seed)
    embed, place = (torch.randn(n, 8, dtype=torch.float64, generator=g) for n in (5, 20))
    q, k, v, head = (torch.randn(8, 8, dtype=torch.float64, generator=g) for _ in range(4))
    x = embed[tokens] + place[positions]
    scores = ((x @ q) @ (x @ k).mT).masked_fill(~allowed[:, 0], -INF)
    return (x + scores.softmax(-1) @ (x @ v)) @ head[:, :5]


@pytest.mark.parametrize("mistake", [None, "mask", "positions", "target"])
def test_packing_is_exact_with_its_mask_positions_and_targets(mistake):
    docs = [torch.tensor(d) for d in ([0, 1, 2, 3], [4, 3, 1], [2, 2])]
    masks = [torch.ones(len(d), dtype=torch.bool) for d in docs]
    apart = 0
    for doc, mask in zip(docs, masks, strict=True):
        allowed = packed_attention_mask(torch.zeros(1, len(doc), dtype=torch.long))
        logits = attention_lm(doc[None], allowed, torch.arange(len(doc))[None])
        apart = apart + sft_loss(logits, doc[None], mask[None], agg="token-mean", denom=1)
    packed = pack_sequences(docs, masks, max_len=11, pad_id=0)
    allowed, positions, mask = packed_attention_mask(packed.segment_ids), packed[3], packed.mask
    if mistake == "mask":
        allowed = torch.ones_like(allowed).tril()
    if mistake == "positions":
        positions = torch.arange(11)[None]
    if mistake == "target":
        mask = packed.segment_ids >= 0
    logits = attention_lm(packed.tokens, allowed, positions)
    together = sft_loss(logits, packed.tokens, mask, agg="token-mean", denom=1)
    if mistake is None:
        close(together, apart)
    else:
        assert (together - apart).abs() > 1e-2


def test_shapes_that_do_not_fit_are_refused():
    logits, tokens, mask = batch()
    for bad in (logits[:, :-1], logits[0], logits[:2]):
        with pytest.raises(ValueError, match=r"(logits|tokens) must be \(B, T.*, got"):
            sft_loss(bad, tokens, mask, agg="token-mean")
    with pytest.raises(
        ValueError,
        match=r"tokens must be \(B, T\) = \(3, 5\) beside logits \(3, 5, 7\), got \(5,\)",
    ):
        sft_loss(logits, tokens[0], mask[0], agg="token-mean")
    with pytest.raises(
        ValueError,
        match=r"mask must be \(B, T\) = \(3, 5\) beside logits \(3, 5, 7\), tokens \(3, 5\)",
    ):
        sft_loss(logits, tokens, mask[:, 1:], agg="token-mean")


@pytest.mark.parametrize("bad", [2, -1, 0.5, math.nan])
def test_masks_that_are_not_zero_or_one_are_refused(bad):
    logits, tokens, mask = batch()
    mask = mask.double()
    mask[0, 2] = bad
    with pytest.raises(ValueError, match=f"zeros and ones only, got {float(bad)}"):
        sft_loss(logits, tokens, mask, agg="token-mean")


@pytest.mark.parametrize("bad", [-100, -1, 7])
def test_counted_tokens_outside_the_vocabulary_are_refused(bad):
    logits, tokens, mask = batch()
    tokens[1, 1] = bad
    with pytest.raises(ValueError, match=rf"tokens holds the id {bad}, outside \[0, 7\)"):
        sft_loss(logits, tokens, mask, agg="token-mean")


def test_a_nan_logit_that_predicts_a_counted_token_is_refused():
    logits, tokens, mask = batch()
    logits[1, 0] = math.nan
    with pytest.raises(ValueError, match="needs a finite maximum, got nan"):
        sft_loss(logits, tokens, mask, agg="token-mean")


def test_wrong_options_are_refused():
    logits, tokens, mask = batch()
    with pytest.raises(ValueError, match="agg must be one of .*token-mean.*, got 'mean'"):
        sft_loss(logits, tokens, mask, agg="mean")
    with pytest.raises(ValueError, match="'constant' counts nothing that denom could replace"):
        sft_loss(logits, tokens, mask, agg="constant", norm=1.0, denom=3)
    for bad in (0, -1, math.nan, INF):
        with pytest.raises(ValueError, match="denom must be positive and finite"):
            sft_loss(logits, tokens, mask, denom=bad, agg="token-mean")
    with pytest.raises(ValueError, match="denom must be one number"):
        sft_loss(logits, tokens, mask, denom=torch.tensor([1, 2]), agg="token-mean")


def test_wrong_dtypes_are_refused():
    logits, tokens, mask = batch()
    with pytest.raises(TypeError, match=r"tokens must hold integers, got torch.float32"):
        sft_loss(logits, tokens.float(), mask, agg="token-mean")
    with pytest.raises(TypeError, match=r"tokens must hold integers, got torch.bool"):
        sft_loss(logits, tokens.bool(), mask, agg="token-mean")
    with pytest.raises(TypeError, match=r"must be floating point, got torch\.int64"):
        sft_loss(logits.long(), tokens, mask, agg="token-mean")
    with pytest.raises(TypeError, match=r"lengths must hold integers, got torch.float32"):
        response_mask(torch.tensor([1]), torch.tensor([2.0]), 3)
    with pytest.raises(TypeError, match="segment_ids must hold integers"):
        packed_attention_mask(torch.zeros(1, 2))
    with pytest.raises(TypeError, match=r"seqs\[0\] must hold integers, got torch\.float32"):
        pack_sequences([torch.zeros(2)], [torch.ones(2)], 3, 0)


def test_the_least_lengths_are_accepted_and_those_below_refused():
    nothing = torch.tensor([0])
    assert response_mask(nothing, nothing, 0).shape == (1, 0)
    with pytest.raises(ValueError, match="max_len must be at least 0, got -1"):
        response_mask(nothing, nothing, -1)
    docs, masks = [torch.tensor([3])], [torch.tensor([1])]
    assert pack_sequences(docs, masks, 1, 0).tokens.tolist() == [[3]]
    with pytest.raises(ValueError, match="max_len must be at least 1, got 0"):
        pack_sequences(docs, masks, 0, 0)


def test_response_lengths_taken_for_total_lengths_are_refused():
    with pytest.raises(ValueError, match="prompt included, got 3 and 2 in row 1"):
        response_mask(torch.tensor([1, 3]), torch.tensor([2, 2]), 5)
    with pytest.raises(ValueError, match="length <= max_len 5, .* got 1 and 6 in row 0"):
        response_mask(torch.tensor([1]), torch.tensor([6]), 5)
    with pytest.raises(ValueError, match="got -1 and 2 in row 0"):
        response_mask(torch.tensor([-1]), torch.tensor([2]), 5)
    with pytest.raises(
        ValueError,
        match=r"lengths must be \(B,\) = \(1,\) beside prompt_lengths \(1,\), got \(2,\)",
    ):
        response_mask(torch.tensor([1]), torch.tensor([2, 2]), 5)


def test_documents_that_do_not_fit_are_refused():
    doc, mask = torch.tensor([1, 2, 3]), torch.ones(3)
    with pytest.raises(ValueError, match=r"seqs\[0\] must hold 1 to 2 tokens, got 3"):
        pack_sequences([doc], [mask], 2, 0)
    with pytest.raises(ValueError, match=r"seqs\[0\] must hold 1 to 2 tokens, got 0"):
        pack_sequences([doc[:0]], [mask[:0]], 2, 0)
    with pytest.raises(ValueError, match=r"seqs\[0\] must be \(T,\), got \(1, 3\)"):
        pack_sequences([doc[None]], [mask[None]], 4, 0)
    with pytest.raises(ValueError, match="each with one of masks, got 1 and 0"):
        pack_sequences([doc], [], 4, 0)
    with pytest.raises(ValueError, match="needs seqs, .* got 0 and 0"):
        pack_sequences([], [], 4, 0)
    with pytest.raises(
        ValueError, match=r"masks\[0\] must be \(T,\) = \(3,\) beside seqs\[0\] \(3,\), got \(2,\)"
    ):
        pack_sequences([doc], [mask[:2]], 4, 0)


def test_segments_in_two_pieces_are_refused():
    with pytest.raises(ValueError, match=r"in one piece, got \[0, 1, 0\]"):
        packed_attention_mask(torch.tensor([[0, 1, 2], [0, 1, 0]]))
    with pytest.raises(ValueError, match=r"must be \(B, T\), got \(3,\)"):
        packed_attention_mask(torch.tensor([0, 1, 2]))
