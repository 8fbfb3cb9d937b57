"""The form of a topic's page: a good one builds, and whatever it lacks stops the build, with line.

The small site has a page of a real topic, whose code by hand is the package's own.
"""

import html
import json
import pickle
import re
import textwrap
from collections.abc import Callable

import nbformat
import pytest

from llmref.practice.exercises import exercises
from llmref.sphinxext.api.public import groups, topics
from tests.small_site import ROOT, Built, Site

KL = """
    # KL penalties (k1, k2, k3)

    A trainer sees samples only.

    One of three estimates takes the place of the divergence, as in {doc}`/other`.

    $$
    k_1 = -r
    $$ (eq-kl-one)

    ```{status}
    ```

    :::{symbols}
    | symbol | meaning | in code |
    |---|---|---|
    | $r$ | the log-ratio | `r` |
    :::

    ## By hand

    ```{by-hand} kl-by-hand
    ```

    $O(NT)$ time.

    ```{code-cell} python
    import torch
    from llmref import verify
    from llmref.practice.by_hand.rl.kl import kl_estimates, kl_in_loss, kl_in_reward
    from llmref.rl import kl

    p = torch.tensor([[-1.0, -2.0]]).double()
    q, m = p - 1, p < 0
    options = dict(kind="k3", ratio="attached", ratio_scope="token", agg="seq-mean-token-sum")
    verify.by_hand(
        "kl-by-hand", kl_estimates,
        lambda p, q: [kl.kl_estimate(p, q, k) for k in ("k1", "k2", "k3")], [(p, q)],
        wrong={"turned": lambda p, q: kl_estimates(q, p)}, note="two tokens",
    )
    ```

    ```{code-cell} python
    verify.by_hand(
        "kl-by-hand", kl_in_loss,
        lambda p, q, o, m: kl.kl_loss(p, q, m, old_logp=o, **options), [(p, q, p - 0.5, m)],
        wrong={"no ratio": lambda p, q, o, m: kl_estimates(p, q)[2].sum()},
        note="two tokens off-policy",
    )
    ```

    ```{code-cell} python
    verify.by_hand(
        "kl-by-hand", kl_in_reward, kl.kl_reward, [(p, q, m)],
        wrong={"turned": lambda p, q, m: -kl_in_reward(p, q, m)}, note="two tokens",
    )
    ```

    ## Run it

    Numbers.

    ## Picture

    A picture.

    ## Derivation

    By {prf:ref}`the code by hand <kl-by-hand>`.

    ## In the library

    ```{source} llmref.rl.kl.kl_reward
    ```

    ## In practice

    Libraries.

    ## Common mistakes

    * **The ratio detached**: see {eq}`eq-kl-one` and {doc}`../other`.
    * Another.

    ## Interview

    :::{question} Why is $k_3$ not negative?
    :level: 1
    :kind: explain
    It is a gap: {eq}`eq-kl-one`, {doc}`../other`.
    :::

    :::{question} Find it.
    :level: 3
    :kind: find the mistake
    There.
    :::

    ## Practise

    ```{practise}
    ```

    ## References

    None.
"""
OLD = """
    # An old page

    What it says.

    $$x$$ (eq-old)

    ## Symbols

    None.

    ## Common mistakes

    * Old trap.

    ## Interview

    :::{dropdown} An old question?
    Its answer.
    :::
"""
INDEX = "# Small\n\n```{toctree}\nrl/ppo\nrl/kl\nother\nasked\npractice\nsheet\n```\n"
ASKED = "# Questions\n\n```{question-filter}\n```\n\n## RL\n\n```{interview} rl\n```\n"
PRACTICE = "# Practise\n\nHow it works.\n"
SHEET = "# Sheet\n\n```{cheat-sheet} rl\n```\n"


def fill(site: Site, page: str = KL) -> Site:
    site.configure('extensions.insert(1, "sphinx_design")')
    site.configure('llmref_first_edition = ("rl/ppo",)')
    site.write("index.md", INDEX)
    site.write("rl/kl.md", page, executed=True)
    site.write("rl/ppo.md", OLD)
    site.write("other.md", "# Other\n\n```{ledger}\n```\n")
    site.write("asked.md", ASKED)
    site.write("practice.md", PRACTICE)
    site.write("sheet.md", SHEET)
    return site


@pytest.fixture(scope="module")
def good(module_site: Callable[[], Site]) -> Built:
    built = fill(module_site()).build()
    assert (built.code, built.warnings) == (0, "")
    return built


def test_the_code_by_hand_is_the_file_without_its_docstring(good: Built) -> None:
    page = good.page("rl/kl")
    listing = page.split('class="by-hand" id="kl-by-hand"')[1].split("</pre>")[0]
    assert "kl_estimates" in listing
    assert "torch" in listing
    assert "log-probabilities of sampled tokens" not in listing
    assert "3 checks" in page.split('id="checks-kl-by-hand"')[1].split("</summary>")[0]


def test_code_by_hand_is_cited_but_is_no_result(good: Built) -> None:
    page = good.page("rl/kl")
    assert 'href="#kl-by-hand"' in page
    assert "0 results, 3 checks executed" in page
    assert "kl-by-hand" in good.page("other")


def test_symbols_docstring_and_source_are_folded(good: Built) -> None:
    page = good.page("rl/kl")
    assert '<details class="symbols fold" id="symbols">' in page
    library = page.split('id="in-the-library"')[1].split("</section>")[0]
    docstring, code = library.split("Source, ")
    assert "Stiennon" in docstring
    assert "Stiennon" not in code
    assert docstring.count("<details") == 2
    assert "<details open" not in library


def test_a_question_shows_level_and_kind_and_folds_its_answer(good: Built) -> None:
    page = good.page("rl/kl")
    question = page.split('<details class="question" id="question-find-it">')[1]
    assert "level 3, find the mistake" in question.split("</summary>")[0]
    assert "There." in question.split("</details>")[0]


def test_the_interview_page_has_all_questions_in_the_order_of_the_contents(good: Built) -> None:
    page = good.page("asked")
    places = [page.index(text) for text in ("An old question?", "not negative?", "Find it.")]
    assert places == sorted(places)
    assert "level-1 kind-explain" in page
    assert "level-3 kind-find_the_mistake" in page
    assert "An old page" in page


def test_links_in_what_is_collected_lead_where_they_led(good: Built) -> None:
    asked, sheet = good.page("asked"), good.page("sheet")
    assert 'href="rl/kl.html#equation-eq-kl-one"' in asked
    assert 'href="other.html"' in asked.split("not negative?")[1]
    assert 'href="other.html"' in sheet.split("estimates takes the place")[1]


def test_what_is_collected_does_not_hold_the_page_it_came_from(good: Built) -> None:
    """Each build loads it all: with the pages it was six times as much."""
    pickled = (good.html / ".doctrees" / "environment.pickle").read_bytes()
    topics = pickle.loads(pickled).domaindata["topic"]["topics"]
    parts = [part for topic in topics.values() for part in topic.parts()]
    assert len(parts) > 5
    assert {node._document for part in parts for node in part.findall()} == {None}


def test_the_cheat_sheet_has_reason_formula_code_and_trap(good: Built) -> None:
    page = good.page("sheet")
    old, new = page.split('class="sheet')[1:3]
    assert "What it says." in old
    assert "Old trap." in old
    assert "One of three estimates" in new
    assert "katex-display" in new
    assert "kl_estimates" in new
    assert "Trap: " in new
    assert "Another." not in new
    assert "sees samples only" not in new
    assert 'id="equation-eq-kl-one"' not in page


def test_a_trap_that_begins_with_code_leaves_the_code_as_it_is(site: Site) -> None:
    trap = "* ```python\n      x = 1\n      ```\n\n      **The ratio"
    built = fill(site, KL.replace("* **The ratio", trap)).build()
    assert (built.code, built.warnings) == (0, "")
    shown = built.page("sheet").split("Trap: ")[2]
    assert shown.index("</p>") < shown.index("<pre")
    assert "The ratio" in shown


WITHOUT = [
    ("## Picture", "## Pictures", "a topic's page has no section 'Pictures'"),
    ("## Picture", "## Pictures", "the section 'Picture' is missing"),
    ("## Run it", "## Derivation", "the section 'Run it' is missing"),
    ("## Picture", "## Run it", "the section 'Run it' is there twice"),
    ("## Run it", ":::{symbols}\n    :::", "this page has a place named 'symbols' already"),
    ("```{status}\n    ```", "", "the status is missing above the sections"),
    ("$$\n    k_1 = -r\n    $$ (eq-kl-one)", "", "the formula is missing above the sections"),
    ("| the log-ratio |", "| $b > 1$ |", "the symbol r needs a meaning in words"),
    ("| meaning |", "| name |", "the table of symbols needs a column 'meaning'"),
    ("| $r$ | the log-ratio | `r` |\n", "", "the table of symbols has no rows"),
    (
        "* **The ratio detached**: see {eq}`eq-kl-one` and {doc}`../other`.\n    * Another.",
        "None.",
        "a list of mistakes is missing in the section 'Common mistakes'",
    ),
    (":::{symbols}", ":::{container}", "the symbols are missing above the sections"),
    (
        "```{by-hand} kl-by-hand\n    ```",
        "",
        "the code by hand is missing in the section 'By hand'",
    ),
    ("```{by-hand} kl-by-hand", "```{by-hand} kl-mine", "this page's code by hand is kl-by-hand"),
    (":level: 1\n", "", "a question needs a :level: of 1, 2, 3, got ''"),
    (":level: 3", ":level: 4", "a question needs a :level: of 1, 2, 3, got '4'"),
    (":kind: explain\n", "", "a question needs a :kind: of explain, derive, code"),
    ("    There.\n", "", "a question needs its answer"),
]


# A real topic for each, since only the page of a topic must have a form; one that has exercises.
TOPICS = [
    f"{group}/{name}"
    for group in groups(ROOT)
    for name in topics(group, ROOT)
    if (ROOT / "llmref" / "practice" / "exercises" / group / f"{name}.py").is_file()
]


@pytest.fixture(scope="module")
def lacking(module_site: Callable[[], Site]) -> Built:
    """A page for each part that may be missing, with what is else good on the page on KL."""
    site = module_site()
    site.configure('extensions.insert(1, "sphinx_design")')
    site.configure("llmref_preload = ('torch', 'sympy')")
    for (old, new, _), topic in zip(WITHOUT, TOPICS, strict=False):
        assert old in KL
        page = KL.replace(old, new, 1).replace("{by-hand} kl-by-hand", f"{{by-hand}} {own(topic)}")
        site.write(f"{topic}.md", page, executed=True)
    site.write("index.md", "# Small\n\n```{toctree}\n:glob:\n\n*/*\nother\n```\n")
    site.write("other.md", "# Other\n")
    built = site.build()
    assert built.code != 0
    return built


def own(topic: str) -> str:
    return topic.partition("/")[2].replace("_", "-") + "-by-hand"


@pytest.mark.parametrize("number", range(len(WITHOUT)), ids=[message for *_, message in WITHOUT])
def test_a_page_that_lacks_a_part_stops_the_build(lacking: Built, number: int) -> None:
    topic, message = TOPICS[number], WITHOUT[number][2].replace("kl-by-hand", own(TOPICS[number]))
    reported = [line for line in lacking.warnings.splitlines() if message in line]
    assert any(f"{topic}.md:" in line for line in reported), lacking.warnings


def test_sections_out_of_order_stop_the_build(site: Site) -> None:
    turned = KL.replace("## Run it", "## X").replace("## Picture", "## Run it")
    built = fill(site, turned.replace("## X", "## Picture")).build()
    assert built.code != 0
    assert "the section 'Picture' is out of order: 'Run it' comes here" in built.warnings


def test_a_function_by_hand_that_no_check_confirms_stops_the_build(site: Site) -> None:
    start = KL.index(
        '    ```{code-cell} python\n    verify.by_hand(\n        "kl-by-hand", kl_in_r'
    )
    built = fill(site, KL[:start] + KL[KL.index("    ## Run it") :]).build()
    assert built.code != 0
    name = "llmref.practice.by_hand.rl.kl.kl_in_reward"
    assert f"no verify.by_hand confirms {name}" in built.warnings


def test_code_by_hand_that_differs_from_the_library_stops_the_build(site: Site) -> None:
    """The library is asked for k1 twice, so k2 by hand differs."""
    built = fill(site, KL.replace('("k1", "k2", "k3")', '("k1", "k1", "k3")')).build()
    line = site.line("rl/kl.md", "import torch")
    assert built.code != 0
    assert "CheckFailedError: kl-by-hand" in built.warnings
    assert any(f"kl.md:{line + n}: " in built.warnings for n in range(-2, 3))


def test_a_function_of_a_cell_is_no_code_by_hand(site: Site) -> None:
    """A notebook may check it; a page would show one function and confirm another."""
    own = KL.replace("    options =", "    def own(p, q): return kl_estimates(p, q)\n    options =")
    built = fill(site, own.replace('"kl-by-hand", kl_estimates,', '"kl-by-hand", own,')).build()
    assert built.code != 0
    assert "this check is of no code by hand that a page shows: __main__.own" in built.warnings
    assert "no verify.by_hand confirms llmref.practice.by_hand.rl.kl.kl_est" in built.warnings


def test_the_notebook_checks_what_the_reader_wrote(good: Built) -> None:
    cells = json.loads((good.html / "rl/kl.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert "def kl_estimates(" in code[1]
    assert not any("llmref.practice" in source for source in code)


def test_exercises_are_listed_with_signature_level_and_task(good: Built) -> None:
    section = good.page("rl/kl").partition('id="practise"')[2].partition("</section>")[0]
    asked = exercises()["kl_estimates"]
    assert 'kl_estimates(logp,</span> <span class="pre">ref_logp)' in section
    assert f"level {asked.level}" in section
    assert html.escape(asked.task, quote=False) in section
    assert 'href="kl-practice.ipynb"' in section
    assert 'href="../practice.html"' in section
    assert "To write by hand, with a judge" in good.page("asked")
    assert "llmref practice start kl_estimates" in (good.html / "rl/kl.md").read_text("utf-8")


def test_the_practice_notebook_has_a_blank_and_a_judge_for_each_exercise(good: Built) -> None:
    notebook = nbformat.read(good.html / "rl/kl-practice.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert "pip install" in code[0]
    assert "def kl_estimates(logp, ref_logp):\n    raise NotImplementedError" in code[1]
    assert code[2] == 'judge("kl_estimates", kl_estimates)'
    solution = exercises()["kl_estimates"].source.splitlines()[-1].strip()
    assert not any(solution in source for source in code)


def test_exercises_that_a_page_does_not_show_stop_the_build(site: Site) -> None:
    built = fill(site, KL.replace("    ```{practise}\n    ```\n", "    None.\n")).build()
    assert "kl.md:7: WARNING: the exercises are not shown" in built.warnings


def test_a_page_without_exercises_is_told_where_they_belong(site: Site) -> None:
    fill(site)
    site.write("other.md", "# Other\n\n```{practise}\n```\n")
    assert (
        "other.md:3: ERROR: the exercises of this page belong into "
        "llmref/practice/exercises/other.py"
    ) in site.build().warnings


def test_a_build_whose_practice_notebook_is_lost_is_refused(site: Site) -> None:
    fill(site)
    assert site.build().code == 0
    (site.root / "_build/html" / "rl/kl-practice.ipynb").unlink()
    built = site.build()
    assert "not there, or not whole: rl/kl-practice.ipynb" in built.warnings + built.status


def test_a_page_without_its_file_by_hand_is_told_where_it_belongs(site: Site) -> None:
    fill(site)
    site.write("rl/unwritten.md", KL.replace("kl-by-hand", "unwritten-by-hand"), executed=True)
    built = site.build()
    assert "belongs into llmref/practice/by_hand/rl/unwritten.py" in built.warnings


def test_code_by_hand_that_does_not_parse_is_named_with_its_line(site: Site) -> None:
    site.use_own_package()
    site.write(
        "package/llmref/practice/by_hand/rl/kl.py", "def right():\n    pass\n\ndef wrong(:\n"
    )
    site.write("index.md", "# A\n\n```{toctree}\nrl/kl\n```\n")
    site.write("rl/kl.md", "# B\n\n```{by-hand} kl-by-hand\n```\n")
    built = site.build()
    assert built.code != 0
    assert "kl.md:3: ERROR: llmref/practice/by_hand/rl/kl.py, line 4: invalid" in built.warnings


def test_code_by_hand_that_is_published_is_read_once(site: Site) -> None:
    site.write("ids.txt", "kl-by-hand 0.1.0\nkl-whiteboard 0.1.0 -> kl-by-hand\n")
    site.configure(f"llmref_result_ids = {str(site.root / 'ids.txt')!r}")
    built = fill(site).build()
    assert (built.code, built.warnings) == (0, "")
    assert 'id="kl-whiteboard"' in built.page("rl/kl")  # the links to its former id
    assert "0 added, 0 changed, 0 removed" in site.build().status


def test_collected_pages_are_written_again_when_a_question_changes(site: Site) -> None:
    fill(site)
    site.write("rl/ppo.md", OLD)
    assert site.build().code == 0
    site.write(
        "rl/ppo.md", OLD.replace("Its answer.", "Another answer.").replace("Old trap", "New trap")
    )
    built = site.build()
    assert built.code == 0
    assert "Another answer." in built.page("asked")
    assert "New trap" in built.page("sheet")


FIRST = ":::{question} Find it."
ANSWER = """\
:::::{question} What is it made of?
:level: 2
:kind: explain
1. ![a dot](dot.svg)
2. [above](#by-hand), [there](../other.md), {doc}`../other`, {eq}`eq-kl-one`, a note[^n].

> quoted

```{note}
A remark.
```

![another dot](dot.svg)

(a-place)=
It is {ref}`here <a-place>`.

$$
a = b
$$ (eq-answer)
:::::

[^n]: The note.

"""


def with_answer(site: Site) -> Site:
    """The good site, with a question whose answer has all sorts of parts."""
    page = textwrap.dedent(KL)
    fill(site, page.replace(FIRST, ANSWER + FIRST))
    site.configure("myst_heading_anchors = 3")
    site.write("rl/dot.svg", '<svg xmlns="http://www.w3.org/2000/svg" width="3" height="3"></svg>')
    return site


@pytest.fixture(scope="module")
def rich(module_site: Callable[[], Site]) -> Built:
    built = with_answer(module_site()).build()
    assert (built.code, built.warnings) == (0, "")
    return built


def test_an_answer_may_have_pictures_lists_notes_and_links(rich: Built) -> None:
    answer = rich.page("asked").split("made of?")[1].split("</details>")[0]
    assert answer.count('src="_images/dot.svg"') == 2
    assert answer.count('href="other.html"') == 2
    for target in ("by-hand", "n", "a-place", "equation-eq-kl-one"):
        assert f'href="rl/kl.html#{target}"' in answer
    assert 'href="#' not in answer
    assert 'id="equation-eq-answer"' not in answer


def test_an_answer_is_written_as_markdown(rich: Built) -> None:
    text = (rich.html / "asked.md").read_text(encoding="utf-8")
    answer = text.split("**Question (level 2, explain).** What is it made of?\n\n")[1]
    answer = answer.split("**Question")[0]
    for part in (
        "1. ![a dot](_images/dot.svg)\n",
        "2. [above](rl/kl.html#by-hand), [there](other.html), [Other](other.html), "
        "[(1)](rl/kl.html#equation-eq-kl-one), a note[\\[1]](rl/kl.html#n).\n",
        "> quoted\n",
        "**Note**\n\nA remark.\n",
        "$$\na = b\n$$",
    ):
        assert part in answer


def test_two_questions_that_begin_alike_have_two_places(site: Site) -> None:
    """An id has the first 60 letters of a question; the third question is the first one again."""
    long = "Why " + "so " * 30
    asked = [
        f":::{{question}} {t}?\n:level: 1\n:kind: derive\nX\n:::\n\n"
        for t in (long, f"{long}x", long)
    ]
    fill(site, textwrap.dedent(KL).replace(FIRST, "".join(asked) + FIRST))
    built = site.build()
    assert (built.code, built.warnings) == (0, "")
    ids = re.findall(r'id="(question-why-so[^"]*)"', built.page("rl/kl"))
    assert len(ids) == len(set(ids)) == 3
    assert ids[2] == f"{ids[0]}-3"


def test_a_question_in_any_section_is_collected(site: Site) -> None:
    question = ":::{question} Elsewhere?\n:level: 1\n:kind: code\nYes.\n:::\n\n"
    page = textwrap.dedent(KL).replace("## References", f"### Harder\n\n{question}## References")
    built = fill(site, page).build()
    assert (built.code, built.warnings) == (0, "")
    assert "Elsewhere?" in built.page("asked")


def test_a_group_without_topics_is_a_warning(site: Site) -> None:
    fill(site)
    site.write("asked.md", ASKED.replace("{interview} rl", "{interview} lr"))
    built = site.build()
    assert built.code != 0
    assert "asked.md: WARNING: there are no topics in 'lr'" in built.warnings


def test_a_picture_of_another_size_is_shown_in_that_size(site: Site) -> None:
    with_answer(site)
    assert site.build().code == 0
    picture = site.root / "rl" / "dot.svg"
    picture.write_text(picture.read_text(encoding="utf-8").replace('"3"', '"9"'), encoding="utf-8")
    built = site.build()
    assert built.code == 0
    assert built.page("asked").count('height="9"') == 2
