"""The console command `llmref practice`."""

import argparse
import random
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

from llmref.practice.exercise import Exercise, Mistake
from llmref.practice.exercises import exercise, exercises
from llmref.practice.process import never
from llmref.practice.progress import Progress
from llmref.practice.submission import SECONDS, judge_file
from llmref.practice.verdict import SITE, Verdict

_START = '''"""{task}

Change no argument: work on copies.
Shapes and meaning: {link}
Judge it with: {check}
"""

import torch


def {signature}:
    raise NotImplementedError("write it here")
'''
_FOLDER = Path("practice")
_WIDTH = 76  # of a task in a file
_FEW_LINES = 2  # that a mistake to be found has changed
_MARKS = {"right": "right", "convention": "another convention", "wrong": "begun", "": ""}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 if what was judged is right, and for all that judges nothing."""
    options = _parser().parse_args(arguments)
    folder: Path = options.folder
    try:
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is no folder; --folder says where your files are")
        progress = Progress(folder)
        if progress.damage:
            print(f"{progress.damage}: nothing is kept", file=sys.stderr)
        asked = exercise(options.name) if getattr(options, "name", None) else None
        return int(options.run(options, asked, progress))
    except (KeyError, ValueError, OSError) as failure:
        print(failure.args[0] if isinstance(failure, KeyError) else failure, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llmref", description="The mathematics of large language models."
    )
    areas = parser.add_subparsers(required=True, metavar="practice")
    practice = areas.add_parser("practice", help="write the formulas by hand, and have them judged")
    practice.add_argument(
        "--folder", type=Path, default=_FOLDER, help="where your files are (practice)"
    )
    practice.set_defaults(run=_list)
    commands = practice.add_subparsers(metavar="command")

    def add(name: str, run: object, words: str, *, named: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=words)
        command.add_argument("--folder", type=Path, default=argparse.SUPPRESS)
        if named:
            command.add_argument("name", help="an exercise, such as rms_norm")
        command.set_defaults(run=run)
        return command

    add("list", _list, "all exercises, with your progress", named=False)
    add("status", _status, "what you have solved", named=False)
    add("start", _start, "write the file with the signature")
    check = add("check", _check, "judge your file")
    check.add_argument("--watch", action="store_true", help="again whenever the file is saved")
    check.add_argument("--seconds", type=float, default=SECONDS, help="the time limit (20)")
    add("hint", _hint, "one more hint, three at most")
    add("solution", _solution, "the code by hand of the page")
    bug = add("bug", _bug, "find the mistake: a wrong version, of which you name the line")
    bug.add_argument("answer", nargs="?", help="the number of the wrong line, or the broken law")
    bug.add_argument("--seed", type=int, default=None, help="which of the mistakes")
    return parser


def _list(options: argparse.Namespace, asked: None, progress: Progress) -> int:
    topic, width = "", shutil.get_terminal_size((100, 24)).columns
    for name, it in exercises().items():
        if it.topic != topic:
            topic = it.topic
            print(f"{topic}")
        mark = _MARKS[progress.outcome(name)]
        line = f"  {name:22} level {it.level}  {mark:18} {it.task}"
        print(line if len(line) <= width else f"{line[: width - 4].rstrip()} ...")
    print(f"\n{_command(options, 'start NAME')} writes a file for you, and check NAME judges it.")
    return 0


def _status(options: argparse.Namespace, asked: None, progress: Progress) -> int:
    known = exercises()
    right = [name for name in known if progress.outcome(name) == "right"]
    print(f"{len(right)} of {len(known)} right: {', '.join(right) or 'none yet'}")
    begun = [name for name in known if progress.outcome(name) in ("wrong", "convention")]
    if begun:
        print(f"begun: {', '.join(begun)}")
    return 0


def _start(options: argparse.Namespace, asked: Exercise, progress: Progress) -> int:
    path = _file(options, asked)
    if path.exists():
        print(f"{path} is there already; it was left as it is.")
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    link = f"{SITE}/{asked.topic}.html#symbols"
    check = _command(options, f"check {asked.name}")
    task = textwrap.fill(asked.task, _WIDTH, break_long_words=False, break_on_hyphens=False)
    text = _START.format(task=task, link=link, check=check, signature=asked.signature)
    path.write_text(text, encoding="utf-8")
    print(f"{path} is yours to fill. Then: {check}")
    return 0


def _check(options: argparse.Namespace, asked: Exercise, progress: Progress) -> int:
    path = _file(options, asked)
    if not path.is_file():
        raise ValueError(
            f"there is no {path}; {_command(options, f'start {asked.name}')} writes it"
        )
    # Also where the shell that started it lets its own jobs hear no Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    while True:
        saved = path.stat().st_mtime_ns

        def is_saved(before: int = saved) -> bool:
            return path.is_file() and path.stat().st_mtime_ns != before

        stop = is_saved if options.watch else never
        verdict = judge_file(asked, path, seconds=options.seconds, stop=stop)
        if verdict is not None:
            print(verdict, flush=True)
            progress.keep(asked.name, outcome=verdict.outcome)
            if not options.watch:
                return _code(verdict)
        print(f"--- {time.strftime('%H:%M:%S')}, waiting for {path} to be saved; Ctrl-C ends")
        sys.stdout.flush()
        while not is_saved():
            time.sleep(0.2)


def _hint(options: argparse.Namespace, asked: Exercise, progress: Progress) -> int:
    given = min(progress.hints(asked.name) + 1, len(asked.hints))
    for number, hint in enumerate(asked.hints[:given], start=1):
        print(f"{number}. {hint}")
    progress.keep(asked.name, hints=given)
    if given == len(asked.hints):
        print(
            f"That was the last one. {_command(options, f'solution {asked.name}')} shows the code."
        )
    return 0


def _solution(options: argparse.Namespace, asked: Exercise, progress: Progress) -> int:
    print(asked.source)
    return 0


def _bug(options: argparse.Namespace, asked: Exercise, progress: Progress) -> int:
    """Show a wrong version; or judge the line that the reader names."""
    seed = options.seed if options.seed is not None else progress.bug(asked.name)
    if seed is None or (options.answer is None and options.seed is None):
        seed = random.randrange(len(asked.mistakes))
    offered = [it for it in asked.mistakes if len(_wrong_lines(asked, it)) <= _FEW_LINES]
    mistake = offered[seed % len(offered)]
    progress.keep(asked.name, bug=seed)
    if options.answer is None:
        print(f"One thing is wrong here. Task: {asked.task}\n")
        for number, line in enumerate(asked.edited(mistake).splitlines(), start=1):
            print(f"{number:3}  {line.partition('  #')[0]}")  # a comment would tell
        laws = "".join(f"\n  {law.result}: {law.words}" for law in asked.laws)
        print(f"\nLaws that a right version keeps:{laws}")
        answer = _command(options, f"bug {asked.name}")
        print(f"\nYour answer: {answer} LINE, or the id of a broken law")
        return 0
    found = _answered(asked, mistake, options.answer)
    if found:
        lines = ", ".join(map(str, sorted(_wrong_lines(asked, mistake))))
        print(f"right: {mistake.name} (line {lines}). {mistake.why}")
        return 0
    print(f"wrong: {options.answer} is as it should be. Read on, or ask for a hint.")
    return 1


def _answered(asked: Exercise, mistake: Mistake, answer: str) -> bool:
    """Whether an answer is a line that the mistake has changed, or a law that it breaks.

    Raises: ValueError if it is neither a line nor a law.
    """
    if answer.lstrip("-").isdigit():
        last = len(asked.edited(mistake).splitlines())
        if not 1 <= int(answer) <= last:
            raise ValueError(f"there are lines 1 to {last}, got {answer}")
        return int(answer) in _wrong_lines(asked, mistake)
    laws = [law for law in asked.laws if law.result == answer]
    if not laws:
        ids = ", ".join(sorted({law.result for law in asked.laws}))
        raise ValueError(f"answer with the number of a line or with one of {ids}; got {answer!r}")
    return any(law.broken_by(asked.variant(mistake), asked.inputs()) for law in laws)


def _wrong_lines(asked: Exercise, mistake: Mistake) -> set[int]:
    before, after = asked.source.splitlines(), asked.edited(mistake).splitlines()
    return {
        number
        for number, line in enumerate(after, start=1)
        if line not in before or before.count(line) != after.count(line)
    }


def _command(options: argparse.Namespace, words: str) -> str:
    """The command as this reader has to type it."""
    folder = "" if options.folder == _FOLDER else f" --folder {options.folder}"
    return f"llmref practice{folder} {words}"


def _file(options: argparse.Namespace, asked: Exercise) -> Path:
    folder: Path = options.folder
    return folder / f"{asked.name}.py"


def _code(verdict: Verdict) -> int:
    return 0 if verdict.outcome == "right" else 1


if __name__ == "__main__":
    sys.exit(main())
