"""The built site: `make test-site` builds it first."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def html() -> Path:
    folder = ROOT / "_build" / "html"
    assert (folder / "index.html").is_file(), "there is no site: run make test-site"
    return folder
