"""What a release is made from: a checkout with its version, its files and its tags."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

_TAG = re.compile(r"v\d+\.\d+\.\d+")


class RefusedError(Exception):
    """Why this commit cannot be released, in one line."""


@dataclass(frozen=True)
class Checkout:
    """A folder under git; `tag` is the one that the release shall have, if it was named."""

    root: Path
    tag: str = ""

    @cached_property
    def version(self) -> str:
        """As pyproject.toml has it, which all others must equal."""
        return str(tomllib.loads(self.text("pyproject.toml"))["project"]["version"])

    def text(self, name: str) -> str:
        """Read a file."""
        return (self.root / name).read_text(encoding="utf-8")

    def tracked(self, *folders: str) -> list[str]:
        """Return the files that git knows, of all folders or of some."""
        return [name for name in self.git("ls-files", "-z", "--", *folders).split("\0") if name]

    def tags(self, *which: str) -> list[str]:
        """Return the tags of releases, the oldest first: all, or those that git is asked for."""
        found = filter(_TAG.fullmatch, self.git("tag", "--list", *which).split())
        return sorted(found, key=numbers)

    @property
    def last_release(self) -> str:
        """The newest release that this commit comes after, '' if there is none."""
        before = [t for t in self.tags("--merged", "HEAD") if t != f"v{self.version}"]
        return before[-1] if before else ""

    def git(self, *arguments: str) -> str:
        """Ask git.

        Raises: RefusedError with git's first words, if it refuses.
        """
        done = subprocess.run(["git", *arguments], cwd=self.root, capture_output=True, text=True)
        if done.returncode:
            raise RefusedError(f"git {arguments[0]}: {first(done.stderr.splitlines())}")
        return done.stdout


def numbers(version: str) -> list[int]:
    """'v0.10.2' -> [0, 10, 2]."""
    return [int(part) for part in re.findall(r"\d+", version)]


def first(lines: Iterator[str] | list[str]) -> str:
    """Return the first line that says something."""
    return next((line.strip() for line in lines if line.strip()), "it said nothing")


def listed(names: list[str], most: int = 5) -> str:
    """'a, b and 3 more'."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
