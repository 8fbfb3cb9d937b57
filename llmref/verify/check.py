"""The object that a passed check returns: it shows itself, and carries a record for the site."""

import html
import os
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import InitVar, asdict, dataclass
from pathlib import Path
from typing import Any

from llmref.records import ID_PATTERN, MIME_TYPE, ids_in_use, seal
from llmref.verify.errors import (
    MissingScopeError,
    MissingWrongVariantError,
    NanOnlyError,
    NotANumberError,
    ResultIdError,
    VerificationError,
    WrongVariantPassedError,
)

_NAN_ONLY = (
    "the wrong variant '{name}' is not a number; a NaN is no mistake that a reader makes: give one "
    "that yields numbers, or say nan={{'{name}'}} if the NaN is its point"
)


_KEY = object()
_unshown: list["Check"] = []


@dataclass(frozen=True)
class Check:
    """One passed check.

    `figure` is what was measured on the claim ('largest error 2.2e-16, allowed 1e-12'); `rejected`
    maps each wrong variant to what the same measurement gave for it. `note` is the scope, a phrase
    that says what was compared. `equation` is the LaTeX of the equation that was compared, empty
    where numbers were. `statement` are the equations that were read from the text which the
    result's statement displays, `turned` the number of their signs that were turned, one at a time,
    and rejected. `function` is the dotted name of the code by hand that was compared, empty for
    every other kind.
    Raises: MissingScopeError if the note is no phrase; TypeError if it is made by hand.
    """

    result: str
    kind: str
    figure: str
    cases: int
    rejected: Mapping[str, str]
    note: str
    equation: str = ""
    statement: tuple[str, ...] = ()
    turned: int = 0
    function: str = ""
    key: InitVar[object] = None

    def __post_init__(self, key: object) -> None:
        if key is not _KEY:
            raise TypeError("a Check is made by the functions of llmref.verify, not by hand")
        _require_scope(self.result, self.note)
        if "ipykernel" in sys.modules:  # elsewhere nothing shows it
            _unshown.append(self)

    def record(self) -> dict[str, Any]:
        """The check as plain JSON data."""
        return {**asdict(self), "statement": list(self.statement)}

    def __repr__(self) -> str:
        rejected = "; ".join(self._all_rejected())
        return f"{self.result} ({self.kind}): {self.figure} [{self.note}]. Rejected: {rejected}"

    def _repr_html_(self) -> str:
        rows = "".join(f"<li>{html.escape(line)}</li>" for line in self._all_rejected())
        equation = f"<p>$${html.escape(self.equation)}$$</p>" if self.equation else ""
        return (
            f"<details><summary>&#10003; <code>{self.result}</code> {self.kind}: "
            f"{html.escape(self.figure)}</summary><p>{html.escape(self.note)}</p>{equation}"
            f"<p>Rejected:</p><ul>{rows}</ul></details>"
        )

    def _all_rejected(self) -> list[str]:
        signs = "1 sign turned" if self.turned == 1 else f"{self.turned} signs turned"
        mistakes = [f"{name}: {seen}" for name, seen in self.rejected.items()]
        return [*mistakes, signs] if self.turned else mistakes

    def _repr_latex_(self) -> str | None:
        return f"$\\displaystyle {self.equation}$" if self.equation else None

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        bundle = {"text/plain": repr(self), "text/html": self._repr_html_()}
        if latex := self._repr_latex_():
            bundle["text/latex"] = latex
        record = self.record()
        _unshown[:] = [made for made in _unshown if made is not self]
        return {**bundle, MIME_TYPE: {**record, "seal": seal(record)}}


def passed(*arguments: Any, **options: Any) -> Check:
    """Make the record of a check that has passed; for the functions of llmref.verify alone."""
    options["key"] = _KEY
    return Check(*arguments, **options)


def unshown() -> list[str]:
    """Return the results of the checks that were made in this kernel and not shown."""
    return [check.result for check in _unshown]


def require_known(result: str) -> None:
    """Raise `ResultIdError` unless `result` is well formed and, while the site is built, published.

    The site names its list of published ids in the environment; elsewhere (a downloaded notebook)
    only the form can be checked.
    """
    if not isinstance(result, str) or not ID_PATTERN.fullmatch(result):
        raise ResultIdError(str(result), "a result id is kebab-case and starts with its topic")
    published = os.environ.get("LLMREF_RESULT_IDS")
    if published and result not in ids_in_use(Path(published)):
        raise ResultIdError(result, "no published result has this id (docs/result-ids.txt)")


def _require_scope(result: str, note: str) -> None:
    if not isinstance(note, str) or len(note.split()) < 2:
        raise MissingScopeError(
            result,
            "say in a few words what was compared, note='three outcomes, two symbolic "
            f"distributions' or note='4000 float32 log-ratios up to 0.3'; got {note!r}",
        )


def require_tolerance(result: str, tolerance: float) -> None:
    """Raise `VerificationError` for a tolerance that would accept everything, or nothing."""
    if not 0 <= tolerance < float("inf"):
        raise VerificationError(result, f"the tolerance must be finite and >= 0, got {tolerance}")


def reject_all(
    result: str,
    wrong: Mapping[str, Any],
    test: Callable[[Any], tuple[bool, str]],
    nan: Collection[str] = (),
) -> dict[str, str]:
    """Run `test` on every wrong variant and return what it measured.

    `nan` names the variants that nothing but a NaN tells from the claim, where that is their point;
    any other error of a variant is the author's.
    """
    if not wrong:
        raise MissingWrongVariantError(result, "give at least one wrong variant (wrong={...})")
    if unknown := sorted(set(nan) - set(wrong)):
        raise NanOnlyError(result, f"nan names no wrong variant: {', '.join(unknown)}")
    rejected = {}
    for name, variant in wrong.items():
        try:
            passes, seen = test(variant)
        except NotANumberError as failure:
            if name not in nan:
                raise NanOnlyError(result, _NAN_ONLY.format(name=name)) from failure
            rejected[name] = "not a number"
            continue
        if passes:
            raise WrongVariantPassedError(
                result, f"the wrong variant '{name}' passes the same test ({seen})"
            )
        if name in nan:
            raise NanOnlyError(result, f"take '{name}' out of nan: it gives numbers ({seen})")
        rejected[name] = seen
    if set(nan) == set(wrong):
        raise NanOnlyError(result, "give a wrong variant with numbers too: a NaN passes no test")
    return rejected
