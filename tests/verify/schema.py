"""The documented form of a record, for the tests of every kind of check."""

import json
from pathlib import Path

import jsonschema

from llmref.verify import Check

SCHEMA = Path(__file__).parents[2] / "docs" / "results.schema.json"


def require_documented(check: Check) -> None:
    """Raise `ValidationError` unless results.json may hold this check."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    record = {key: value for key, value in check.record().items() if key != "result"}
    unknown = record.keys() - schema["$defs"]["check"]["properties"].keys()
    assert not unknown, f"not documented: {unknown}"
    jsonschema.validate(record, {"$defs": schema["$defs"], "$ref": "#/$defs/check"})
