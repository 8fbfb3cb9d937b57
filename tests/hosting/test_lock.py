"""One build at a time: who holds the lock, and what becomes of it when that one is gone."""

import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer

import psutil
import pytest

from llmref.hosting.lock import _holder, held


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


@pytest.mark.skipif(os.name != "posix", reason="there builds are not kept apart")
def test_whoever_waits_gets_the_lock_whatever_is_written_in_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    with held(path):
        path.write_bytes(b"\xff\n")
        second = subprocess.Popen(
            [sys.executable, "-m", "llmref.hosting.lock", path, "echo", "mine"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert second.stdout
        waiting = second.stdout.readline()
        time.sleep(0.2)
        assert second.poll() is None
    assert waiting == "Another build is running here (\ufffd): waiting for it.\n"
    assert second.communicate()[0] == "mine\n"


@pytest.mark.skipif(os.name != "posix", reason="there builds are not kept apart")
def test_a_holder_that_has_not_said_yet_who_it_is_is_given_a_moment(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with held(path):
        path.write_bytes(b"")
        Timer(0.3, path.write_bytes, [b"process 7, since 12:00:00\n"]).start()
        assert _holder(path) == " (process 7, since 12:00:00)"
        path.write_bytes(b"")
        assert _holder(path, patience=0.1) == ""


@pytest.mark.skipif(os.name != "posix", reason="there builds are not kept apart")
def test_the_lock_is_free_when_the_command_under_it_has_ended(tmp_path: Path) -> None:
    script = f"touch {tmp_path}/runs; sleep 0.5; touch {tmp_path}/done"
    command = [sys.executable, "-m", "llmref.hosting.lock", tmp_path / "lock", "sh", "-c", script]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not (tmp_path / "runs").exists() and time.monotonic() < end:
        time.sleep(0.02)
    with held(tmp_path / "lock"):
        assert (tmp_path / "done").exists()
    assert process.wait(30) == 0
