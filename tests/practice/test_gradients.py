"""Gradients that the judge judges: a value that is right may train wrongly."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from llmref.practice import compared
from llmref.practice.exercise import Mistake
from llmref.practice.exercises import exercise, exercises
from llmref.practice.judging import judge_here


def judged(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    return judge_here(exercise(name), function)


def remarks(name: str, function: Callable[..., Any]) -> str:
    answer = judged(name, function)
    assert answer["outcome"] == "right", answer
    return " ".join(answer["remarks"])


def attached(name: str) -> Callable[..., Any]:
    """The solution without its `detach`."""
    return exercise(name).variant(Mistake("attached", "", ((".detach()", ""),)))


HIDDEN = [(it.name, mistake) for it in exercises().values() for mistake in it.hidden_mistakes]
IN_FLOAT32 = "the mean of the squares minus the square of the mean"


@pytest.mark.parametrize(
    ("name", "mistake"), HIDDEN, ids=[f"{name}-{it.name}" for name, it in HIDDEN]
)
def test_a_mistake_that_no_input_gives_away_breaks_a_law_and_is_named(
    name: str, mistake: Mistake
) -> None:
    """Its value is right on every input; its gradient may not be, nor its value in float32."""
    answer = judged(name, exercise(name).variant(mistake))
    assert answer["outcome"] == "wrong"
    place = "other arguments" if mistake.name == IN_FLOAT32 else "its gradient"
    assert answer["problem"].endswith(f"it breaks a law: look at {place}")
    assert answer["law"] in [law.words for law in exercise(name).laws]
    assert answer["mistake"] == f"'{mistake.name}'"
    assert answer["why"] == mistake.why


@pytest.mark.parametrize("name", ["importance_weights", "cispo_loss", "on_policy_loss", "kto_loss"])
def test_what_is_held_fixed_by_its_task_may_not_be_attached(name: str) -> None:
    assert judged(name, attached(name))["outcome"] == "wrong"


def weights_attached(logp: Tensor, rollout_logp: Tensor, mask: Tensor, level: str) -> Any:
    """Only the token's own log-probability carries a gradient."""
    weights = exercise("importance_weights").solution(logp, rollout_logp, mask, level)
    return weights * (logp - logp.detach()).where(mask, 0.0).exp()


def test_a_weight_that_carries_another_gradient_is_wrong_too() -> None:
    answer = judged("importance_weights", weights_attached)
    assert answer["outcome"] == "wrong"
    assert answer["law"] == "No gradient flows through a weight."


def test_a_law_that_breaks_with_other_arguments_says_so() -> None:
    """The student's logits of the inputs are finite wherever the teacher's are."""
    solution = exercise("kd_loss").solution

    def never_infinite(student: Tensor, teacher: Tensor, tau: float) -> Any:
        return solution(student, teacher, tau).nan_to_num()

    answer = judged("kd_loss", never_infinite)
    assert answer["problem"].endswith("it breaks a law: look at other arguments")
    assert answer["law"] == "A token that the student alone excludes makes it infinite."


def batch_norm_held(x: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    mean, var, training, _, eps = rest
    _, new_mean, new_var = exercise("batch_norm").solution(x, weight, bias, *rest)
    if training:
        mean, var = x.detach().mean(0), x.detach().var(0, unbiased=False)
    return weight * (x - mean) / (var + eps).sqrt() + bias, new_mean, new_var


def test_statistics_of_a_batch_are_not_held_fixed() -> None:
    answer = judged("batch_norm", batch_norm_held)
    assert answer["outcome"] == "wrong"
    assert answer["result"] == "norm-batch-backward"
    assert answer["mistake"] == "'mean and variance held fixed'"


def test_what_training_holds_fixed_may_be_attached_or_detached() -> None:
    name = "decoupled_ppo_loss"
    assert remarks(name, exercise(name).solution) == ""
    assert remarks(name, attached(name)) == ""


def test_a_reference_that_is_detached_is_no_fault() -> None:
    solution = exercise("dpo_loss").solution

    def held(pc: Tensor, pr: Tensor, rc: Tensor, rr: Tensor, beta: float) -> Any:
        return solution(pc, pr, rc.detach(), rr.detach(), beta)

    assert remarks("dpo_loss", held) == ""


def odds_by_where(chosen: Tensor, rejected: Tensor, n_w: Tensor, n_l: Tensor) -> Tensor:
    """log(1 - P) by two formulas, each where it is exact; a `where` differentiates both."""

    def odds(mean: Tensor) -> Tensor:
        near, far = torch.log(-torch.expm1(mean)), torch.log1p(-torch.exp(mean))
        return mean - torch.where(mean > -0.6931, near, far)

    return -functional.logsigmoid(odds(chosen / n_w) - odds(rejected / n_l)).mean()


def test_the_gradient_of_a_branch_that_is_not_taken_is_wrong_and_named() -> None:
    answer = judged("odds_ratio_loss", odds_by_where)
    assert answer["outcome"] == "wrong"
    assert answer["mistake"] == "'two branches, both differentiated'"


def silu_by_where(x: Tensor) -> Tensor:
    """Two formulas, of which the second is not a number for large x."""
    return torch.where(x > -20, x / (1 + torch.exp(-x)), x * x.exp() / (1 + x.exp()))


def test_a_gradient_that_is_not_a_number_is_remarked_on_where_no_law_speaks_of_it() -> None:
    assert "is not a number for input" in remarks("silu", silu_by_where)


def test_a_gradient_that_is_asked_for_needs_none_of_its_own() -> None:
    solution = exercise("batch_norm_backward").solution

    def held(*given: Any) -> Any:
        return tuple(it.detach() for it in solution(*given))

    assert remarks("batch_norm_backward", held) == ""


def kl_div_the_wrong_way(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    log_p, log_q = (teacher / tau).log_softmax(-1), (student / tau).log_softmax(-1)
    return tau**2 * functional.kl_div(log_p, log_q.exp(), reduction="none").sum(-1)


def test_a_mistake_is_named_also_where_another_hides_it() -> None:
    answer = judged("kd_loss", kl_div_the_wrong_way)
    assert answer["outcome"] == "wrong"
    assert answer["mistake"].endswith(", and not a number in places")
    assert answer["why"] == exercise("kd_loss").mistakes[0].why


def step_without_fallback(p: Tensor, q: Tensor, x: Tensor, u: Tensor) -> Tensor:
    for i, token in enumerate(x):
        if u[i] * q[i, token] >= p[i, token]:
            rest = (p[i] - q[i]).clamp(min=0)
            break
    else:
        i, rest = len(x), p[-1]
    cdf = rest.cumsum(0)
    return torch.cat([x[:i], (cdf <= u[-1] * cdf[-1]).sum()[None]])


def test_a_residual_that_rounds_to_0_is_among_the_inputs() -> None:
    assert judged("speculative_step", step_without_fallback)["outcome"] == "wrong"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.empty(0, 2), "torch.empty((0, 2))"),
        (torch.empty(0, dtype=torch.long), "torch.empty((0,), dtype=torch.int64)"),
    ],
)
def test_an_empty_tensor_is_written_with_its_shape(value: Tensor, text: str) -> None:
    assert compared.text(value) == text
    typed: Tensor = eval(text)
    assert typed.shape == value.shape
    assert typed.dtype == value.dtype


def pairs(found: Sequence[float], wanted: Sequence[float]) -> tuple[Tensor, Tensor]:
    return torch.tensor(found), torch.tensor(wanted)


def test_what_is_lost_is_told_from_what_is_wrong() -> None:
    nan = float("nan")
    assert compared.lost(*pairs([1.0, nan], [1.0, 2.0]))
    assert not compared.lost(*pairs([1.0, nan], [1.0, nan]))
    assert not compared.lost(*pairs([1.0, 3.0], [1.0, 2.0]))
    assert not compared.lost(*pairs([1.0], [1.0, nan]))
