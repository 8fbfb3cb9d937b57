"""A command ends with whoever runs it, and gets the time to clean up."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from llmref.hosting.processes import run
from tests.small_site import hear_signals

pytestmark = pytest.mark.skipif(os.name != "posix", reason="elsewhere there are no such signals")

RUN = """
import sys
from llmref.hosting import processes
sys.platform = sys.argv[3]
processes._PATIENCE = float(sys.argv[1])
sys.exit(processes.run(["sh", "-c", sys.argv[2]]))
"""


def running(
    folder: Path, script: str, patience: float, platform: str = "other"
) -> "subprocess.Popen[bytes]":
    """Run a script of the shell, which says `touch runs` when it is ready.

    By default it is as on a system that cannot end a process with its parent.
    """
    command = [sys.executable, "-c", RUN, str(patience), script, platform]
    process = subprocess.Popen(command, cwd=folder, start_new_session=True, preexec_fn=hear_signals)
    end = time.monotonic() + 60
    while not (folder / "runs").exists() and time.monotonic() < end:
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("deaf", [False, True])
def test_a_command_is_gone_when_its_run_was_ended(
    tmp_path: Path, number: signal.Signals, deaf: bool
) -> None:
    """Also one that ignores what it is asked."""
    ignore = "trap '' TERM HUP; " if deaf else ""
    process = running(tmp_path, f"{ignore}touch runs; while :; do sleep 0.1; done", 0.5)
    below = psutil.Process(process.pid).children()
    assert below
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    left = [child for child in below if child.is_running()]
    for child in left:
        child.kill()
    assert left == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can")
def test_a_command_that_ignores_signals_ends_with_a_run_that_was_killed(tmp_path: Path) -> None:
    script = "trap '' TERM; touch runs; while :; do sleep 0.1; done"
    process = running(tmp_path, script, 30, sys.platform)
    below = psutil.Process(process.pid).children()
    assert below
    process.kill()
    process.wait(30)
    left = psutil.wait_procs(below, timeout=5)[1]
    for child in left:
        child.kill()
    assert left == []


def test_an_interrupted_command_cleans_up_first(tmp_path: Path) -> None:
    clean_up = "trap 'sleep 0.5; touch cleaned; exit 1' INT"
    process = running(tmp_path, f"{clean_up}; touch runs; while :; do sleep 0.1; done", 30)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(30)
    assert (tmp_path / "cleaned").exists()


def test_signals_mean_afterwards_what_they_meant_before() -> None:
    numbers = signal.SIGTERM, signal.SIGHUP
    before = [signal.getsignal(number) for number in numbers]
    assert run(["true"]) == 0
    assert [signal.getsignal(number) for number in numbers] == before
