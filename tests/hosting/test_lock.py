"""One build at a time: who holds the lock, and what becomes of it when that one is gone."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from llmref.hosting.lock import held


@pytest.mark.skipif(os.name != "posix", reason="there builds are not kept apart")
def test_the_lock_names_its_last_holder_alone(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("process 1, since 00:00:00\n", encoding="utf-8")
    with held(tmp_path / "lock"):
        (line,) = (tmp_path / "lock").read_text(encoding="utf-8").splitlines()
    assert line.startswith(f"process {os.getpid()}, since ")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can")
def test_a_command_under_a_lock_ends_with_whoever_started_it(tmp_path: Path) -> None:
    lock = f"{sys.executable} -m llmref.hosting.lock {tmp_path}/lock"
    parent = subprocess.Popen(
        ["sh", "-c", f"{lock} sh -c 'touch {tmp_path}/runs; exec sleep 300'; :"]
    )
    end = time.monotonic() + 60
    while not (tmp_path / "runs").exists() and time.monotonic() < end:
        time.sleep(0.05)
    below = psutil.Process(parent.pid).children(recursive=True)
    assert below
    parent.kill()
    parent.wait()
    left = psutil.wait_procs(below, timeout=10)[1]
    for process in left:
        process.kill()
    assert left == []
