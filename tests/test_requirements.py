"""What the project says that it needs is what works: versions of Python and of packages."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(name): version for name, version in (x.split("==") for x in lines)}


def test_the_oldest_python_that_we_name_can_install_every_pinned_package() -> None:
    """Debian 12 has 3.11.2: one package that wants 3.11.5 and nothing can be installed there."""
    oldest = re.fullmatch(r">=(3\.\d+)", PROJECT["requires-python"])
    assert oldest
    refusing = {
        distribution.name: needed
        for distribution in importlib.metadata.distributions()
        if canonicalize_name(distribution.name) in pinned()
        and (needed := distribution.metadata.get("Requires-Python"))
        and not SpecifierSet(needed).contains(f"{oldest[1]}.0")
    }
    assert refusing == {}


def test_every_package_that_we_name_is_pinned_within_its_bounds() -> None:
    extras = [
        requirement for extra in PROJECT["optional-dependencies"].values() for requirement in extra
    ]
    for requirement in map(Requirement, [*PROJECT["dependencies"], *extras]):
        version = pinned().get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(version), requirement


def test_the_pins_are_in_order_and_each_package_has_one() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = [line.partition("==")[0] for line in lines]
    assert names == sorted(names, key=str.lower)
    assert len(pinned()) == len(lines)
