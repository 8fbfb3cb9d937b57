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


def kept_at_equality(p: Tensor, q: Tensor, x: Tensor, u: Tensor) -> Tensor:
    kept = u[:-1] <= (p[:-1] / q).gather(-1, x[:, None])[:, 0]
    return continued(p, q, x, u, int(kept.long().cumprod(0).sum()))


def goes_on(p: Tensor, q: Tensor, x: Tensor, u: Tensor) -> Tensor:
    """Every draft that is kept, whatever was refused before it."""
    kept = (u[:-1] * q.gather(-1, x[:, None])[:, 0] < p[:-1].gather(-1, x[:, None])[:, 0]).long()
    return continued(p, q, x, u, int(kept.sum()))


def without_fallback(p: Tensor, q: Tensor, x: Tensor, u: Tensor) -> Tensor:
    kept = (u[:-1] * q.gather(-1, x[:, None])[:, 0] < p[:-1].gather(-1, x[:, None])[:, 0]).long()
    n = int(kept.cumprod(0).sum())
    rest = p[n] if n == len(x) else above(p[n], q[n])
    return torch.cat([x[:n], by_sum(rest, u[-1])[None]])


def continued(p: Tensor, q: Tensor, x: Tensor, u: Tensor, n: int) -> Tensor:
    rest = p[n] if n == len(x) else above(p[n], q[n])
    return torch.cat([x[:n], by_sum(rest if rest.any() else p[n], u[-1])[None]])


IMPOSSIBLE = "A token with p = 0 never comes, kept or drawn, nor one behind the last."


@pytest.mark.parametrize(
    ("function", "laws"),
    [
        (kept_at_equality, [IMPOSSIBLE]),
        (without_fallback, [IMPOSSIBLE]),
        (goes_on, ["A refusal ends the step.", IMPOSSIBLE]),
    ],
)
def test_the_commonest_faults_of_a_step_break_a_law(function: Any, laws: list[str]) -> None:
    assert judge_here(exercise("speculative_step"), function)["law"] in laws


def test_what_breaks_no_law_differs_from_the_definition() -> None:
    answer = judge_here(exercise("speculative_step"), STEPS["the uniform that refused"])
    assert (answer["law"], answer["result"]) == ("the definition", "speculative-step")


def test_a_number_beside_a_round_one_is_written_whole() -> None:
    answer = judge_here(exercise("speculative_step"), STEPS["no rule for the last entry"])
    assert answer["call"].endswith("torch.tensor([0.9999999999999999]))")
    assert answer["problem"] == "it is torch.tensor([10]), not torch.tensor([9])"


def next_length(
    model: Any, prompt: Tensor, B: int, T: int, eos: int, alpha: float
) -> tuple[float, list[int]]:
    """Stopped as soon as one token more could not win."""
    beams, best = [(0.0, prompt.tolist())], (-torch.inf, prompt.tolist())
    for n in range(1, T + 1):
        grown = [
            (logp + float(row), [*text, token])
            for logp, text in beams
            for token, row in enumerate(model(torch.tensor([text]))[0])
        ]
        grown.sort(key=lambda it: -it[0])
        ended = [it for it in grown[:B] if it[1][-1] == eos or n == T]
        best = max([best, *((logp / n**alpha, text) for logp, text in ended)])
        beams = [it for it in grown if it[1][-1] != eos][:B]
        if best[0] >= beams[0][0] / (n + 1) ** alpha:
            break
    return best


def test_a_search_that_looks_one_token_ahead_has_a_name() -> None:
    answer = judge_here(exercise("beam_search"), next_length)
    assert answer["mistake"] == "'stopped by the next length'"


def one_pass_for_each_draft(alpha: float, c: float, max_length: int) -> int:
    speeds = [
        sum(alpha**i for i in range(k + 1)) / (k * (c + 1) + 1) for k in range(max_length + 1)
    ]
    return speeds.index(max(speeds))


def test_no_draft_is_named_by_what_it_does() -> None:
    answer = judge_here(exercise("best_draft_length"), one_pass_for_each_draft)
    assert answer["mistake"] == "'no draft at all'"


def log_of_a_sum(chosen: Tensor, rejected: Tensor, margin: Tensor) -> Tensor:
    return (1 + (rejected - chosen + margin).exp()).log().mean()


def test_an_exponential_that_overflows_is_told_so() -> None:
    answer = judge_here(exercise("bradley_terry_loss"), log_of_a_sum)
    assert "exp(900) is infinite" in answer["why"]


def test_a_hinge_at_the_margin_is_a_convention() -> None:
    def hinge(chosen: Tensor, rejected: Tensor, margin: Tensor) -> Tensor:
        return torch.relu(margin - (chosen - rejected)).mean()

    answer = judge_here(exercise("bradley_terry_loss"), hinge)
    assert answer["convention"] == "hinge at the margin"


def test_a_mean_for_each_text_has_a_name() -> None:
    def of_texts(logp: Tensor, *rest: Any) -> Tensor:
        proximal, rollout, advantages, mask, clip = rest
        w, rho = (proximal - rollout).exp(), (logp - proximal).exp()
        gain = torch.minimum(rho * advantages, rho.clip(1 - clip, 1 + clip) * advantages)
        return -((w * gain * mask).sum(1) / mask.sum(1)).mean()

    answer = judge_here(exercise("decoupled_ppo_loss"), of_texts)
    assert answer["mistake"] == "'a mean for each text first'"
