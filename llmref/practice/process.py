"""Runs a reader's code in a process of its own: with a time limit, and nothing it does stays.

Where processes cannot be forked (Windows, macOS) it runs here, without the limit. What it prints
passes through.
"""

import contextlib
import io
import multiprocessing
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

Answer = dict[str, Any]


def run(work: Callable[[], Answer], seconds: float) -> Answer:
    """What `work` returns, or what happened to it."""
    if sys.platform in ("win32", "darwin"):
        return work()
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    process = fork.Process(target=_work, args=(work, there), daemon=True)
    sys.stdout.flush()
    process.start()
    there.close()
    try:
        return _listen(here, seconds)
    finally:
        process.kill()
        process.join()
        here.close()


def _listen(here: Connection, seconds: float) -> Answer:
    """Show what is printed until the answer comes, the time is over, or the process ends."""
    import time

    end = time.monotonic() + seconds
    while here.poll(max(0.0, end - time.monotonic())):
        try:
            kind, value = here.recv()
        except EOFError:
            return {"outcome": "wrong", "problem": "your code ended the process it ran in"}
        if kind == "answer":
            answer: Answer = value
            return answer
        sys.stdout.write(value)
    return {"outcome": "wrong", "problem": f"it did not finish in {seconds:g} s"}


class _Printed(io.TextIOBase):
    """Sends what is printed to the process that waits."""

    def __init__(self, there: Connection) -> None:
        self._there = there

    def write(self, text: str) -> int:
        self._there.send(("printed", text))
        return len(text)


def _work(work: Callable[[], Answer], there: Connection) -> None:
    torch.set_num_threads(1)  # the threads of the process that was forked are not here
    with contextlib.redirect_stdout(_Printed(there)):
        answer = work()
    there.send(("answer", answer))
    there.close()
