"""Exercise on beam search, judged by models that know the last token alone."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.compared import text as written
from llmref.practice.exercise import Convention, Exercise, Function, Mistake
from llmref.practice.exercises._inputs import normal, table
from llmref.practice.exercises._laws import LawOfForms


class Bigrams:
    """A model that reads the last token alone; it shows itself as what one would type."""

    def __init__(self, logp: Tensor) -> None:
        self.logp = logp

    def __call__(self, tokens: Tensor) -> Tensor:
        return self.logp[tokens[:, -1]]

    def __deepcopy__(self, memo: object) -> "Bigrams":
        return self  # nothing can change it: a call gives rows of its own

    def __repr__(self) -> str:
        return f"lambda tokens: {written(self.logp)}[tokens[:, -1]]"


def _of(*rows: list[float]) -> Bigrams:
    return Bigrams(table(*rows).log())


def _random(size: int, seed: int) -> Bigrams:
    return Bigrams((1.5 * normal(size, size, seed=seed)).log_softmax(-1))


def _prompt(*tokens: int) -> Tensor:
    return torch.tensor(tokens)


# Seed, tokens, T, B, EOS, alpha: such that no two candidates of a step are tied.
_RANDOM = (
    (52, 4, 3, 2, 2, 2.0),
    (50, 4, 4, 2, 1, 2.0),
    (45, 4, 3, 1, 2, 2.0),
    (116, 5, 3, 3, 0, 2.0),
    (87, 5, 3, 3, 0, 0.6),
    (106, 5, 3, 2, 2, 0.0),
)


def _inputs() -> list[tuple[Any, ...]]:
    two = [0.4, 0.6], [0.9, 0.1]
    three = [0.2, 0.45, 0.35], [0.4, 0.35, 0.25], [0.9, 0.04, 0.06]
    return [
        (_of(*two), _prompt(1), 1, 1, 0, 0.0),
        (_of(*two), _prompt(0), 2, 2, 0, 1.0),
        (_of([0.51, 0.49], [0.01, 0.99]), _prompt(0), 1, 4, 0, 1.0),
        (_of(*three), _prompt(0), 1, 2, 0, 0.0),
        (_of(*three), _prompt(0), 2, 3, 0, 0.0),
        (_of(*three), _prompt(0), 3, 3, 0, 0.0),
        (_of(*three), _prompt(0), 9, 3, 0, 2.0),
        (_random(3, 34), _prompt(0), 2, 3, 0, 2.0),
        (_random(4, 42), _prompt(2, 3), 2, 3, 0, 0.6),
        (_random(4, 54), _prompt(2, 3), 2, 5, 0, 1.5),
        *(
            (_random(size, seed), torch.arange(2, 4 + n // 3), width, cap, eos, alpha)
            for n, (seed, size, cap, width, eos, alpha) in enumerate(_RANDOM)
        ),
    ]


def _all_texts(model: Bigrams, prompt: Tensor, T: int, eos: int) -> tuple[Tensor, Tensor]:
    """The log-probability and the length of every text."""
    live, logp, found = prompt[None], model.logp.new_zeros(1), []
    for t in range(1, T + 1):
        total = (logp[:, None] + model(live)).flatten()
        token = torch.arange(len(model.logp)).repeat(len(live))
        text = torch.cat([live.repeat_interleave(len(model.logp), 0), token[:, None]], 1)
        ended = (token == eos) | (t == T)
        found.append((total[ended], torch.full_like(total[ended], t)))
        live, logp = text[~ended], total[~ended]
    return torch.cat([it[0] for it in found]), torch.cat([it[1] for it in found])


def _best(model: Bigrams, prompt: Tensor, T: int, eos: int, alpha: float) -> Tensor:
    logp, length = _all_texts(model, prompt, T, eos)
    return (logp / length**alpha).max()


def _differs(one: Any, other: Any) -> bool:
    return abs(float(one) - float(other)) > 1e-6


def _score_is_of_another_text(
    function: Function, model: Bigrams, prompt: Tensor, B: int, T: int, eos: int, alpha: float
) -> bool:
    score, text = function(model, prompt, B, T, eos, alpha)
    text = text.long()
    total = sum(model(text[None, :n])[0, text[n]] for n in range(len(prompt), len(text)))
    return _differs(score, total / (len(text) - len(prompt)) ** alpha)


def _not_greedy(
    function: Function, model: Bigrams, prompt: Tensor, B: int, T: int, eos: int, alpha: float
) -> bool:
    text, logp = prompt, torch.zeros(())
    for _ in range(T):
        row = model(text[None])[0]
        text, logp = torch.cat([text, row.argmax()[None]]), logp + row.max()
        if text[-1] == eos:
            break
    return _differs(function(model, prompt, 1, T, eos, 0.0)[0], logp)


def _misses_the_mode(
    function: Function, model: Bigrams, prompt: Tensor, B: int, T: int, eos: int, alpha: float
) -> bool:
    best = _best(model, prompt, T, eos, 0.0)
    enough = int((-best).exp() + 1e-9)
    return _differs(function(model, prompt, enough, T, eos, 0.0)[0], best)


def _stops_too_early(
    function: Function, model: Bigrams, prompt: Tensor, B: int, T: int, eos: int, alpha: float
) -> bool:
    """With a beam so wide that nothing is pruned, only stopping can miss the best score."""
    wide = len(model.logp) ** T
    score = function(model, prompt, wide, T, eos, alpha)[0]
    return bool(score < _best(model, prompt, T, eos, alpha) - 1e-6)


_TOP = "top, index = total.flatten().topk(min(2 * B, total.numel()))"

BEAM_SEARCH = Exercise(
    name="beam_search",
    topic="inference/beam_search",
    level=3,
    task=(
        "model gives the log-probabilities (b, V) of the next token of tokens (b, t), which begin "
        "with the prompt (P,). Of all extensions of the live beams, keep per step the B most "
        "probable that do not end; no two are tied. A text ends with eos or after T new tokens, "
        "and counts if it is among the first B of all candidates of its step; its score is log p "
        "/ n ** alpha, n new tokens with eos, alpha >= 0. Return the best score, a number or a "
        "tensor, and the prompt with that text, (P + n,). You may stop once no live beam can win."
    ),
    inputs=_inputs,
    definition="beam-step",
    laws=(
        LawOfForms(
            "The score is the log-probability of the text that is returned, over its number of "
            "new tokens to the power alpha.",
            "beam-step",
            _score_is_of_another_text,
        ),
        LawOfForms("With B = 1 and alpha = 0 it is greedy decoding.", "beam-greedy", _not_greedy),
        LawOfForms(
            "With alpha = 0, a beam of one over the largest probability of a text finds it.",
            "beam-width-suffices",
            _misses_the_mode,
        ),
        LawOfForms(
            "Where nothing is pruned, stopping early does not lose the best score.",
            "beam-early-stopping",
            _stops_too_early,
        ),
    ),
    mistakes=(
        Mistake(
            "the best of each beam",
            "Candidates of all beams compete: all of the next beams may come from one parent.",
            (
                (
                    _TOP,
                    "top, index = total.topk(min(2 * B, total.shape[1])); index = (index "
                    "+ total.shape[1] * torch.arange(len(total))[:, None]).flatten(); "
                    "top = top.flatten()",
                ),
            ),
        ),
        Mistake(
            "equal beams at the start",
            "B copies of the prompt have the same children: start with one beam, or give the "
            "others the score minus infinity.",
            (("prompt[None], torch.zeros(1), []", "prompt.expand(B, -1), torch.zeros(B), []"),),
        ),
        Mistake(
            "the last token's log-probability alone",
            "A beam is as probable as all of its tokens together.",
            (("logp[:, None] + model(live)", "model(live)"),),
        ),
        Mistake(
            "parents not followed",
            "A candidate extends the beam that it came from, and so does its row of the cache.",
            (("live[parent]", "live[torch.arange(len(parent)) % len(live)]"),),
        ),
        Mistake(
            "an ended text stays live",
            "What ended cannot be extended, and must not take the place of what can.",
            (("text[~ended][:B], top[~ended][:B]", "text[:B], top[:B]"),),
        ),
        Mistake(
            "stopped at the first text that ends",
            "A live beam may still end with a better score.",
            (("(done and max(d[0] for d in done) >= logp[0] / T**alpha)", "done"),),
        ),
        Mistake(
            "stopped by the current length",
            "For alpha > 0 a live beam can at best keep its log p and grow to T tokens: divide by "
            "the largest length.",
            (("logp[0] / T**alpha", "logp[0] / t**alpha"),),
        ),
        Mistake(
            "stopped by the next length",
            "A live beam may grow to T tokens, not only to one token more, and keep its log p.",
            (("logp[0] / T**alpha", "logp[0] / (t + 1) ** alpha"),),
        ),
        Mistake(
            "EOS counted among the first 2 B",
            "The task counts a text only if it is among the first B of all candidates.",
            (("ended[:B].nonzero()", "ended.nonzero()"),),
        ),
        Mistake(
            "ended texts take places in the beam",
            "The B best that do not end go on, however many ended in this step.",
            (
                (
                    "text[~ended][:B], top[~ended][:B]",
                    "text[~ended][: max(1, B - int(ended[:B].sum()))], "
                    "top[~ended][: max(1, B - int(ended[:B].sum()))]",
                ),
            ),
        ),
        Mistake(
            "the prompt in the length",
            "The log-probability is that of the new tokens, and so is the length.",
            (("top[i] / t**alpha", "top[i] / text.shape[1]**alpha"),),
        ),
        Mistake(
            "normalised step by step",
            "Live beams keep their sums: dividing at each step divides the first tokens many "
            "times.",
            (("top[~ended][:B]", "top[~ended][:B] / t**alpha"),),
        ),
        Mistake(
            "sums alone",
            "Sums of different lengths are compared, so the score divides by the length to alpha.",
            (("top[i] / t**alpha", "top[i]"),),
        ),
        Mistake(
            "multiplied by the length",
            "Log-probabilities are negative: multiplied, long texts lose.",
            (("top[i] / t**alpha", "top[i] * t**alpha"),),
        ),
    ),
    conventions=(
        Convention(
            "EOS counts at any rank",
            "Then every prefix also offers its end as a text. Transformers counts it only among "
            "the first B candidates; to match, look at these alone.",
            ((_TOP, "top, index = total.flatten().sort(descending=True)"), ("ended[:B]", "ended")),
        ),
        Convention(
            "stopped once B texts have ended",
            "That is early_stopping=True of transformers: a live beam could still win. To match, "
            "stop once none can.",
            (("(done and max(d[0] for d in done) >= logp[0] / T**alpha)", "len(done) >= B"),),
        ),
        Convention(
            "GNMT's length penalty",
            "Google's system divides by ((5 + n) / 6) ** alpha. To match, divide by n ** alpha.",
            (
                ("top[i] / t**alpha", "top[i] / ((5 + t) / 6) ** alpha"),
                ("logp[0] / T**alpha", "logp[0] / ((5 + T) / 6) ** alpha"),
            ),
        ),
        Convention(
            "without the prompt",
            "Only the new tokens are returned. To match, return the prompt before them.",
            (
                (
                    "return max(done, key=lambda d: d[0])",
                    "score, best = max(done, key=lambda d: d[0]); return score, best[len(prompt):]",
                ),
            ),
        ),
    ),
    hints=(
        "Candidates are all pairs of a beam and a token: flatten them, and recover the pair by "
        "division.",
        "At most B candidates can end with eos, one for each beam, so 2 B are enough to look at.",
        "Log-probabilities only fall: what is the best score that a live beam can still reach?",
    ),
    branches={
        "greedy": lambda model, prompt, B, T, eos, alpha: B == 1,
        "nothing is pruned": lambda model, prompt, B, T, eos, alpha: (
            (len(model.logp) - 1) ** (T - 1) <= B
        ),
        "a length penalty": lambda model, prompt, B, T, eos, alpha: alpha > 0,
        "a prompt of several tokens": lambda model, prompt, B, T, eos, alpha: len(prompt) > 1,
    },
)

EXERCISES = (BEAM_SEARCH,)
