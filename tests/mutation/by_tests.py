"""Do the tests of a topic reject a mutant: those of its file, and of its folder if it has one?"""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.mutation.calls import recorded
from tests.mutation.forked import ALIVE, outcome
from tests.mutation.install import install
from tests.mutation.sites import Mutant
from tests.small_site import ROOT

OPTIONS = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
# It collects garbage seven times at the end of a run, which takes longer than most tests.
OPTIONS += ["-p", "no:unraisableexception"]


def files_of_tests(topic: str) -> list[Path]:
    """The file of a topic's tests, and those in a folder of its name."""
    group, name = topic.split("/")
    folder = ROOT / "tests" / group
    return [folder / f"test_{name}.py", *sorted((folder / name).glob("test_*.py"))]


class Watch:
    """For each test the functions that it entered, and how long it took."""

    def __init__(self, files: set[str]) -> None:
        self.files = files
        self.entered: dict[str, set[tuple[str, int]]] = {}
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        with recorded(self.files) as seen:
            result = yield
        self.entered[item.nodeid] = seen
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration


class TopicTests:
    """A topic's tests, which pass, with what each of them enters."""

    def __init__(self, topic: str, files: set[str]) -> None:
        self.tests = [path.relative_to(ROOT).as_posix() for path in files_of_tests(topic)]
        self.watch = Watch(files)
        if pytest.main([*OPTIONS, *self.tests], plugins=[self.watch]) != 0:
            raise SystemExit(f"{self.tests} must pass before their mutants are tried")

    def reject(self, mutant: Mutant) -> str:
        """'killed' or 'alive', by the tests that enter the mutant's function, quick ones first."""
        nodes = [
            node
            for node, entered in self.watch.entered.items()
            if any(mutant.is_entered(place) for place in entered)
        ]
        nodes.sort(key=lambda node: self.watch.seconds[node])
        if not nodes:
            return ALIVE
        limit = 10 + 5 * sum(self.watch.seconds[node] for node in nodes)

        def attempt() -> bool:
            install(mutant)
            # What a test file computed when it was imported, it computed without the mutant.
            for path in self.tests:
                sys.modules.pop(path.removesuffix(".py").replace("/", "."), None)
            return pytest.main([*OPTIONS, *nodes]) == 0

        return outcome(attempt, limit)
