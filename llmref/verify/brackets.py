"""What stands in an equation between brackets of its own kind; for the reader.

Absolute values, norms, inner products, rounded numbers, sets, columns and matrices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp
import torch

from llmref.tex import LINE_BREAK
from llmref.verify.names import as_value

if TYPE_CHECKING:
    from llmref.verify.reader import Reader

_ROUNDED = {r"\lfloor": (r"\rfloor", sp.floor), r"\lceil": (r"\rceil", sp.ceiling)}
_BARS = {"|": "|", r"\lvert": r"\rvert"}
_MATRIX = (r"\begin{pmatrix}", r"\end{pmatrix}")
OPENING = (r"\lfloor", r"\lceil", r"\lvert", r"\lVert", r"\langle", r"\{", _MATRIX[0])
CLOSING = (r"\rfloor", r"\rceil", r"\rvert", r"\rVert", r"\rangle", r"\}", _MATRIX[1])


def read(reader: Reader, opening: str) -> Any:
    """What the bracket holds that has just been read."""
    if opening in _ROUNDED:
        closing, rounded = _ROUNDED[opening]
        return rounded(reader.until(closing))
    if opening in _BARS:
        reader.bars += 1
        value = reader.sum()
        reader.bars -= 1
        reader.need(_BARS[opening])
        is_set = isinstance(value, (sp.FiniteSet, type(sp.EmptySet)))
        return sp.Integer(len(value)) if is_set else sp.Abs(value)
    if opening == r"\lVert":
        return _norm(reader, reader.until(r"\rVert"))
    if opening == r"\langle":
        left = reader.until(",")
        return _inner(reader, left, reader.until(r"\rangle"))
    if opening == r"\{":
        return reader.until(r"\}")
    return _matrix(reader)


def is_set(reader: Reader, start: int) -> bool:
    r"""Whether a set begins here, such as \{i: x_i>0\}."""
    brace, index, colon = (reader.tokens[start : start + 3] + [""] * 3)[:3]
    return brace == r"\{" and index in reader.over and colon == ":"


def positive_part(value: Any) -> Any:
    """The larger of it and 0, entry by entry."""
    if isinstance(value, sp.MatrixBase):
        return value.applyfunc(positive_part)
    return sp.Max(value, 0)


def plus(left: Any, right: Any) -> Any:
    """A sum; a number is added to each entry of a column."""
    for one, other in ((left, right), (right, left)):
        is_column = isinstance(one, sp.MatrixBase) and one.shape[1] == 1 < one.shape[0]
        if is_column and not isinstance(other, sp.MatrixBase):
            return one.applyfunc(lambda entry, number=other: entry + number)
    return left + right


def _norm(reader: Reader, value: Any) -> Any:
    entries = list(sp.Matrix([value]))
    is_vector = not isinstance(value, sp.MatrixBase) or 1 in value.shape
    kind = ""
    if reader.take("_"):
        kind = reader.next()
        reader.place += 1
    if kind == "1" and is_vector:
        return sum(map(sp.Abs, entries))
    if kind == r"\infty" and is_vector:
        return sp.Max(*map(sp.Abs, entries))
    if kind == "F" or (kind in ("", "2") and is_vector):
        return sp.sqrt(sum(entry**2 for entry in entries))
    if kind in ("2", "*") and all(entry.is_number for entry in entries):
        matrix = torch.tensor(value.tolist(), dtype=torch.float64)
        return as_value(torch.linalg.matrix_norm(matrix, 2 if kind == "2" else "nuc").item())
    return reader.refuse(f"no norm of this is known with the subscript {kind!r}")


def _inner(reader: Reader, left: Any, right: Any) -> Any:
    """The sum of the products of entries, of two columns or two matrices of one shape."""
    shapes = [it.shape if isinstance(it, sp.MatrixBase) else None for it in (left, right)]
    if shapes[0] != shapes[1] or None in shapes:
        reader.refuse("an inner product is of two columns or matrices of one shape")
    return sum(one * other for one, other in zip(left, right, strict=True))


def _matrix(reader: Reader) -> Any:
    """Blocks under and beside each other."""
    rows: list[list[Any]] = [[]]
    while True:
        rows[-1].append(sp.Matrix([reader.sum()]))
        if reader.take(_MATRIX[1]):
            break
        if reader.take(LINE_BREAK):
            rows.append([])
        else:
            reader.need("&")
    return sp.ImmutableMatrix.vstack(*(sp.Matrix.hstack(*row) for row in rows))
