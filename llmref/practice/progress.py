"""What a reader has solved: a small JSON file beside their exercises. Nothing is sent anywhere."""

import json
from pathlib import Path


class Progress:
    """Outcomes and hints, by exercise."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "progress.json"
        self._known: dict[str, dict[str, object]] = {}
        self.damage = ""  # why nothing is kept
        if self._path.is_file():
            try:
                known = json.loads(self._path.read_text(encoding="utf-8"))
            except ValueError as failure:
                self.damage = f"{self._path} is damaged ({failure}); mend or delete it"
                known = None
            self._known = known if isinstance(known, dict) else {}

    def outcome(self, name: str) -> str:
        """'right', 'convention', 'wrong', or empty if it was never judged."""
        return str(self._known.get(name, {}).get("outcome", ""))

    def hints(self, name: str) -> int:
        """How many hints were given."""
        given = self._known.get(name, {}).get("hints", 0)
        return given if isinstance(given, int) else 0

    def bug(self, name: str) -> int | None:
        """Which mistake was shown last."""
        seed = self._known.get(name, {}).get("bug")
        return seed if isinstance(seed, int) else None

    def keep(self, name: str, **values: object) -> None:
        """Write what is new; an exercise that was right stays right. A damaged file is left."""
        if self.damage:
            return
        known = self._known.setdefault(name, {})
        if known.get("outcome") == "right":
            values.pop("outcome", None)
        known.update(values)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._known, indent=1, sort_keys=True) + "\n", "utf-8")
