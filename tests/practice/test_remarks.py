"""What the judge says of code that is wrong: the law, the mistake and the reason by their names."""

from typing import Any

import pytest
import torch
from torch import Tensor

from llmref.practice.exercises import exercise
from llmref.practice.judging import judge_here
from tests.practice.test_near_misses import STEPS, above, by_sum


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
