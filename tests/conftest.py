"""What all tests share: a small site for a test or for a module, one thread for a worker."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.small_site import Site


def pytest_configure() -> None:
    """Let workers that run side by side not each ask for all processors."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


@pytest.fixture(scope="module")
def module_site(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Site]:
    return lambda: Site(tmp_path_factory.mktemp("site"))
