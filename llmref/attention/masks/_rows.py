"""Rows of a mask that allow something."""

from torch import Tensor


def require_rows(mask: Tensor) -> Tensor:
    """The mask, if every row allows something.

    Shapes: mask (..., T, S), bool -> the same
    Raises: ValueError that names the first empty row.
    """
    empty = ~mask.any(-1)
    if empty.any():
        first = tuple(empty.nonzero()[0].tolist())
        where = first[0] if len(first) == 1 else first
        raise ValueError(
            f"row {where} of the mask {tuple(mask.shape)} may attend to nothing "
            f"({int(empty.sum())} such rows); allow_empty_rows=True if that is meant"
        )
    return mask
