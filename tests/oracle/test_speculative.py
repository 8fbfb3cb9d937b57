"""Speculative decoding against transformers: every path of one step, with given uniforms."""

from itertools import product
from unittest.mock import patch

import torch
from transformers.generation import utils

from llmref.inference.speculative import residual_probs, speculative_step

TOPIC = "inference/speculative"


def given(K, V, seed):
    generator = torch.Generator().manual_seed(seed)
    near = 2 * torch.randn(K + 1, V, generator=generator, dtype=torch.float64)
    z = [near[:n] + torch.randn(n, V, generator=generator, dtype=torch.float64) for n in (K + 1, K)]
    x = torch.multinomial(z[1].softmax(-1), 1, generator=generator)[:, 0]
    return *z, x, torch.rand(K + 1, generator=generator, dtype=torch.float64)


class Replaced:
    """The module torch with draws of our own."""

    def __init__(self, multinomial, rand_like):
        self.multinomial, self.rand_like = multinomial, rand_like

    def __getattr__(self, name):
        return getattr(torch, name)


def theirs(target, draft, x, u, **options):
    """How many drafts it keeps, and what it draws the last token from."""
    drawn_from = []

    def multinomial(probs, num_samples):
        drawn_from.append(probs[0])
        return torch.zeros(1, num_samples, dtype=torch.long)

    replaced = Replaced(multinomial, lambda ratio: u[: ratio.shape[-1]].expand_as(ratio))
    with patch.object(utils, "torch", replaced):
        _, kept = utils._speculative_sampling(x[None], draft[None], len(x), target[None], **options)
    return int(kept), drawn_from[0]


def first_token(p, q, step, thresholds):
    """Distribution of the first token, if drafts are kept exactly below these uniforms."""
    out = torch.zeros_like(p)
    for x, end in enumerate(thresholds.tolist()):
        token, beside = torch.tensor([x]), 1e-9
        assert step(token, torch.tensor([end - beside], dtype=torch.float64))[0] == 1
        kept, rest = step(token, torch.tensor([end + beside], dtype=torch.float64))
        assert kept == (end == 1)  # uniforms end there
        out[x] += q[x] * end
        out += q[x] * (1 - end) * rest
    return out


def test_kept_drafts_and_what_the_last_token_is_drawn_from(agreement):
    ours, other = [], []
    for K, seed in product((1, 2, 4), range(60)):
        target, draft, x, u = given(K, 5, seed)
        p, q = target.softmax(-1), draft.softmax(-1)
        n = len(speculative_step(p, q, x, u)) - 1
        ours += [torch.tensor([float(n)]), residual_probs(p[n], q[n]) if n < K else p[n]]
        kept, rest = theirs(target, draft, x, u)
        other += [torch.tensor([float(kept)]), rest]
    agreement(
        "speculative_step, drafts kept and last distribution",
        "transformers",
        torch.cat(ours),
        torch.cat(other),
        atol=1e-12,
        convention="`_speculative_sampling` with given uniforms, 180 steps of 1 to 4 drafts",
    )


def test_the_relaxed_test_blends_target_and_draft(agreement):
    target, draft, _, _ = given(1, 4, 3)
    p, q = target[0].softmax(-1), draft[0].softmax(-1)
    found = [
        first_token(
            p,
            q,
            lambda x, u, w=w: theirs(target, draft, x, u, assistant_ensemble_weight=w),
            (1 - w + w * p / q).clamp(max=1),
        )
        for w in (0.25, 0.75)
    ]
    agreement(
        "w p + (1 - w) q",
        "transformers",
        torch.stack([w * p + (1 - w) * q for w in (0.25, 0.75)]),
        torch.stack(found),
        atol=1e-12,
        convention="`assistant_ensemble_weight`, w = 1/4 and 3/4, first token of one step",
    )


def test_at_a_uniform_of_zero_a_token_of_probability_zero_is_kept_there():
    target = torch.tensor([[-torch.inf, 0.0], [0.0, 0.0]]).double()
    draft, x, u = torch.zeros(1, 2).double(), torch.tensor([0]), torch.zeros(2).double()
    assert theirs(target, draft, x, u)[0] == 1
    assert len(speculative_step(target.softmax(-1), draft.softmax(-1), x, u)) == 1


def test_a_residual_of_zero_is_no_number_there():
    """A refusal where the target is below the draft by one unit in the last place, in float32."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(20000, 5, generator=generator)
    other = z + 1e-7 * torch.randn(z.shape, generator=generator)
    p, q = other.softmax(-1), z.softmax(-1)
    unequal = ((p - q).clamp(min=0).sum(-1) == 0) & ((p / q).amin(-1) <= 1 - 2**-23)
    row = int(unequal.nonzero()[0])
    x = (p / q)[row].argmin()[None]
    uniforms = torch.tensor([1 - 2**-24, 0.5])
    kept, rest = theirs(other[[row, row]], z[row][None], x, uniforms)
    assert kept == 0
    assert rest.isnan().all()
