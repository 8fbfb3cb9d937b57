"""Calls in a child process, which has so much memory and so many seconds for each call.

A child that dies or does not answer is a find, and another one goes on with the next call. Not
here: what is called, and what the verdicts mean.
"""

import json
import os
import resource
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from typing import Any

SECONDS = 1.5  # of the processor, so that a machine under load finds the same
PATIENCE = 20.0  # of the clock
BYTES = 2**30


def forked(attempt: Callable[[int], Any], numbers: range) -> Iterator[tuple[int, Any]]:
    """What `attempt` gives for each number, as JSON has it; None if it did not come back."""
    begun = numbers.start
    while begun < numbers.stop:
        for number, answer in _one_child(attempt, range(begun, numbers.stop)):
            begun = number + 1
            yield number, answer


def _one_child(attempt: Callable[[int], Any], numbers: range) -> Iterator[tuple[int, Any]]:
    """The answers of one child, up to the first that did not come."""
    read, write = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(read)
        _answer(attempt, numbers, write)
    os.close(write)
    try:
        with os.fdopen(read, "rb", buffering=0) as pipe:
            lines = _lines(pipe.fileno())
            for number in numbers:
                line = next(lines, None)
                if line is None:
                    yield number, None
                    return
                failed, answer = json.loads(line)
                if failed:
                    raise RuntimeError(failed)
                yield number, answer
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _lines(pipe: int) -> Iterator[bytes]:
    """Lines, as long as each comes in time."""
    begun = b""
    while True:
        *lines, begun = begun.split(b"\n")
        yield from lines
        ready, _, _ = select.select([pipe], [], [], PATIENCE)
        part = os.read(pipe, 2**16) if ready else b""
        if not part:
            return
        begun += part


def _answer(attempt: Callable[[int], Any], numbers: range, write: int) -> None:
    """Answer for each number, one after the other, a line for each."""
    try:
        quiet = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(quiet, standard)
        with open("/proc/self/statm") as pages:
            used = int(pages.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
        signal.signal(signal.SIGPROF, _stop)
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            for number in numbers:
                signal.setitimer(signal.ITIMER_PROF, SECONDS)
                try:
                    line = ["", attempt(number)]
                except Exception:  # of the fuzz itself
                    line = [traceback.format_exc(), None]
                signal.setitimer(signal.ITIMER_PROF, 0)
                os.write(write, json.dumps(line).encode() + b"\n")
    finally:
        os._exit(0)


def _stop(*_: object) -> None:
    raise TimeoutError(f"no answer in {SECONDS:g} seconds")
