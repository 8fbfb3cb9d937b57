"""Code that is right on most inputs: each piece was once called right, and is not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from llmref.practice.exercise import Convention
from llmref.practice.exercises import exercise, exercises
from llmref.practice.judging import judge_here
from tests.practice.solutions.inference_paged import append_used_slots


def refusing(
    draw: Callable[[Tensor, Tensor, int], Tensor], residual: Callable[[Tensor, Tensor], Tensor]
) -> Callable[..., Tensor]:
    """A step that draws its last token from a residual by `draw(rest, u, i)`."""

    def step(p: Tensor, q: Tensor, x: Tensor, u: Tensor) -> Tensor:
        n, rest = len(x), p[-1]
        for i, token in enumerate(x):
            if u[i] * q[i, token] >= p[i, token]:
                n, rest = i, residual(p[i], q[i])
                rest = rest if rest.any() else p[i]
                break
        return torch.cat([x[:n], draw(rest, u, n)[None]])

    return step


def above(p: Tensor, q: Tensor) -> Tensor:
    return (p - q).clamp(min=0)


def by_sum(rest: Tensor, u: Tensor) -> Tensor:
    return (rest.cumsum(0) <= u * rest.cumsum(0)[-1]).sum()


STEPS = {
    "the uniform that refused": refusing(lambda rest, u, i: by_sum(rest, u[i]), above),
    "the residual squared": refusing(
        lambda rest, u, i: by_sum(rest, u[-1]), lambda p, q: above(p, q).square()
    ),
    "no rule for the last entry": refusing(
        lambda rest, u, i: ((rest / rest.sum()).cumsum(0) <= u[-1]).sum(), above
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_the_last_uniform_decides_on_the_last_token(name: str) -> None:
    assert judge_here(exercise("speculative_step"), STEPS[name])["outcome"] == "wrong"


def test_another_uniform_for_the_last_token_is_a_convention() -> None:
    following = refusing(lambda rest, u, i: by_sum(rest, u[min(i + 1, len(u) - 1)]), above)
    answer = judge_here(exercise("speculative_step"), following)
    assert answer["convention"] == "the uniform after the one that refused"


def anywhere(prompt: list[int], texts: list[list[int]], b: int) -> int:
    counts = range((len(prompt) - 1) // b, 0, -1)
    found = {tuple(text[i:j]) for text in texts for j in range(len(text) + 1) for i in range(j)}
    return next((n for n in counts if tuple(prompt[: n * b]) in found), 0)


def rounded_up(prompt: list[int], texts: list[list[int]], b: int) -> int:
    most = 0
    for text in texts:
        same = 0
        for one, other in zip(prompt[:-1], text, strict=False):
            if one != other:
                break
            same += 1
        most = max(most, (same + b - 1) // b)
    return most


@pytest.mark.parametrize(
    ("function", "mistake"),
    [
        (anywhere, "the beginning found anywhere in a text"),
        (rounded_up, "a block that agrees in part"),
    ],
)
def test_a_block_is_reused_whole_and_from_the_start(function: Any, mistake: str) -> None:
    answer = judge_here(exercise("reused_blocks"), function)
    assert answer["outcome"] == "wrong"
    assert answer["mistake"] == f"'{mistake}'"


def clamped(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    p, q = ((it / tau).softmax(-1).clamp(min=1e-8) for it in (teacher, student))
    return tau**2 * (p * (p.log() - q.log())).sum(-1)


def test_a_clamp_before_the_logarithm_caps_the_loss() -> None:
    answer = judge_here(exercise("kd_loss"), clamped)
    assert answer["outcome"] == "wrong"
    assert answer["mistake"] == "'probabilities kept above 1e-8 by a clamp'"


OF_TOKENS = [
    name
    for name, it in exercises().items()
    if ", mask" in it.signature and it.topic.startswith(("rl/", "functional/"))
]


def is_mask(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bool and value.ndim == 2


def has_hole(mask: Tensor) -> bool:
    """Whether a token that does not count stands between two that do."""
    before, after = mask.cumsum(1) > 0, mask.flip(1).cumsum(1).flip(1) > 0
    return bool((before & after & ~mask).any())


def first_ones(value: Any) -> Any:
    """The mask of a text that ends after as many tokens as count."""
    if not is_mask(value):
        return value
    return torch.arange(value.shape[1]) < value.sum(1, keepdim=True)


@pytest.mark.parametrize("name", OF_TOKENS)
def test_the_number_of_counted_tokens_does_not_say_which_count(name: str) -> None:
    it = exercise(name)
    assert any(has_hole(value) for given in it.inputs() for value in given if is_mask(value))

    def by_length(*given: Any) -> Any:
        return it.solution(*map(first_ones, given))

    assert judge_here(it, by_length)["outcome"] == "wrong"


def dead_after_a_hole(logp: Tensor, mu: Tensor, mask: Tensor, level: str) -> Tensor:
    ratio = (logp - mu).exp().detach()
    if level == "prefix":
        return (ratio * mask).cumprod(1)
    if level == "sequence":
        return ratio.where(mask, 1.0).prod(1, keepdim=True) * mask
    return ratio * mask


def test_a_product_does_not_end_at_a_hole() -> None:
    assert judge_here(exercise("importance_weights"), dead_after_a_hole)["outcome"] == "wrong"


def by_squares(x: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    mean, var, training, _, eps = rest
    _, new_mean, new_var = exercise("batch_norm").solution(x, weight, bias, *rest)
    if training:
        mean = x.mean(0)
        var = (x * x).mean(0) - mean**2
    return weight * (x - mean) / (var + eps).sqrt() + bias, new_mean, new_var


def rows_by_squares(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    var = (x * x).mean(-1, keepdim=True) - mean * mean
    return weight * (x - mean) / (var + eps).sqrt() + bias


@pytest.mark.parametrize(
    ("name", "function"), [("batch_norm", by_squares), ("layer_norm", rows_by_squares)]
)
def test_a_variance_that_cancels_in_float32_is_wrong(name: str, function: Any) -> None:
    answer = judge_here(exercise(name), function)
    assert answer["outcome"] == "wrong"
    assert "In float32" in answer["law"]
    assert answer["mistake"] == "'the mean of the squares minus the square of the mean'"


def deviation_by_squares(rewards: Tensor) -> Tensor:
    mean, G = rewards.mean(1, keepdim=True), rewards.shape[1]
    var = (rewards.square().mean(1, keepdim=True) - mean**2) * G / (G - 1)
    mixed = (rewards != rewards[:, :1]).any(1, keepdim=True)
    return torch.where(mixed, (rewards - mean) / var.sqrt(), 0.0)


def test_a_deviation_that_cancels_for_large_rewards_is_wrong() -> None:
    answer = judge_here(exercise("group_advantages"), deviation_by_squares)
    assert answer["outcome"] == "wrong"
    assert answer["law"] == "Rewards times 4 plus a million have the same advantages."


def by_functional(x: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    mean, var, training, momentum, eps = rest
    mean, var = mean.clone(), var.clone()
    y = functional.batch_norm(x, mean, var, weight, bias, training, momentum, eps)
    return y, mean, var


def test_what_torch_itself_has_is_right() -> None:
    answer = judge_here(exercise("batch_norm"), by_functional)
    assert (answer["outcome"], answer["remarks"]) == ("right", [])


def test_a_copy_of_the_slots_in_use_detaches_nothing() -> None:
    answer = judge_here(exercise("append_token"), append_used_slots)
    assert (answer["outcome"], answer["remarks"]) == ("right", [])


def test_a_gradient_that_is_given_has_none_of_its_own() -> None:
    solution = exercise("accumulated_gradient").solution

    def with_a_graph(weight: Tensor, pieces: Any) -> Tensor:
        return solution(weight, pieces) + 0 * weight

    answer = judge_here(exercise("accumulated_gradient"), with_a_graph)
    assert (answer["outcome"], answer["remarks"]) == ("right", [])


def softmax_of_all(x: Tensor, dim: int = -1, **_: Any) -> Tensor:
    weights = torch.exp(x - x.amax())
    return weights / weights.sum(dim, keepdim=True)


def log_softmax_of_all(x: Tensor, dim: int = -1, **_: Any) -> Tensor:
    shifted = x - x.amax()
    return shifted - shifted.exp().sum(dim, keepdim=True).log()


LARGE = [
    "grouped_query",
    "kv_cache_step",
    "mla_decode",
    "multi_head",
    "attention",
    "attention_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "kd_loss",
    "info_nce",
    "softmax",
    "top_p",
    "sft_loss",
]


@pytest.mark.parametrize("name", LARGE)
def test_one_maximum_for_all_rows_is_not_enough(name: str) -> None:
    """A row far below the others has exponentials of 0 alone."""
    solution = exercise(name).solution

    def with_one_maximum(*given: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "softmax", softmax_of_all)
            patch.setattr(Tensor, "softmax", softmax_of_all)
            patch.setattr(Tensor, "log_softmax", log_softmax_of_all)
            return softmax_of_all(*given) if name == "softmax" else solution(*given)

    assert judge_here(exercise(name), with_one_maximum)["outcome"] == "wrong"


def min_p_of_all(logits: Tensor, p: float) -> Tensor:
    probs = softmax_of_all(logits)
    return logits.where(probs >= p * probs.amax(-1, keepdim=True), -torch.inf)


def sink_of_all(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, sink: Tensor) -> Tensor:
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf)
    column = sink[:, None, None].expand(*scores.shape[:-1], 1)
    return softmax_of_all(torch.cat([scores, column], -1))[..., :-1] @ v


def flash_of_all(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
    return softmax_of_all(q @ k.mT / q.shape[-1] ** 0.5) @ v


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("min_p", min_p_of_all),
        ("sink_attention", sink_of_all),
        ("flash_attention", flash_of_all),
        ("online_softmax", softmax_of_all),
    ],
)
def test_one_maximum_for_all_rows_is_not_enough_here_either(name: str, function: Any) -> None:
    assert judge_here(exercise(name), function)["outcome"] == "wrong"


DUAL = "at most 3 for the ratio where the advantage is negative"


@pytest.mark.parametrize(
    ("name", "convention"),
    [
        ("ppo_loss", DUAL),
        ("grpo_loss", DUAL),
        ("decoupled_ppo_loss", DUAL),
        ("decoupled_ppo_loss", "weights of at most 2"),
    ],
)
def test_what_others_cut_off_shows_and_is_their_convention(name: str, convention: str) -> None:
    it = exercise(name)
    (known,) = (edit for edit in it.conventions if edit.name == convention)
    assert isinstance(known, Convention)
    answer = judge_here(it, it.variant(known))
    assert (answer["outcome"], answer["convention"]) == ("convention", convention)
