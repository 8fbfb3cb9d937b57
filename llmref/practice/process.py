"""Runs a reader's code in a process of its own: with a time limit, and nothing it does stays.

Where processes cannot be forked (Windows, macOS) it runs here, without the limit.
"""

import contextlib
import io
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from llmref.practice.calling import TooLongError

Answer = dict[str, Any]
_GRACE = 3.0  # seconds that a process has to say in which line it was


def never() -> bool:
    """Nothing ends the run before its time."""
    return False


def run(work: Callable[[], Answer], seconds: float, stop: Callable[[], bool] = never) -> Answer:
    """What `work` returns, or what happened to it; {} if `stop` ended it."""
    if sys.platform in ("win32", "darwin"):
        return work()
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    process = fork.Process(target=_work, args=(work, there, seconds), daemon=True)
    sys.stdout.flush()
    process.start()
    there.close()
    try:
        answer = _listen(here, seconds, stop)
        if answer is None:
            process.join(_GRACE)
            if process.exitcode == -signal.SIGINT:  # Ctrl-C, which has come there first
                raise KeyboardInterrupt
            answer = _wrong(f"your code ended the process it ran in{_signal(process.exitcode)}")
        return answer
    finally:
        process.kill()
        process.join()
        here.close()


def _listen(here: Connection, seconds: float, stop: Callable[[], bool]) -> Answer | None:
    """Show what is printed until the answer comes or the time is over; None if the process ends."""
    end = time.monotonic() + seconds + _GRACE
    while (left := end - time.monotonic()) > 0:
        if stop():
            return {}
        if not here.poll(min(left, 0.1)):
            continue
        try:
            kind, value = here.recv()
        except EOFError:
            return None
        if kind == "answer":
            answer: Answer = value
            return answer
        sys.stdout.write(value)
    return _wrong(f"it did not finish in {seconds:g} s")


class _Printed(io.TextIOBase):
    """Sends what is printed to the process that waits."""

    def __init__(self, there: Connection) -> None:
        self._there = there

    def write(self, text: str) -> int:
        self._there.send(("printed", text))
        return len(text)


def _work(work: Callable[[], Answer], there: Connection, seconds: float) -> None:
    torch.set_num_threads(1)  # the threads of the process that was forked are not here
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word

    def stop(*_: object) -> None:
        raise TooLongError(f"{seconds:g}")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)  # again, if a bare `except` has eaten it
    with open(os.devnull, encoding="utf-8") as nothing, contextlib.redirect_stdout(_Printed(there)):
        sys.stdin = nothing
        try:
            answer = work()
        except TooLongError:
            answer = _wrong(f"it did not finish in {seconds:g} s")
        except KeyboardInterrupt:
            answer = _wrong("it raises KeyboardInterrupt")
        signal.setitimer(signal.ITIMER_REAL, 0)
    there.send(("answer", answer))
    there.close()


def _signal(code: int | None) -> str:
    """' (segmentation fault)' of a process that a signal has ended."""
    if code is None or code >= 0:
        return ""
    return f" ({(signal.strsignal(-code) or str(-code)).lower()})"


def _wrong(problem: str) -> Answer:
    return {"outcome": "wrong", "problem": problem}
