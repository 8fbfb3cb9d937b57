"""`make raise-oracles`: the pins are rewritten by what pip says, which no test asks."""

import json
from pathlib import Path

import pytest

from tests.raise_oracles import ALONE, PINS, main, naming, pinned
from tests.test_make import make

ROOT = Path(__file__).parents[1]

PROJECT = """
[project]
dependencies = ["torch>=2"]
[project.optional-dependencies]
docs = ["Sphinx<10", "scipy"]
oracle = ["trl", "open-clip-torch"]
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rows = [{"library": name} for name in ("trl", "verl", "open_clip_torch", "scipy", "torch")]
    for name, text in {
        "pyproject.toml": PROJECT,
        PINS: "Hub==1.0\nopen_clip_torch==3.0.0\nscipy==1.0\nSphinx==9.0\ntorch==2.13.0\n"
        "trl==1.16.0\nverl==0.9.1\n",
        ALONE: "# Why\nverl==0.9.1\ngguf==0.1\n",
        "docs/agreement.json": json.dumps(rows),
        "docs/rl/grpo.md": "As **TRL 1.16.0** does, and open-clip-torch, 3.0.\n",
        "docs/rl/kl.md": "As TRL 1.160 does.\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


class Pip:
    """What pip would say, and what it was asked for."""

    def __init__(self, **versions: str) -> None:
        self.versions = versions
        self.asked: list[tuple[list[str], str]] = []

    def __call__(self, names: list[str], options: list[str]) -> dict[str, str]:
        told = Path(options[1]).read_text(encoding="utf-8") if len(options) > 1 else options[0]
        self.asked.append((names, told))
        alone = options == ["--no-deps"]
        return {name: v for name, v in self.versions.items() if (name in names) or not alone}


def test_all_libraries_are_raised_but_those_of_the_site(root: Path) -> None:
    pip = Pip(trl="1.17.0", verl="1.0.0", hub="2.0", Added="0.1")
    main([], root, pip)
    kept = "scipy==1.0\nsphinx==9.0\ntorch==2.13.0"
    assert pip.asked == [(["open-clip-torch", "trl"], kept), (["verl"], "--no-deps")]
    assert (root / PINS).read_text(encoding="utf-8") == (
        "added==0.1\nHub==2.0\nopen_clip_torch==3.0.0\nscipy==1.0\nSphinx==9.0\ntorch==2.13.0\n"
        "trl==1.17.0\nverl==1.0.0\n"
    )
    assert (root / ALONE).read_text(encoding="utf-8") == "# Why\nverl==1.0.0\ngguf==0.1\n"


def test_only_what_is_named_is_raised(root: Path) -> None:
    """A library of the site too, if it is named."""
    pip = Pip(torch="2.14.0")
    main(["torch"], root, pip)
    assert pip.asked == [(["torch"], "scipy==1.0\nsphinx==9.0")]
    assert pinned((root / PINS).read_text(encoding="utf-8"))["torch"] == "2.14.0"


def test_a_pin_that_stands_apart_stays_apart(root: Path) -> None:
    main(["gguf"], root, Pip(gguf="0.2"))
    assert "gguf" not in (root / PINS).read_text(encoding="utf-8")
    assert "gguf==0.2" in (root / ALONE).read_text(encoding="utf-8")


def test_what_was_raised_is_said_with_the_pages_that_name_the_old(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["trl"], root, Pip(trl="1.17.0", hub="2.0"))
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "hub: 1.0 -> 2.0",
        "trl: 1.16.0 -> 1.17.0",
        "  named with its old version on rl/grpo.md",
    ]
    main(["trl"], root, Pip(trl="1.17.0"))
    assert capsys.readouterr().out == "All are the newest that go with the site's packages.\n"


def test_a_library_without_a_pin_is_refused(root: Path) -> None:
    before = (root / PINS).read_text(encoding="utf-8")
    with pytest.raises(SystemExit, match="raise-oracles: no pin of trll"):
        main(["trll"], root, Pip())
    assert (root / PINS).read_text(encoding="utf-8") == before


def test_if_pip_refuses_the_pins_are_as_they_were(root: Path) -> None:
    def refuse(names: list[str], options: list[str]) -> dict[str, str]:
        raise SystemExit("raise-oracles: the pins are as they were")

    before = [(root / name).read_bytes() for name in (PINS, ALONE)]
    with pytest.raises(SystemExit):
        main([], root, refuse)
    assert [(root / name).read_bytes() for name in (PINS, ALONE)] == before


def test_pages_that_name_a_version_are_found_by_name_and_number(root: Path) -> None:
    assert naming(root, "trl", "1.16.0") == ["rl/grpo.md"]
    assert naming(root, "open-clip-torch", "3.0.0") == ["rl/grpo.md"]
    assert naming(root, "trl", "1.1.0") == []


def test_every_comparison_is_of_the_version_that_is_pinned() -> None:
    """A pin that was raised without comparing again would leave the table stale."""
    pins = {name: version for file in (ALONE, PINS) for name, version in of(file).items()}
    rows = json.loads((ROOT / "docs" / "agreement.json").read_text(encoding="utf-8"))
    assert rows
    for row in rows:
        assert pins[row["library"].replace("_", "-")] == row["version"], row


def of(file: str) -> dict[str, str]:
    return pinned((ROOT / file).read_text(encoding="utf-8"))


def test_a_package_that_is_pinned_twice_has_one_version() -> None:
    twice = of(ALONE).keys() & of(PINS).keys()
    assert twice
    assert {name: of(ALONE)[name] for name in twice} == {name: of(PINS)[name] for name in twice}


def test_make_raises_and_then_compares() -> None:
    told = make(ROOT, "--dry-run", "raise-oracles", "L=trl verl").stdout
    raised = told.index("-m tests.raise_oracles trl verl")
    assert told.index("--write-agreement") > raised
