"""Agreement with third-party libraries, recorded in docs/agreement.json.

Every oracle test compares through the `agreement` fixture. `make oracle` checks that the committed
table has exactly the rows that were tested; `make agreement` writes it.
"""

import importlib
import importlib.metadata
import importlib.util
import json
import math
import sys
import types
from collections.abc import Callable, Iterator
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import ClassVar

import pytest
import torch

TABLE = Path(__file__).parents[2] / "docs" / "agreement.json"
_rows: dict[tuple[str, str, str], dict[str, str | float]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-agreement", action="store_true", help="write docs/agreement.json")


@pytest.fixture
def agreement(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Compare our value with a library's, all elements, and record the row.

    The test's module names its page in `TOPIC`, as in 'rl/kl'.
    """
    topic = request.module.TOPIC

    def compare(
        formula: str,
        library: str,
        ours: torch.Tensor,
        theirs: torch.Tensor,
        *,
        atol: float,
        convention: str = "",
    ) -> None:
        ours, theirs = (x.detach().to(torch.float64) for x in (ours, theirs))
        assert ours.shape == theirs.shape, f"{formula}: {ours.shape} against {theirs.shape}"
        assert ours.numel(), f"{formula}: nothing was compared"
        same = ours == theirs  # equal infinities differ by nothing
        difference = torch.where(same, 0.0, (ours - theirs).abs()).max().item()
        assert difference <= atol, f"{formula}: {library} differs by {difference:.3g} > {atol:g}"
        key = (topic, formula, library)
        earlier = _rows.get(key, {}).get("largest_difference", 0.0)
        _rows[key] = {
            "topic": topic,
            "formula": formula,
            "library": library,
            "version": importlib.metadata.version(library).split("+")[0],
            "convention": convention,
            "allowed": atol,
            "largest_difference": max(float(earlier), difference),
        }

    return compare


@pytest.fixture(scope="session", autouse=True)
def _agreement_table(request: pytest.FixtureRequest) -> Iterator[None]:
    """At the end: the committed table has the rows that were just tested."""
    yield
    if not _rows:
        return
    session = request.session
    if session.testsfailed:
        return
    rows = [_rows[key] for key in sorted(_rows)]
    tested_topics = {row["topic"] for row in rows}
    if request.config.getoption("--write-agreement"):
        for row in rows:
            # Two digits: a different machine rounds differently.
            row["largest_difference"] = float(f"{row['largest_difference']:.1e}")
        if any(arg.endswith(".py") for arg in request.config.args):  # a part: keep the others
            kept = json.loads(TABLE.read_text(encoding="utf-8"))
            rows += [row for row in kept if row["topic"] not in tested_topics]
            rows.sort(key=lambda row: (row["topic"], row["formula"], row["library"]))
        TABLE.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    committed = json.loads(TABLE.read_text(encoding="utf-8"))
    identity = ("topic", "formula", "library", "version", "convention", "allowed")
    expected = [[row[k] for k in identity] for row in committed if row["topic"] in tested_topics]
    actual = [[row[k] for k in identity] for row in rows]
    whole_run = not request.config.option.keyword and not any(
        "::" in arg for arg in request.config.args
    )
    if whole_run:
        assert actual == expected, "docs/agreement.json is out of date: run `make agreement`"
    assert all(math.isfinite(float(row["largest_difference"])) for row in rows)


class _Stand(types.ModuleType):
    """An empty stand-in: any attribute is another one, and calling it returns its argument."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Stand(f"{self.__name__}.{name}")

    def __call__(self, *args: object, **kwargs: object) -> object:
        return args[0] if args else self

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        return ()


class _StandInFinder(MetaPathFinder, Loader):
    def __init__(self, roots: set[str]) -> None:
        self.roots = roots

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.split(".")[0] in self.roots else None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return _Stand(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


@pytest.fixture(scope="session")
def stand_in() -> Callable[..., None]:
    """Serve empty modules for what an oracle imports and never uses, unless they are installed."""

    def install(*roots: str) -> None:
        missing = {root for root in roots if not importlib.util.find_spec(root)}
        sys.meta_path.insert(0, _StandInFinder(missing))

    return install


@pytest.fixture(scope="session")
def verl(stand_in: Callable[..., None]) -> types.ModuleType:
    """The losses of verl, which imports ray and does not need it for them."""
    stand_in("ray")
    from verl.trainer.ppo import core_algos

    return core_algos


@pytest.fixture(scope="session")
def openrlhf_models(stand_in: Callable[..., None]) -> Callable[[str], types.ModuleType]:
    """Modules of openrlhf/models under a bare package: its own imports need a GPU stack."""
    stand_in("deepspeed", "ring_flash_attn", "ray")
    found = importlib.util.find_spec("openrlhf")
    package = types.ModuleType("openrlhf_bare")
    package.__path__ = [str(Path(found.submodule_search_locations[0]) / "models")]
    sys.modules["openrlhf_bare"] = package
    return lambda name: importlib.import_module(f"openrlhf_bare.{name}")


@pytest.fixture(scope="session")
def torchtune_imports(stand_in: Callable[..., None]) -> None:
    """Torchtune imports its tokenizers and their libraries; its formulas use none of them."""
    stand_in("sentencepiece", "tiktoken", "blobfile", "kagglehub", "torchvision")
