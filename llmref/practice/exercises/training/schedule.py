"""Exercises on learning-rate schedules."""

from typing import Any

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake


def _cosine() -> list[tuple[Any, ...]]:
    return [
        (0, 1.0, 0.0, 0, 1),
        (1, 1.0, 0.0, 2, 4),
        (2, 1.0, 0.0, 2, 6),
        (4, 1.0, 0.0, 2, 6),
        (5, 2.0, 1.0, 2, 6),
        (7, 1.0, 0.0, 2, 6),
        (0, 3.0, 0.5, 4, 10),
        (1, 1.0, 0.5, 0, 3),
        (3, 1.0, 0.25, 5, 9),
        (9, 1.0, 0.25, 5, 9),
        (18, 3e-4, 3e-5, 4, 20),
        (47, 3e-4, 3e-5, 7, 40),
    ]


def _stable() -> list[tuple[Any, ...]]:
    return [
        (0, 1.0, 0, 0, 1),
        (1, 1.0, 2, 1, 2),
        (2, 1.0, 2, 1, 2),
        (4, 1.0, 2, 1, 2),
        (3, 1.0, 1, 3, 4),
        (6, 2.0, 1, 2, 4),
        (6, 1.0, 2, 1, 2),
        (0, 3.0, 4, 2, 5),
        (1, 1.0, 0, 0, 3),
        (33, 3e-4, 5, 20, 10),
        (90, 3e-4, 7, 30, 20),
    ]


def _differ(one: float, other: float) -> bool:
    return bool(abs(one - other) > 1e-9 * max(abs(one), abs(other)))


def _cosine_from_zero(
    function: Function, step: int, high: float, low: float, rise: int, end: int
) -> bool:
    return rise > 0 and abs(function(0, high, low, rise, end)) > 1e-12


def _from_zero(function: Function, step: int, high: float, rise: int, *rest: int) -> bool:
    return rise > 0 and abs(function(0, high, rise, *rest)) > 1e-12


def _from_top(function: Function, step: int, high: float, low: float, rise: int, end: int) -> bool:
    return _differ(function(rise, high, low, rise, end), high)


def _ends(function: Function, step: int, high: float, low: float, rise: int, end: int) -> bool:
    return any(
        _differ(1 + function(late, high, low, rise, end), 1 + low)
        for late in (end, end + 1, 2 * end)
    )


def _mirrored(function: Function, step: int, high: float, low: float, rise: int, end: int) -> bool:
    return any(
        _differ(
            function(rise + k, high, low, rise, end) + function(end - k, high, low, rise, end),
            high + low,
        )
        for k in range(end - rise + 1)
    )


def _flat(function: Function, step: int, high: float, rise: int, flat: int, fall: int) -> bool:
    return any(_differ(function(rise + k, high, rise, flat, fall), high) for k in range(flat + 1))


def _over(function: Function, step: int, high: float, rise: int, flat: int, fall: int) -> bool:
    end = rise + flat + fall
    return any(abs(function(end + k, high, rise, flat, fall)) > 1e-12 for k in (0, 1, fall))


def _prefix(function: Function, step: int, high: float, rise: int, flat: int, fall: int) -> bool:
    return any(
        _differ(function(k, high, rise, flat, fall), function(k, high, rise, flat + 3, fall))
        for k in range(rise + flat + 1)
    )


def _halfway(function: Function, step: int, high: float, rise: int, flat: int, fall: int) -> bool:
    middle = function(rise + flat + fall, high, rise, flat, 2 * fall)
    return _differ(middle, high / 2)


_X = "(step - warmup_steps) / (total_steps - warmup_steps)"
_RISE = "return max_lr * step / warmup_steps"
_FALL = "max(0, step - warmup_steps - stable_steps) / decay_steps"

_NO_RISE = Mistake(
    "no warm-up",
    "Before warmup_steps the rate grows in proportion to the step, from 0.",
    ((_RISE, "return max_lr"),),
)
_FIRST_STEP = Convention(
    "the first update already moves",
    "Some trainers count from 1 and divide step + 1 by warmup_steps, so that no update has the "
    "rate 0. To match, take the step itself: 0 for the first update.",
    ((_RISE, "return max_lr * (step + 1) / warmup_steps"),),
)
_ZERO = "With a warm-up the first update has the rate 0."

WARMUP_COSINE = Exercise(
    name="warmup_cosine",
    topic="training/schedule",
    level=1,
    task="The learning rate after `step` updates: a linear rise from 0 to max_lr in warmup_steps, "
    "then half a cosine to min_lr at total_steps, and min_lr from there on.",
    inputs=_cosine,
    definition="schedule-cosine",
    laws=(
        Law("When the warm-up ends the rate is max_lr.", "schedule-cosine", _from_top),
        Law("From total_steps on the rate is min_lr.", "schedule-cosine", _ends),
        Law(_ZERO, "schedule-cosine", _cosine_from_zero),
        Law(
            "Two steps as far from both ends of the decay have rates that sum to max_lr + min_lr.",
            "schedule-mean",
            _mirrored,
        ),
    ),
    mistakes=(
        Mistake(
            "no end",
            "Past total_steps the cosine rises again, as those of torch and transformers do: cut "
            "the fraction at 1.",
            (("min(1.0, " + _X + ")", _X),),
        ),
        Mistake(
            "a quarter of the cosine",
            "Half a wave, from 1 to -1, takes the angle from 0 to pi.",
            (("math.pi * x", "math.pi * x / 2"),),
        ),
        Mistake(
            "the whole wave",
            "Half a wave, from 1 to -1, takes the angle from 0 to pi.",
            (("math.pi * x", "2 * math.pi * x"),),
        ),
        _NO_RISE,
        Mistake(
            "divided by total_steps",
            "The decay takes the steps that the warm-up leaves.",
            ((_X, "(step - warmup_steps) / total_steps"),),
        ),
        Mistake(
            "the warm-up not subtracted",
            "The decay starts when the warm-up ends, with the fraction 0.",
            ((_X, "step / total_steps"),),
        ),
        Mistake(
            "min_lr added on top",
            "The cosine runs between the two rates, so it multiplies their difference.",
            (("(max_lr - min_lr)", "max_lr"),),
        ),
        Mistake(
            "min_lr ignored",
            "The decay ends at min_lr.",
            (("min_lr + (max_lr - min_lr)", "max_lr"),),
        ),
        Mistake(
            "rising cosine",
            "At the start of the decay the cosine is 1, and the rate is max_lr.",
            (("(1 + math.cos", "(1 - math.cos"),),
        ),
        Mistake(
            "the half forgotten",
            "1 + cos runs from 2 to 0.",
            (("0.5 * ", ""),),
        ),
        Mistake(
            "linear decay",
            "The fraction goes through a cosine first.",
            (("0.5 * (1 + math.cos(math.pi * x))", "(1 - x)"),),
        ),
    ),
    conventions=(
        _FIRST_STEP,
        Convention(
            "the floor as a maximum",
            "max(min_lr, cosine to 0) stays flat near the end; GPT-NeoX once had it. To match, let "
            "the cosine run between max_lr and min_lr.",
            (
                ("min_lr + (max_lr - min_lr) * 0.5", "max(min_lr, max_lr * 0.5"),
                ("math.cos(math.pi * x))", "math.cos(math.pi * x)))"),
            ),
        ),
        Convention(
            "warm-up from min_lr",
            "transformers' WSD starts its warm-up at the lowest rate. To match, start at 0.",
            ((_RISE, "return min_lr + (max_lr - min_lr) * step / warmup_steps"),),
        ),
        Convention(
            "warm restarts",
            "In SGDR the cosine starts again at max_lr. To match, stay at min_lr after the end.",
            (("min(1.0, " + _X + ")", _X + " % 1.0"),),
        ),
    ),
    hints=(
        "Three stretches: before warmup_steps, up to total_steps, and after.",
        "Which fraction of the decay is over? It is 0 when the warm-up ends, and never above 1.",
        "One plus the cosine of pi times the fraction runs from 2 to 0.",
    ),
    branches={
        "in the warm-up": lambda step, high, low, rise, end: 0 < step < rise,
        "where the decay starts": lambda step, high, low, rise, end: step == rise,
        "in the decay": lambda step, high, low, rise, end: rise < step < end,
        "after the end": lambda step, high, low, rise, end: step > end,
        "first update without warm-up": lambda step, high, low, rise, end: step == rise == 0,
        "a floor": lambda step, high, low, rise, end: low > 0,
    },
)

WARMUP_STABLE_DECAY = Exercise(
    name="warmup_stable_decay",
    topic="training/schedule",
    level=1,
    task="The learning rate after `step` updates: a linear rise from 0 to max_lr in warmup_steps, "
    "max_lr for stable_steps, a linear fall to 0 in decay_steps, and 0 from there on.",
    inputs=_stable,
    definition="schedule-wsd",
    laws=(
        Law("On the plateau the rate is max_lr.", "schedule-wsd", _flat),
        Law("After the decay the rate is 0.", "schedule-wsd", _over),
        Law(
            "A longer plateau changes no rate before the first decay.",
            "schedule-wsd-prefix",
            _prefix,
        ),
        Law("Halfway through the decay the rate is half of max_lr.", "schedule-wsd", _halfway),
        Law(_ZERO, "schedule-wsd", _from_zero),
    ),
    mistakes=(
        _NO_RISE,
        Mistake(
            "no plateau",
            "The decay starts stable_steps after the warm-up.",
            ((_FALL, "max(0, step - warmup_steps) / decay_steps"),),
        ),
        Mistake(
            "the plateau ends at stable_steps",
            "The plateau starts when the warm-up ends, and lasts stable_steps from there.",
            ((_FALL, "max(0, step - stable_steps) / decay_steps"),),
        ),
        Mistake(
            "the decay reaches back into the plateau",
            "Before the decay its fraction is 0: without max(0, ...) the rate rises above max_lr.",
            ((_FALL, "(step - warmup_steps - stable_steps) / decay_steps"),),
        ),
        Mistake(
            "no end",
            "Past the decay the rate would be negative, and the weights would climb: cut at 1.",
            (("min(1.0, x)", "x"),),
        ),
        Mistake(
            "the decay as long as the run",
            "The fraction is of decay_steps.",
            ((_FALL, _FALL.replace("decay_steps", "(stable_steps + decay_steps)")),),
        ),
        Mistake(
            "1 - x squared",
            "The fall is linear.",
            (("min(1.0, x)", "min(1.0, x) ** 2"),),
        ),
    ),
    conventions=(
        _FIRST_STEP,
        Convention(
            "decay of 1 - sqrt(x)",
            "It falls fast first. To match, let the rate fall linearly.",
            (("min(1.0, x)", "min(1.0, x) ** 0.5"),),
        ),
        Convention(
            "cosine decay",
            "transformers' WSD has it as its default. To match, let the rate fall linearly.",
            (("1 - min(1.0, x)", "0.5 + 0.5 * math.cos(math.pi * min(1.0, x))"),),
        ),
    ),
    hints=(
        "Three stretches: rise, plateau, fall; and what comes after.",
        "How many steps of the decay are over? None on the plateau.",
        "The fraction of the decay that is over stays between 0 and 1.",
    ),
    branches={
        "in the warm-up": lambda step, high, rise, flat, fall: 0 < step < rise,
        "on the plateau": lambda step, high, rise, flat, fall: rise < step < rise + flat,
        "in the decay": lambda step, high, rise, flat, fall: (
            rise + flat < step < rise + flat + fall
        ),
        "after the end": lambda step, high, rise, flat, fall: step > rise + flat + fall,
        "first update without warm-up": lambda step, high, rise, flat, fall: step == rise == 0,
    },
)

EXERCISES = (WARMUP_COSINE, WARMUP_STABLE_DECAY)
