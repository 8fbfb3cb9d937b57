"""Is every field of a JSON object one that we know, and of its type?

A field that is passed over in silence changes ids: whatever is unknown is refused by its name.
"""

from collections.abc import Mapping
from typing import Any

Fields = Mapping[str, type | tuple[type, ...]]
_MISSING = object()


def require_object(value: Any, where: str) -> dict[str, Any]:
    """Raise ValueError unless the value is an object."""
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be an object, got {value!r}"[:200])
    return value


def require_fields(
    given: Any, where: str, fields: Fields, defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The fields, with defaults where the file has none.

    Raises: ValueError for a field that is unknown, missing or of another type.
    """
    given, defaults = require_object(given, where), defaults or {}
    if unknown := sorted(set(given) - set(fields)):
        raise ValueError(f"{where}: field {unknown[0]!r} is not read")
    out: dict[str, Any] = {}
    for name, kind in fields.items():
        value = given.get(name, defaults.get(name, _MISSING))
        kinds = kind if isinstance(kind, tuple) else (kind,)
        # bool is a subclass of int: an id may not be true.
        if value is _MISSING or type(value) not in kinds:
            seen = "nothing" if value is _MISSING else repr(value)[:80]
            wanted = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
            raise ValueError(f"{where}: field {name!r} must be {wanted}, got {seen}")
        out[name] = value
    return out


def require_kind(given: Any, where: str, kinds: Mapping[str, Fields]) -> tuple[str, dict[str, Any]]:
    """The type that an object names, and the other fields of that type.

    Raises: ValueError for a type that is not read; as require_fields.
    """
    given = dict(require_object(given, where))
    kind = given.pop("type", None)
    if kind not in kinds:
        raise ValueError(f"{where} of type {kind!r} is not read; read are {sorted(kinds)}")
    return kind, require_fields(given, f"{where} {kind}", kinds[kind], DEFAULTS.get(kind))


def require_value(value: Any, allowed: tuple[Any, ...], where: str) -> None:
    """Raise ValueError for a value that would need what we do not have."""
    if value not in allowed:
        wanted = " or ".join(map(repr, allowed))
        raise ValueError(f"{where} must be {wanted}, others are not read, got {value!r}"[:300])


# What tokenizers takes where a file, in most cases an old one, is silent.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "ByteLevel": {"use_regex": True, "trim_offsets": True},
    "Split": {"invert": False},
}
