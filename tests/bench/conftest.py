"""Measurements that are too slow or too noisy for a test: `make bench` runs them."""

from collections.abc import Callable

import pytest

Report = Callable[[str, float, float, str], None]


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Report:
    """Print what was measured beside its limit, and fail above the limit."""

    def write(name: str, measured: float, limit: float, unit: str = "times") -> None:
        with capsys.disabled():
            print(f"\n{name:60} {measured:10.3g} {unit:8} (at most {limit:g})", end="")
        assert measured <= limit, f"{name}: {measured:.3g} {unit}, at most {limit:g}"

    return write
