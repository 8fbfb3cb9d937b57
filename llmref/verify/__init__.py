"""Executed checks of stated results: each names its result and rejects named mistakes.

A check passes only if the claim holds *and* every `wrong` variant is rejected by the very same
test; anything else raises a `VerificationError` that names the result. Its `note` is its scope, a
short phrase that says what was compared, and no check goes without. Leaves out: finding proofs.
A check shows what was really compared, on an instance; the page proves the general statement.
"""

from llmref.verify.by_hand import by_hand
from llmref.verify.check import Check
from llmref.verify.enumerated import exact
from llmref.verify.errors import (
    ByHandError,
    CheckFailedError,
    MissingScopeError,
    MissingWrongVariantError,
    NanOnlyError,
    NotANumberError,
    ResultIdError,
    ShapeMismatchError,
    TooFewSamplesError,
    UndecidedError,
    UnreadableError,
    VerificationError,
    WrongVariantPassedError,
)
from llmref.verify.names import Becomes, Drawn, Mean
from llmref.verify.sampled import bound, gradient, monte_carlo, numeric
from llmref.verify.stated import statement
from llmref.verify.symbolic import identity

__all__ = [
    "Becomes",
    "ByHandError",
    "Check",
    "CheckFailedError",
    "Drawn",
    "Mean",
    "MissingScopeError",
    "MissingWrongVariantError",
    "NanOnlyError",
    "NotANumberError",
    "ResultIdError",
    "ShapeMismatchError",
    "TooFewSamplesError",
    "UndecidedError",
    "UnreadableError",
    "VerificationError",
    "WrongVariantPassedError",
    "bound",
    "by_hand",
    "exact",
    "gradient",
    "identity",
    "monte_carlo",
    "numeric",
    "statement",
]
