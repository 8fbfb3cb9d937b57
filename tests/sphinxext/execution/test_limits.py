"""What a cell may do: nothing outlives the build, fills the site, or fails without a name."""

import os
import signal
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from llmref.sphinxext.execution.folders import KernelFolder
from tests.small_site import Site
from tests.sphinxext.execution.test_execution import NO_FORK, index, page


def test_output_that_arrives_in_two_messages_is_published_once(site: Site) -> None:
    """In the page, and in its Markdown and notebook, whichever way the messages are cut."""
    cell = """
import sys, time
print("first", end=""); sys.stdout.flush(); time.sleep(0.5); print(" half")
print("wrong", file=sys.stderr); sys.stderr.flush(); time.sleep(0.5); print("second")"""
    site.write("index.md", page("I", cell.strip()), executed=True)
    built = site.build_here()
    assert built.code == 0, built.warnings
    notebook = nbformat.read(built.html / "index.ipynb", as_version=4)
    streams = [(o.name, o.text) for o in notebook.cells[-1].outputs]
    assert streams == [("stdout", "first half\nsecond\n"), ("stderr", "wrong\n")]
    markdown = (built.html / "index.md").read_text(encoding="utf-8")
    assert "```text\nfirst half\nsecond\nwrong\n```" in markdown


def test_a_cell_that_puts_out_too_much_is_refused(site: Site) -> None:
    shout = "for _ in range(50):\n    print('x' * 100_000)"
    site.write("index.md", page("I", "1", shout, "print('after')"), executed=True)
    built = site.build_here()
    assert built.code == 1
    place = f"index.md:{site.line('index.md', 'for _ in')}: WARNING: cell 2 raised"
    said = "OutputTooLongError: the cell put out 5,000,050 bytes, and 4,000,000 is the most"
    assert f"{place} {said}" in built.warnings
    assert "after" in built.page("index")
    assert (built.html / "index.html").stat().st_size < 100_000


# Nobody inherits what an ordinary kernel that has died has started.
@pytest.mark.parametrize(
    ("kernels", "end"),
    [("", "pass"), ("", "import os; os._exit(1)"), (NO_FORK, "pass")],
    ids=["forked and returns", "forked and dies", "ordinary and returns"],
)
def test_what_a_cell_starts_ends_with_its_kernel(site: Site, kernels: str, end: str) -> None:
    site.configure(kernels)
    pids = site.root / "pids"
    start = f"""
import pathlib, subprocess
command = "sleep 300 & echo $! >> {pids}; sleep 300"
started = subprocess.Popen(["sh", "-c", command], start_new_session=True)
while not pathlib.Path({str(pids)!r}).exists(): pass
pathlib.Path({str(pids)!r}).open("a").write(str(started.pid))
{end}"""
    site.write("index.md", page("I", start.strip()), executed=True)
    assert (site.build_cold().code == 0) == (end == "pass")
    left = [int(line) for line in pids.read_text().split()]
    assert len(left) == 2
    limit = time.monotonic() + 5
    while any(map(_runs, left)) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not any(map(_runs, left))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_what_a_cell_starts_ends_with_a_build_that_is_killed_as_a_group(
    site: Site, number: signal.Signals
) -> None:
    """As `timeout`, a closed terminal or a cancelled job does: the server of kernels is spared."""
    pids = site.root / "pids"
    start = f"""
import pathlib, subprocess, time
started = subprocess.Popen(["sleep", "300"], start_new_session=True)
pathlib.Path({str(pids)!r}).write_text(str(started.pid))
time.sleep(300)"""
    site.write("index.md", page("I", start.strip()), executed=True)
    process = site.start()
    limit = time.monotonic() + 60
    while not (pids.exists() and pids.read_text()) and time.monotonic() < limit:
        time.sleep(0.05)
    os.killpg(process.pid, number)
    process.communicate(timeout=30)
    limit = time.monotonic() + 10
    while _runs(int(pids.read_text())) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not _runs(int(pids.read_text()))
    while list(site.root.glob("llmref-*")) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not list(site.root.glob("llmref-*"))


def _runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_cell_that_kills_the_server_of_kernels_is_named(site: Site) -> None:
    kill = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nimport time\ntime.sleep(600)"
    site.write("index.md", index("deadly"))
    site.write("deadly.md", page("D", kill), executed=True)
    built = site.build_here()
    assert built.code == 1
    assert f"deadly.md:{site.line('deadly.md', 'import os')}: WARNING: cell 1" in built.warnings
    (site.root / "deadly.md").rename(site.root / "first.md")
    site.write("index.md", index("first", "second"))
    site.write("second.md", page("D", "1"), executed=True)  # for it there is no kernel any more
    with pytest.raises(Exception, match=r"these pages ran, or had failed: \['first', 'second'\]"):
        site.build_here()


@pytest.mark.parametrize("what", ["page", "module", "front matter"])
def test_a_file_that_cannot_be_read_is_named(site: Site, what: str) -> None:
    site.use_own_package()
    site.write("index.md", index("bad"))
    site.write("bad.md", page("B", "from llmref import other"), executed=True)
    site.write("package/llmref/other.py", "VALUE = 'café'\n")
    bad = {"module": "package/llmref/other.py"}.get(what, "bad.md")
    text = (site.root / bad).read_text(encoding="utf-8")
    if what == "front matter":
        text = text.replace("kernelspec:", "kernelspec: [")
    (site.root / bad).write_bytes((text + "# é\n").encode("latin-1"))
    built = site.build()
    assert built.code != 0
    assert Path(bad).name in built.warnings


def test_a_byte_order_mark_is_nothing_special(site: Site) -> None:
    site.write("index.md", page("I", "print(6 * 7)"), executed=True)
    text = (site.root / "index.md").read_text(encoding="utf-8")
    (site.root / "index.md").write_text(text, encoding="utf-8-sig")
    built = site.build_here()
    assert (built.code, built.warnings) == (0, "")
    assert "42" in built.page("index")
    assert (built.html / "index.ipynb").exists()


def test_the_users_own_settings_of_matplotlib_change_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site.root / "settings").mkdir()
    (site.root / "settings/matplotlibrc").write_text("figure.figsize: 1, 1\n", encoding="utf-8")
    monkeypatch.setenv("MPLCONFIGDIR", str(site.root / "settings"))
    show = "import matplotlib\nprint(matplotlib.rcParams['figure.figsize'])"
    site.write("index.md", page("I", show), executed=True)
    assert "[6.4, 4.8]" in site.build_here().page("index")


def test_folders_of_dead_builds_are_removed_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with KernelFolder() as first, KernelFolder() as second:
        assert Path(first.path).exists()
        dead = tmp_path / "llmref-dead"
        dead.mkdir()
        (dead / "alive").touch()
        (tmp_path / "llmref-another").mkdir()  # not ours, for all that is known
        with KernelFolder():
            assert not dead.exists()
            assert Path(first.path).exists()
            assert Path(second.path).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["llmref-another"]


def test_a_long_path_leaves_room_for_the_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with KernelFolder() as folder:
        assert len(folder.path) < 80
    assert not any(long.iterdir())


def test_kernels_end_with_their_server(site: Site) -> None:
    """Also if that is killed, and so cannot end them itself."""
    flag = site.root / "running"
    wait = f"import pathlib, time\npathlib.Path({str(flag)!r}).touch()\ntime.sleep(600)"
    site.write("index.md", page("I", wait), executed=True)
    process = site.start()
    limit = time.monotonic() + 60
    while not flag.exists() and time.monotonic() < limit:
        time.sleep(0.05)
    (server,) = psutil.Process(process.pid).children()
    kernels = server.children()
    assert kernels
    os.kill(server.pid, signal.SIGKILL)
    assert psutil.wait_procs(kernels, timeout=5)[1] == []
    process.communicate(timeout=30)
    assert process.returncode != 0
