"""`make mutate`: try the mutants of all topics, or of one, and write what became of them.

What is done is kept in _build/mutation, so a run that was stopped goes on where it was; a topic is
tried anew when its code, tests or page have changed. Leaves out: changes in what the topic imports
(remove the folder after those).
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.measured import by_result, share, table
from tests.mutation.by_page import Page
from tests.mutation.by_tests import TopicTests, files_of_tests
from tests.mutation.forked import KILLED
from tests.mutation.sites import Mutant, files, mutants_of, topics
from tests.small_site import ROOT

TABLE = ROOT / "docs" / "_mutants.md"
BY_RESULT = ROOT / "docs" / "mutated_functions.json"  # which the ledger reads
# Changes that make no difference, and why.
REASONS = Path(__file__).with_name("without_effect.json")
KEPT = ROOT / "_build" / "mutation"


def key(topic: str) -> str:
    """A name for code, tests and page of a topic as they are."""
    paths = [*files(topic), *files_of_tests(topic), ROOT / f"docs/{topic}.md"]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def try_topic(topic: str, sample: int | None, seed: int, *, again: bool) -> dict[str, object]:
    """Try the mutants of one topic by its tests and by its page.

    If it is done again, what was rejected the last time, in a line that is as it was, is not tried.
    """
    mutants = mutants_of(topic)
    if sample is not None and sample < len(mutants):
        drawn = random.Random(f"{seed} {topic}").sample(range(len(mutants)), sample)
        mutants = [mutants[place] for place in sorted(drawn)]
    names = {path.relative_to(ROOT).as_posix() for path in files(topic)}
    tests = TopicTests(topic, names)
    tests_did, page_did = rejected_before(topic, mutants) if again else (set(), set())
    by_tests = {it: KILLED if it in tests_did else tests.reject(it) for it in mutants}
    # Last: the cells change torch's default dtype, and may switch gradients off.
    page = Page(topic, names)
    counted = [
        it
        for it in mutants
        if it.kind == "formula" and (by_tests[it] == KILLED or not reason(it.name, it.code))
    ]
    by_page = dict(page.reject([it for it in counted if it not in page_did]))
    by_page |= dict.fromkeys(page_did, KILLED)
    return {
        "topic": topic,
        "key": key(topic),
        "all": sample is None or sample >= len(mutants_of(topic)),
        "again": bool(tests_did),
        "mutants": [
            {
                "name": it.name,
                "code": it.code,
                "kind": it.kind,
                "tests": by_tests[it],
                "page": by_page.get(it, "not tried"),
                "results": page.results(it),
            }
            for it in mutants
        ],
    }


def rejected_before(topic: str, mutants: Sequence[Mutant]) -> tuple[set[Mutant], set[Mutant]]:
    """What the tests, and the page, rejected the last time, of lines that are as they were."""
    path = KEPT / f"{topic.replace('/', '.')}.json"
    found = json.loads(path.read_text(encoding="utf-8"))["mutants"] if path.is_file() else []
    before: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for it in found:
        file, _, change = it["name"].split(":", 2)
        before.setdefault((file, it["code"], change.strip()), []).append(it)
    by_tests, by_page = set(), set()
    for mutant in mutants:
        # One line may have several of the same name: they are in the same order, if none is new.
        alike = before.get((mutant.file, mutant.code, mutant.change), [])
        if alike:
            old = alike.pop(0)
            by_tests |= {mutant} if old["tests"] == KILLED else set()
            by_page |= {mutant} if old["page"] == KILLED and mutant.kind == "formula" else set()
    return by_tests, by_page


def kept(topic: str) -> dict[str, Any] | None:
    """What is known of the topic as it is now."""
    path = KEPT / f"{topic.replace('/', '.')}.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found if found["key"] == key(topic) else None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("topics", nargs="*", help="group/name; all if none is given")
    parser.add_argument("--sample", type=int, help="so many mutants of each topic")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--write", action="store_true", help="write the table of the site")
    parser.add_argument(
        "--again", action="store_true", help="not what was rejected the last time, if there was one"
    )
    parser.add_argument(
        "--strict", action="store_true", help="fail if a change that no test rejects has no reason"
    )
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.write and options.topics:
        parser.error("the table is of all topics: leave out --write, or the topics")
    wanted = options.topics or topics()
    if unknown := set(wanted) - set(topics()):
        parser.error(f"no topic: {', '.join(sorted(unknown))}")
    KEPT.mkdir(parents=True, exist_ok=True)
    if options.one:
        (topic,) = wanted
        result = try_topic(topic, options.sample, options.seed, again=options.again)
        path = KEPT / f"{topic.replace('/', '.')}.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        return 0
    return run_all(wanted, options)


def run_all(wanted: list[str], options: argparse.Namespace) -> int:
    """Each topic in a process of its own, several side by side."""
    waiting = [
        topic
        for topic in wanted
        if (known := kept(topic)) is None or not (known["all"] or options.sample)
    ]
    for topic in wanted:
        if topic not in waiting:
            print(summary(topic))
    print(f"{len(wanted) - len(waiting)} topics are known, {len(waiting)} are tried")
    command = [sys.executable, "-m", "tests.mutation", "--one", "--seed", str(options.seed)]
    if options.sample is not None:
        command += ["--sample", str(options.sample)]
    command += ["--again"] if options.again else []
    running: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}
    failed = []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    while waiting or running:
        while waiting and len(running) < options.jobs:
            topic = waiting.pop(0)
            log = KEPT / f"{topic.replace('/', '.')}.log"
            with log.open("wb") as out:
                process = subprocess.Popen(
                    [*command, topic], cwd=ROOT, stdout=out, stderr=out, env=environment
                )
            running[topic] = process, log
        for topic, (process, log) in list(running.items()):
            if process.poll() is not None:
                del running[topic]
                if process.returncode:
                    failed.append(topic)
                    print(f"{topic}: failed, see {log}", flush=True)
                else:
                    print(summary(topic), flush=True)
        time.sleep(0.1)
    if options.write and not failed:
        known = {topic: kept(topic) or {} for topic in wanted}
        TABLE.write_text(as_table(known), encoding="utf-8")
        BY_RESULT.write_text(as_json(known), encoding="utf-8")
        print(f"{TABLE.relative_to(ROOT)} and {BY_RESULT.relative_to(ROOT)} are written")
    alive = [it for topic in wanted if topic not in failed for it in unexplained(kept(topic) or {})]
    return 1 if failed or (options.strict and alive) else 0


def as_table(known: Mapping[str, Mapping[str, Any]], at: str | None = None) -> str:
    """The table of the site: what tests and pages reject, of each topic and of all."""
    rows = [(f"{{doc}}`{topic} <{topic}>`", *_counts(it)) for topic, it in known.items()]
    totals = [sum(column) for column in zip(*(row[1:] for row in rows), strict=True)]
    formulas, by_tests, by_page, others, rejected, same = totals
    of_all = (formulas, _of(by_tests, formulas), _of(by_page, formulas), others)
    rows.insert(0, ("all", *of_all, _of(rejected, others), same))
    drawn = not all(it["all"] for it in known.values())
    words = "A sample of each topic's changes, the same on every machine. " if drawn else ""
    if any(it.get("again") for it in known.values()):
        words += (
            "Of some topics what had been rejected before their tests grew was not tried again. "
        )
    heads = ("Topic", "In a formula", "Tests reject", "Page rejects")
    heads += ("In a default or refusal", "Tests reject", "Without effect")
    return table(heads, rows, words + "By `make mutate WRITE=1`.", at)


def as_json(known: Mapping[str, Mapping[str, Any]]) -> str:
    """Of each result, how many changed formulas its page rejects of those that its checks enter."""
    counts: dict[str, list[int]] = {}
    for it in (mutant for topic in known.values() for mutant in topic["mutants"]):
        if it["kind"] != "formula" or _makes_no_difference(it):
            continue
        for result in it["results"]:
            of_one = counts.setdefault(result, [0, 0])
            of_one[0] += it["page"] == KILLED
            of_one[1] += 1
    return by_result(counts)


def _of(part: int, whole: int) -> str:
    return f"{part}, {share(part, whole)}"


def _counts(known: Mapping[str, Any]) -> list[int]:
    """Changed formulas, rejected by tests and page; other changes, rejected; without effect."""
    rest = [it for it in known["mutants"] if not _makes_no_difference(it)]
    formulas = [it for it in rest if it["kind"] == "formula"]
    others = [it for it in rest if it["kind"] != "formula"]
    return [
        len(formulas),
        _killed(formulas, "tests"),
        _killed(formulas, "page"),
        len(others),
        _killed(others, "tests"),
        len(known["mutants"]) - len(rest),
    ]


def reason(name: str, code: str) -> str:
    """Why a mutant that no test rejects makes no difference, '' if nobody knows it."""
    file, _, change = name.split(":", 2)
    listed: list[dict[str, str]] = json.loads(REASONS.read_text(encoding="utf-8"))
    mine = {"file": file, "code": code, "change": change.strip()}
    return next((it["reason"] for it in listed if mine.items() <= it.items()), "")


def _makes_no_difference(mutant: Mapping[str, Any]) -> bool:
    return mutant["tests"] != KILLED and bool(reason(mutant["name"], mutant["code"]))


def unexplained(known: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What no test of the topic rejects, and nobody knows why."""
    return [it for it in known["mutants"] if it["tests"] != KILLED and not _makes_no_difference(it)]


def _killed(mutants: Sequence[Mapping[str, Any]], by: str) -> int:
    return sum(it[by] == KILLED for it in mutants)


def summary(topic: str) -> str:
    known = kept(topic)
    assert known is not None
    formulas, tests, page, others, rejected, same = _counts(known)
    alive = [f"\n  {it['name']} in {it['code']}" for it in unexplained(known)]
    return (
        f"{topic}: of {formulas} changed formulas the tests reject {tests}, the page {page}; "
        f"of {others} changed defaults and refusals the tests {rejected}; {same} without effect"
        + "".join(alive)
    )


if __name__ == "__main__":
    sys.exit(main())
