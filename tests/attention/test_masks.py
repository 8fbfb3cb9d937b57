"""Masks: which pairs each allows, how they combine, and what they guarantee bit by bit."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmref.attention.masks import (
    additive_mask,
    and_masks,
    boolean_mask,
    causal_mask,
    check_mask,
    dependency_matrix,
    document_mask,
    or_masks,
    padding_mask,
    position_ids,
    prefix_lm_mask,
    receptive_field,
    sliding_window_mask,
)
from llmref.attention.masks._rows import require_rows
from llmref.attention.scaled_dot_product import scaled_dot_product_attention
from llmref.components.rope import apply_rope, rope_cos_sin, rope_inv_freq
from tests.tensors import close, random

INF = math.inf
T, S = 5, 7
law = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 10_000)


def rows(*lines):
    return torch.tensor([[mark == "1" for mark in line] for line in lines])


def stack(x, mask, layers=3, *, rotate=None):
    """A residual network: attention with fixed projections, then a map of each position."""
    width = x.shape[-1]
    maps = 0.5 * random(layers, 4, width, width, seed=7)
    for to_query, to_key, to_value, to_out in maps:
        q, k, v = x @ to_query, x @ to_key, x @ to_value
        if rotate is not None:
            q, k = (apply_rope(y[:, None], *rotate)[:, 0] for y in (q, k))
        x = x + scaled_dot_product_attention(q, k, v, mask)
        x = x + torch.tanh(x @ to_out)
    return x


def test_causal_masks_worked_by_hand():
    """Queries at positions 1 and 2 of three tokens see two and three keys."""
    assert causal_mask(3).equal(rows("100", "110", "111"))
    assert causal_mask(2, 3).equal(rows("110", "111"))
    assert causal_mask(2, 3, offset=0).equal(rows("100", "110"))
    assert causal_mask(1, 3, offset=5).equal(rows("111"))


def test_window_masks_worked_by_hand():
    """A window of 2 is the token and the one before it."""
    assert sliding_window_mask(4, window=2).equal(rows("1000", "1100", "0110", "0011"))
    assert sliding_window_mask(2, 4, window=2).equal(rows("0110", "0011"))
    assert sliding_window_mask(3, window=1).equal(torch.eye(3, dtype=torch.bool))


def test_prefix_masks_worked_by_hand():
    assert prefix_lm_mask(2, 4).equal(rows("1100", "1100", "1110", "1111"))
    each = prefix_lm_mask(torch.tensor([0, 2, 4]), 4)
    assert each.shape == (3, 1, 4, 4)
    for length, mask in zip([0, 2, 4], each[:, 0], strict=True):
        assert mask.equal(prefix_lm_mask(length, 4))


def test_padding_and_document_masks_worked_by_hand():
    assert padding_mask(torch.tensor([[0, 1, 1], [1, 1, 0]])).tolist() == [
        [[[False, True, True]]],
        [[[True, True, False]]],
    ]
    assert document_mask(torch.tensor([[0, 0, 7]]))[0, 0].equal(rows("110", "110", "001"))
    queries, keys = torch.tensor([[7, 3]]), torch.tensor([[3, 3, 7]])
    assert document_mask(queries, keys)[0, 0].equal(rows("001", "110"))


def test_positions_count_the_real_tokens():
    """A pad in the middle is skipped, not counted."""
    valid = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 0, 1, 0]])
    assert position_ids(valid).tolist() == [[0, 0, 0, 1, 2], [0, 1, 0, 2, 0]]


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 7), (4, 7), (7, 7)])
@pytest.mark.parametrize("offset", [None, 0, 2])
def test_builders_equal_their_slow_definitions(queries, keys, offset):
    o = keys - queries if offset is None else offset
    masks = {
        "causal": causal_mask(queries, keys, offset=offset),
        "window": sliding_window_mask(queries, keys, window=3, offset=offset),
        "prefix": prefix_lm_mask(min(2, keys), queries, keys, offset=offset),
    }
    for i, j in itertools.product(range(queries), range(keys)):
        assert masks["causal"][i, j] == (j <= i + o)
        assert masks["window"][i, j] == (i + o - 3 < j <= i + o)
        assert masks["prefix"][i, j] == (j <= i + o or j < min(2, keys))


def test_only_one_offset_gives_the_last_rows_of_the_square_mask():
    """With a single query every offset from S - 1 on gives a full row."""
    for keys in range(1, 8):
        for queries in range(1, keys + 1):
            last = causal_mask(keys)[-queries:]
            fits = [o for o in range(10) if causal_mask(queries, keys, offset=o).equal(last)]
            expected = [keys - queries] if queries > 1 else list(range(keys - 1, 10))
            assert fits == expected


def test_offset_is_the_number_of_cached_tokens_in_a_buffer_with_free_slots():
    """Four tokens cached, two new ones, eight slots: slots 6 and 7 are empty and stay unseen."""
    mask = causal_mask(2, 8, offset=4)
    assert mask.equal(rows("11111000", "11111100"))


def test_windows_and_causal_masks_count_their_pairs():
    for length, window in itertools.product(range(1, 9), repeat=2):
        m = min(window, length)
        pairs = m * (m + 1) // 2 + (length - m) * m
        assert sliding_window_mask(length, window=window).sum() == pairs
        assert causal_mask(length).sum() == length * (length + 1) // 2


@pytest.mark.parametrize(
    ("window", "layers", "field"), [(1, 3, 1), (2, 4, 5), (3, 3, 7), (4, 5, 16)]
)
def test_receptive_field_is_a_band_that_grows_by_window_minus_one(window, layers, field):
    assert receptive_field(layers, window) == field
    reach = dependency_matrix(sliding_window_mask(20, window=window), layers)
    assert reach.equal(sliding_window_mask(20, window=field))


def test_dependencies_follow_paths():
    """0 <- 1 <- 2: token 2 reaches 0 in two layers, not in one."""
    chain = rows("000", "100", "010")
    assert dependency_matrix(chain, 0).equal(torch.eye(3, dtype=torch.bool))
    assert dependency_matrix(chain, 1).equal(rows("100", "110", "011"))
    assert dependency_matrix(chain, 2).equal(rows("100", "110", "111"))
    assert dependency_matrix(torch.stack([chain, chain]), 2).shape == (2, 3, 3)
    assert dependency_matrix(chain, 2**40).equal(rows("100", "110", "111"))


@given(seeds, st.integers(1, T - 1))
@law
def test_a_later_token_changes_no_earlier_output_by_a_single_bit(seed, cut):
    x = random(1, T, 4, seed=seed)
    changed = x.clone()
    changed[:, cut:] = random(1, T - cut, 4, seed=seed + 1)
    before, after = (stack(y, causal_mask(T)) for y in (x, changed))
    assert torch.equal(before[:, :cut], after[:, :cut])
    assert (before[:, cut:] != after[:, cut:]).any(-1).all()


def test_the_jacobian_of_a_network_is_zero_exactly_where_nothing_is_reached():
    x = random(1, T, 4)
    masks = [causal_mask(T), sliding_window_mask(T, window=2), prefix_lm_mask(2, T)]
    for mask, layers in itertools.product(masks, (1, 2)):
        jacobian = torch.autograd.functional.jacobian(lambda y, m=mask, n=layers: stack(y, m, n), x)
        touched = (jacobian[0, :, :, 0] != 0).any(1).any(-1)
        assert touched.equal(dependency_matrix(mask, layers))


def test_all_prefixes_at_once_are_the_separate_prefixes():
    x = random(1, T, 4)
    together = stack(x, causal_mask(T))
    for t in range(T):
        alone = stack(x[:, : t + 1], causal_mask(t + 1))
        torch.testing.assert_close(together[:, t], alone[:, t], atol=1e-13, rtol=0)


def test_right_padding_needs_no_mask_under_causality():
    x, valid = random(2, T, 4), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    plain = stack(x, causal_mask(T))
    both = and_masks(causal_mask(T), padding_mask(valid))[:, 0]
    masked = stack(x, both)
    assert torch.equal(plain[valid.bool()], masked[valid.bool()])


def test_left_padding_needs_its_mask_but_no_positions_where_only_differences_count():
    pads, x = 3, random(1, T, 4)
    padded = torch.cat([random(1, pads, 4, seed=9), x], 1)
    valid = (torch.arange(pads + T) >= pads)[None]
    both = and_masks(causal_mask(pads + T), padding_mask(valid), allow_empty_rows=True)[:, 0]

    def rope(positions):
        return rope_cos_sin(positions, rope_inv_freq(4), dtype=torch.float64)

    def run(x, mask, positions):
        cos, sin = rope(positions)
        maps = random(3, 4, 4, seed=7)
        q, k, v = (x @ m for m in maps)
        q, k = (apply_rope(y[:, None], cos, sin)[:, 0] for y in (q, k))
        return scaled_dot_product_attention(q, k, v, mask)

    expected = run(x, causal_mask(T), torch.arange(T))
    shifted = run(padded, both, torch.arange(pads + T))[:, pads:]
    torch.testing.assert_close(shifted, expected, atol=1e-12, rtol=0)
    reset = run(padded, both, position_ids(valid)[0])[:, pads:]
    torch.testing.assert_close(reset, expected, atol=1e-12, rtol=0)
    unmasked = run(padded, causal_mask(pads + T), torch.arange(pads + T))[:, pads:]
    assert (unmasked - expected).abs().max() > 0.1


def test_packed_documents_are_the_separate_documents():
    lengths = (3, 5, 2)
    x = random(1, 10, 4)
    ids = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    packed = stack(x, and_masks(causal_mask(10), document_mask(ids))[:, 0])
    separate = [stack(part, causal_mask(part.shape[1])) for part in x.split(lengths, 1)]
    torch.testing.assert_close(packed, torch.cat(separate, 1), atol=1e-12, rtol=0)
    leaking = stack(x, causal_mask(10))
    assert (leaking - packed)[:, 3:].abs().max() > 0.1


def test_interleaved_documents_are_separate_only_with_positions_of_their_own():
    """Without a restart a document's positions have gaps, so its differences are others."""
    ids = torch.tensor([0, 0, 1, 1, 0, 0])
    own = torch.tensor([0, 1, 0, 1, 2, 3])
    x = random(1, 6, 4)
    mask = and_masks(causal_mask(6), document_mask(ids[None]))[:, 0]

    def run(x, mask, positions):
        rotate = rope_cos_sin(positions, rope_inv_freq(4), dtype=torch.float64)
        return stack(x, mask, rotate=rotate)

    alone = run(x[:, ids == 0], causal_mask(4), torch.arange(4))
    close(run(x, mask, own)[:, ids == 0], alone)
    running = run(x, mask, torch.arange(6))[:, ids == 0]
    close(running[:, :2], alone[:, :2])
    assert (running - alone).abs().max() > 0.01


@pytest.mark.parametrize("window", range(1, 13))
@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_a_window_in_tiles_is_a_window_of_tiles(window, side):
    tiles = sliding_window_mask(12, window=window).view(12 // side, side, 12 // side, side)
    in_tiles = -(-(window - 1) // side) + 1
    assert tiles.any(3).any(1).equal(sliding_window_mask(12 // side, window=in_tiles))


@pytest.mark.parametrize(
    ("dtype", "limit"),
    [
        (torch.float32, 2.0**103),
        (torch.float64, 2.0**970),
        (torch.bfloat16, 2.0**119),
        (torch.float16, 16.0),
    ],
)
def test_the_least_number_absorbs_scores_below_half_its_spacing_and_no_larger_ones(dtype, limit):
    least = additive_mask(torch.tensor([False, False]), dtype, torch.finfo(dtype).min)
    below = limit * (1 - torch.finfo(dtype).eps)
    for scores, weights in (([-below, below], [0.5, 0.5]), ([0.0, 4 * limit], [0.0, 1.0])):
        masked = torch.softmax(torch.tensor(scores, dtype=dtype) + least, -1)
        assert masked.tolist() == weights


def test_a_prefix_mask_is_causal_or_both_in_the_prefix():
    for length, prefix in itertools.product(range(1, 8), range(8)):
        if prefix <= length:
            inside = torch.arange(length) < prefix
            union = causal_mask(length) | (inside[:, None] & inside)
            assert prefix_lm_mask(prefix, length).equal(union)
    assert prefix_lm_mask(0, T).equal(causal_mask(T))
    assert prefix_lm_mask(1, T).equal(causal_mask(T))
    assert prefix_lm_mask(T, T).all()


def test_and_adds_minus_infinity_and_or_takes_the_larger():
    every = [torch.tensor(bits).view(2, 3) for bits in itertools.product((False, True), repeat=6)]
    first = torch.stack([m for m in every for _ in every])[:, None]
    second = torch.stack([m for _ in every for m in every])[:, None]
    both = and_masks(first, second, allow_empty_rows=True)
    either = or_masks(first, second, allow_empty_rows=True)
    assert additive_mask(both).equal(additive_mask(first) + additive_mask(second))
    one, other = additive_mask(first), additive_mask(second)
    assert additive_mask(either).equal(torch.maximum(one, other))


def test_masks_of_different_axes_meet_in_their_common_shape():
    valid = torch.ones(2, S, dtype=torch.bool)
    valid[1, 0] = False
    mask = and_masks(causal_mask(T, S), None, padding_mask(valid))
    assert mask.shape == (2, 1, T, S)
    assert mask[1, 0].equal(causal_mask(T, S) & valid[1])
    heads = or_masks(causal_mask(T, S), torch.ones(1, 3, 1, S, dtype=torch.bool))
    assert heads.shape == (1, 3, T, S)
    assert and_masks(causal_mask(T)).equal(causal_mask(T))


def test_causality_survives_and_but_not_or():
    window = torch.ones(T, T, dtype=torch.bool).triu()
    assert not and_masks(causal_mask(T), window).triu(1).any()
    assert or_masks(causal_mask(T), window).triu(1).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_additive_masks_are_zero_or_the_value_in_every_dtype(dtype):
    mask = causal_mask(2)
    added = additive_mask(mask, dtype)
    assert added.dtype == dtype
    assert added.tolist() == [[0.0, -INF], [0.0, 0.0]]
    least = torch.finfo(dtype).min
    assert additive_mask(mask, dtype, least)[0, 1] == least


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32, torch.bfloat16])
def test_zeros_and_ones_of_any_dtype_are_masks(dtype):
    mask = causal_mask(3)
    assert boolean_mask(mask.to(dtype)).equal(mask)
    assert check_mask(mask.to(dtype), 3, 3).equal(mask)
    valid = torch.tensor([[1, 0]], dtype=dtype)
    assert padding_mask(valid).tolist() == [[[[True, False]]]]


def test_left_padding_under_causality_leaves_a_row_for_each_pad_empty():
    valid = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    with pytest.raises(ValueError, match=r"row \(1, 0, 0\) of the mask .* \(2 such rows\)"):
        and_masks(causal_mask(4), padding_mask(valid))
    mask = and_masks(causal_mask(4), padding_mask(valid), allow_empty_rows=True)
    assert (~mask.any(-1)).sum() == 2


def test_empty_rows_are_refused_by_name_everywhere():
    with pytest.raises(ValueError, match=r"row 0 of the mask \(1, 3\) may attend to nothing"):
        sliding_window_mask(1, 3, window=2, offset=5)
    empty = sliding_window_mask(1, 3, window=2, offset=5, allow_empty_rows=True)
    assert not empty.any()
    with pytest.raises(ValueError, match=r"row \(0, 0, 1\)"):
        document_mask(torch.tensor([[1, 2]]), torch.tensor([[1, 1, 1]]))
    ids = torch.tensor([[1, 2]]), torch.tensor([[1, 1, 1]])
    assert document_mask(*ids, allow_empty_rows=True)[0, 0].equal(rows("111", "000"))
    with pytest.raises(ValueError, match="row 1"):
        check_mask(rows("10", "00"), 2, 2)
    assert check_mask(rows("10", "00"), 2, 2, allow_empty_rows=True).equal(rows("10", "00"))
    with pytest.raises(ValueError, match="row 0"):
        or_masks(rows("00"), rows("00"))
    with pytest.raises(ValueError, match="row 1"):
        and_masks(rows("11", "10"), rows("11", "01"))
    assert require_rows(rows("10")).equal(rows("10"))


BUILDERS = [
    causal_mask,
    lambda *sizes, **more: sliding_window_mask(*sizes, window=2, **more),
    lambda *sizes, **more: prefix_lm_mask(1, *sizes, **more),
]


@pytest.mark.parametrize("build", BUILDERS)
def test_impossible_sizes_are_refused(build):
    with pytest.raises(ValueError, match="query_len must be at least 1, got 0"):
        build(0, 3)
    with pytest.raises(ValueError, match="key_len must be at least 1, got 0"):
        build(2, 0, offset=0)
    with pytest.raises(
        ValueError, match="causal attention needs at least as many keys as queries, got 3 keys"
    ):
        build(5, 3)
    with pytest.raises(ValueError, match="last key's token; or give offset, the position of the"):
        build(5, 3)
    with pytest.raises(ValueError, match="at least 0, got -1"):
        build(2, 3, offset=-1)


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_without_the_token_itself_is_refused(window):
    for call in (lambda: sliding_window_mask(3, window=window), lambda: receptive_field(2, window)):
        with pytest.raises(ValueError, match=f"window must be at least 1, got {window}"):
            call()


def test_prefixes_that_do_not_fit_are_refused():
    for prefix in (-1, 4, torch.tensor([1, 4])):
        with pytest.raises(ValueError, match=r"prefix_len must be in \[0, 3\], got"):
            prefix_lm_mask(prefix, 3)
    with pytest.raises(ValueError, match=r"an integer or \(B,\), got \(1, 2\)"):
        prefix_lm_mask(torch.tensor([[1, 2]]), 3)
    for prefix in (torch.tensor([1.0]), 1.5, True):
        with pytest.raises(TypeError, match="prefix_len must (hold integers|be a number)"):
            prefix_lm_mask(prefix, 3)


@pytest.mark.parametrize("make", [padding_mask, position_ids])
def test_padding_that_is_no_row_of_zeros_and_ones_is_refused(make):
    with pytest.raises(ValueError, match=r"valid must be \(B, T\), got \(3,\)"):
        make(torch.ones(3))
    with pytest.raises(ValueError, match="a mask holds zeros and ones only, got 5"):
        make(torch.tensor([[1, 5]]))
    with pytest.raises(ValueError, match="sequence 1 of 2 has no real token"):
        make(torch.tensor([[1, 1], [0, 0]]))


def test_segment_ids_that_do_not_fit_are_refused():
    with pytest.raises(TypeError, match=r"integers, got torch.float32"):
        document_mask(torch.ones(1, 3))
    with pytest.raises(TypeError, match=r"integers, got torch.bool"):
        document_mask(torch.ones(1, 3).bool())
    ids = torch.ones(2, 3, dtype=torch.long)
    with pytest.raises(
        ValueError,
        match=r"key_segment_ids must be \(B, S\) beside segment_ids \(2, 3\), got \(1, 3\)",
    ):
        document_mask(ids, ids[:1])
    with pytest.raises(ValueError, match=r"segment_ids must be \(B, T\), got \(3,\)"):
        document_mask(ids[0])


def test_masks_that_do_not_fit_are_not_broadcast():
    """Two rows beside five, one key beside seven, (B, T, S) beside (B, H, T, S)."""
    full = torch.ones(T, S, dtype=torch.bool)
    batch = torch.ones(3, T, S, dtype=torch.bool)
    heads = torch.ones(2, 3, T, S, dtype=torch.bool)
    pairs = [
        (full, full[:, :1]),
        (full, full[:1]),
        (full, full[:3]),
        (batch, heads),
        (full[0], full),
        (heads, heads[:, :2]),
    ]
    for first, second in pairs:
        for combine in (and_masks, or_masks):
            with pytest.raises(ValueError, match="with one T and S, got") as caught:
                combine(first, second)
            assert f"{tuple(first.shape)} and {tuple(second.shape)}" in str(caught.value)
    for shape in [(T, S - 1), (T - 1, S), (S,), (T, 1), (0, S), (2, S), (S, S)]:
        with pytest.raises(ValueError, match=r"must end in \(5 or 1, 7\), got"):
            check_mask(torch.ones(shape), T, S)
    for shape in [(T, S), (1, S), (3, T, S), (2, 1, 1, S)]:
        assert check_mask(torch.ones(shape), T, S).shape == shape


def test_combining_nothing_or_everything_is_refused():
    with pytest.raises(ValueError, match="no mask to combine"):
        and_masks(None, None)
    with pytest.raises(ValueError, match="no mask to combine"):
        or_masks()
    with pytest.raises(TypeError, match="takes no None"):
        or_masks(causal_mask(3), None)


def test_an_additive_mask_is_not_taken_for_a_selection():
    for call in (
        lambda added: check_mask(added, 3, 3),
        lambda added: and_masks(added, causal_mask(3)),
        lambda added: dependency_matrix(added, 1),
    ):
        with pytest.raises(ValueError, match="a mask holds zeros and ones only, got -inf"):
            call(additive_mask(causal_mask(3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_floating_point_mask_is_not_made_additive_again(dtype):
    """Its zeros allow; read as False they would forbid every pair."""
    for added in (torch.zeros(2, 3, dtype=dtype), additive_mask(causal_mask(3), dtype)):
        with pytest.raises(TypeError, match=rf"mask must select by booleans.*got {dtype}: a float"):
            additive_mask(added)


def test_integers_are_made_additive_as_booleans_are():
    mask = causal_mask(3)
    assert additive_mask(mask.long()).equal(additive_mask(mask))


def test_values_that_do_not_mask_are_refused():
    mask = causal_mask(2)
    with pytest.raises(ValueError, match=r"value must be in \[-65504\.0, 0\), got -1000000000\.0"):
        additive_mask(mask, torch.float16, -1e9)
    for value in (0.0, 1.0, INF, math.nan):
        with pytest.raises(ValueError, match=rf"value must be in .* 0\), got {value}"):
            additive_mask(mask, value=value)
    with pytest.raises(TypeError, match=r"floating point, got torch.bool"):
        additive_mask(mask, torch.bool)


def test_dependencies_of_what_is_no_square_are_refused():
    with pytest.raises(ValueError, match=r"must be \(..., T, T\), got \(2, 3\)"):
        dependency_matrix(torch.ones(2, 3), 1)
    for call in (lambda: dependency_matrix(causal_mask(2), -1), lambda: receptive_field(-1, 2)):
        with pytest.raises(ValueError, match="at least 0, got -1"):
            call()


def test_masks_are_made_on_the_device_asked_for():
    for mask in (
        causal_mask(3, device="meta"),
        sliding_window_mask(3, window=2, device="meta", allow_empty_rows=True),
    ):
        assert mask.device.type == "meta"
    assert prefix_lm_mask(1, 3, device="cpu").device.type == "cpu"
