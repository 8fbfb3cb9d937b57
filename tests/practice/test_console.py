"""The console command, through a real terminal."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmref.practice.console import _wrong_lines, main
from llmref.practice.exercises import exercise, exercises

RIGHT = """
def rms_norm(x, weight, eps):
    return weight * x / (x.square().mean(-1, keepdim=True) + eps) ** 0.5
"""
WRONG = """
def rms_norm(x, weight, eps):
    return weight * x / (x.square().mean(-1, keepdim=True) ** 0.5 + eps)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "practice"


def test_the_list_has_every_exercise_with_level_and_progress(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["practice"]) == 0
    said = capsys.readouterr().out
    assert "norm/rms_norm" in said
    assert "rms_norm_backward      level 3" in said
    assert not folder.exists()


def test_a_start_writes_the_task_in_short_lines(folder: Path) -> None:
    for name, it in exercises().items():
        assert main(["practice", "start", name]) == 0
        text = (folder / f"{name}.py").read_text(encoding="utf-8")
        compile(text, name, "exec")
        words = text.partition("Change no argument: work")[0].replace('"""', "").split()
        assert words == it.task.split()
        task = text.partition("Shapes and meaning")[0]
        assert all(len(line) <= 80 for line in task.splitlines())


def test_a_start_writes_the_signature_and_never_writes_over_a_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["practice", "start", "rms_norm"]) == 0
    path = folder / "rms_norm.py"
    assert "def rms_norm(x, weight, eps):" in path.read_text(encoding="utf-8")
    assert "rsqrt" not in path.read_text(encoding="utf-8")
    path.write_text("mine", encoding="utf-8")
    assert main(["practice", "start", "rms_norm"]) == 0
    assert path.read_text(encoding="utf-8") == "mine"
    assert "is there already; it was left as it is" in capsys.readouterr().out


def test_a_check_tells_right_from_wrong_and_keeps_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["practice", "check", "rms_norm"]) == 2
    assert "llmref practice start rms_norm writes it" in capsys.readouterr().err
    folder.mkdir()
    (folder / "rms_norm.py").write_text(WRONG, encoding="utf-8")
    assert main(["practice", "check", "rms_norm"]) == 1
    assert "mistake: 'eps outside the root'" in capsys.readouterr().out
    assert main(["practice", "status"]) == 0
    assert "begun: rms_norm" in capsys.readouterr().out
    (folder / "rms_norm.py").write_text(RIGHT, encoding="utf-8")
    assert main(["practice", "check", "rms_norm"]) == 0
    (folder / "rms_norm.py").write_text(WRONG, encoding="utf-8")
    assert main(["practice", "check", "rms_norm"]) == 1  # but what was right stays right
    kept = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
    assert kept == {"rms_norm": {"outcome": "right"}}


def test_hints_come_one_by_one_and_end(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2, 3, 3):
        assert main(["practice", "hint", "rms_norm"]) == 0
        said = capsys.readouterr().out
        assert (f"{number}. " in said, f"{number + 1}. " in said) == (True, False)
    assert "That was the last one" in said


def test_the_solution_is_the_code_by_hand(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["practice", "solution", "rms_norm"]) == 0
    assert capsys.readouterr().out.startswith("def rms_norm(x, weight, eps):\n")


def test_a_bug_is_found_by_its_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["practice", "bug", "rms_norm", "--seed", "1"]) == 0
    shown = capsys.readouterr().out
    (line,) = (it for it in shown.splitlines() if ".sqrt() + eps" in it)
    assert main(["practice", "bug", "rms_norm", "1"]) == 1
    assert "wrong: 1 is as it should be" in capsys.readouterr().out
    assert main(["practice", "bug", "rms_norm", line.split()[0]]) == 0
    assert "right: eps outside the root (line 3). It is added" in capsys.readouterr().out
    assert "  #" not in shown  # comments would tell


def test_a_bug_is_found_by_the_law_that_it_breaks(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [mistake.name for mistake in exercise("rms_norm").mistakes]
    seed = str(names.index("one mean for all rows"))
    assert main(["practice", "bug", "rms_norm", "--seed", seed]) == 0
    assert "norm-rms: Each row is normalised by itself" in capsys.readouterr().out
    assert main(["practice", "bug", "rms_norm", "norm-rms-invariance"]) == 1
    assert main(["practice", "bug", "rms_norm", "norm-rms"]) == 0
    assert "right: one mean for all rows (line 3)." in capsys.readouterr().out
    assert main(["practice", "bug", "rms_norm", "norm-none"]) == 2
    said = capsys.readouterr().err
    assert "one of norm-rms, norm-rms-invariance; got 'norm-none'" in said


def test_an_unknown_name_and_a_damaged_progress_get_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["practice", "hint", "rmsnorm"]) == 2
    assert capsys.readouterr().err == "there is no exercise 'rmsnorm'; is it rms_norm?\n"
    folder.mkdir()
    (folder / "progress.json").write_text("{", encoding="utf-8")
    (folder / "rms_norm.py").write_text(RIGHT, encoding="utf-8")
    assert main(["practice", "check", "rms_norm"]) == 0  # it is judged all the same
    said = capsys.readouterr()
    assert "progress.json is damaged" in said.err
    assert said.out.startswith("right: rms_norm: ")
    assert (folder / "progress.json").read_text(encoding="utf-8") == "{"


def test_a_name_may_come_with_its_topic_or_as_a_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("norm/rms_norm", "practice/rms_norm.py"):
        assert main(["practice", "solution", name]) == 0
        assert capsys.readouterr().out.startswith("def rms_norm(")
    assert main(["practice", "hint", "quantization"]) == 2
    assert capsys.readouterr().err == (
        "there is no exercise 'quantization'; is it quantize_symmetric or dequantize?\n"
    )
    assert main(["practice", "hint", "nosuch"]) == 2
    assert capsys.readouterr().err.endswith("; llmref practice lists them\n")


def test_commands_are_suggested_with_the_folder_in_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    check = f"llmref practice --folder {mine} check rms_norm"
    assert main(["practice", "--folder", str(mine), "start", "rms_norm"]) == 0
    assert check in capsys.readouterr().out
    assert check in (mine / "rms_norm.py").read_text(encoding="utf-8")
    (mine / "rms_norm.py").write_text(RIGHT, encoding="utf-8")
    assert main(["practice", "check", "rms_norm", "--folder", str(mine)]) == 0
    assert main(["practice", "bug", "rms_norm", "--folder", str(mine)]) == 0
    assert f"--folder {mine} bug rms_norm LINE" in capsys.readouterr().out


def test_what_cannot_be_answered_is_refused_in_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.mkdir()
    (folder / "rms_norm.py").write_text(RIGHT, encoding="utf-8")
    file = folder / "rms_norm.py"
    for arguments, said in (
        (["check", "rms_norm", "--seconds", "0"], "the time limit must be positive, got 0 s"),
        (["check", "rms_norm", "--folder", str(file)], f"{file} is no folder"),
        (["bug", "rms_norm", "--seed", "1"], ""),
        (["bug", "rms_norm", "99"], "there are lines 1 to 4, got 99"),
        (["bug", "rms_norm", "0"], "there are lines 1 to 4, got 0"),
    ):
        assert main(["practice", *arguments]) == (2 if said else 0)
        assert said in capsys.readouterr().err


def test_a_bug_to_be_found_has_changed_one_or_two_lines() -> None:
    for it in exercises().values():
        offered = [mistake for mistake in it.mistakes if len(_wrong_lines(it, mistake)) <= 2]
        assert len(offered) >= 3, it.name


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._main, side = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llmref", *arguments],
            cwd=folder,
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        os.close(side)
        self.said = ""

    def wait_for(self, text: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while text not in self.said:
            ready, _, _ = select.select([self._main], [], [], end - time.monotonic())
            assert ready, f"{text!r} did not come: {self.said}"
            self.said += os.read(self._main, 4096).decode()

    def forget(self) -> None:
        self.said = ""

    def rest(self) -> str:
        """What it has said when it has ended."""
        while select.select([self._main], [], [], 0.5)[0]:
            try:
                self.said += os.read(self._main, 4096).decode()
            except OSError:  # nobody holds the other side any more
                break
        return self.said

    def interrupt(self) -> int:
        os.write(self._main, b"\x03")
        self.process.send_signal(2)
        return self.process.wait(timeout=30)


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Terminal]:
    (tmp_path / "practice").mkdir()
    (tmp_path / "practice" / "rms_norm.py").write_text(WRONG, encoding="utf-8")
    terminal = Terminal(tmp_path, "practice", "check", "rms_norm", "--watch")
    yield terminal
    terminal.process.kill()
    terminal.process.wait()


def test_a_watched_file_is_judged_at_each_save(watching: Terminal, tmp_path: Path) -> None:
    watching.wait_for("waiting for")
    assert "mistake: 'eps outside the root'" in watching.said
    watching.forget()
    (tmp_path / "practice" / "rms_norm.py").write_text(RIGHT, encoding="utf-8")
    watching.wait_for("waiting for")
    assert "right: rms_norm" in watching.said
    watching.forget()
    (tmp_path / "practice" / "rms_norm.py").write_text("def rms_norm(:\n", encoding="utf-8")
    watching.wait_for("waiting for")
    assert "in line 1 of" in watching.said
    assert watching.interrupt() == 130


LOOP = "print('begun', flush=True)\nwhile True:\n    pass\n"


def test_a_save_ends_the_run_before_it(watching: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "practice" / "rms_norm.py"
    watching.wait_for("waiting for")
    watching.forget()
    path.write_text(LOOP, encoding="utf-8")
    watching.wait_for("begun")
    path.write_text(RIGHT, encoding="utf-8")
    watching.wait_for("right: rms_norm", seconds=15)  # the limit is 20
    assert "did not finish" not in watching.said


def test_ctrl_c_ends_a_run_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "practice").mkdir()
    (tmp_path / "practice" / "rms_norm.py").write_text(LOOP, encoding="utf-8")
    terminal = Terminal(tmp_path, "practice", "check", "rms_norm")
    try:
        terminal.wait_for("begun")
        assert terminal.interrupt() == 130
        assert "Traceback" not in terminal.rest()
    finally:
        terminal.process.kill()
        terminal.process.wait()
