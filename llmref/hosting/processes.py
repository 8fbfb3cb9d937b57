"""Runs a command that never outlives this process, however this one ends.

Leaves out: what a build starts in its turn. Sphinx's workers and the kernels see to themselves.
"""

import contextlib
import ctypes
import locale
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import FrameType

_PR_SET_PDEATHSIG = 1
_PATIENCE = 10.0  # seconds; an interrupted build ends its kernels first


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Have the system send this process a signal when its parent ends; only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def run(command: list[str]) -> int:
    """Run a command to its end and return its exit code; negative if a signal ended it.

    Ctrl-C reaches the command too, in the same foreground group; any other end of this process is
    handed on to it.
    """
    parent = os.getpid()
    linux = sys.platform == "linux"
    child = subprocess.Popen(
        command,
        env={**os.environ, **_locale()},
        preexec_fn=(lambda: _follow(parent)) if linux else None,
    )
    with _leave_at_signals():
        try:
            return child.wait()
        except KeyboardInterrupt:
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                child.wait(_PATIENCE)
            raise
        finally:
            _end(child)


def _locale() -> dict[str, str]:
    """A locale that is there, if the one that is asked for is not: Sphinx would end at it."""
    try:
        locale.setlocale(locale.LC_ALL, "")
    except locale.Error:
        return {"LC_ALL": "C.UTF-8"}
    return {}


def _follow(parent: int) -> None:
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)


def _end(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def _leave_at_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exit, which cleans up on its way."""

    def leave(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    numbers = [signal.SIGTERM] + ([signal.SIGHUP] if os.name == "posix" else [])
    before = [(number, signal.signal(number, leave)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
