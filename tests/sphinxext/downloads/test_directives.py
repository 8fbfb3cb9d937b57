"""What single directives become, without a site around them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from myst_parser.config.main import MdParserConfig

from llmref.sphinxext.downloads.blocks import Code, as_markdown, fenced
from llmref.sphinxext.downloads.directives import page_parts
from llmref.sphinxext.downloads.page import Page
from llmref.sphinxext.downloads.parsing import site_parser


@pytest.fixture
def page(tmp_path: Path) -> Page:
    config = MdParserConfig(enable_extensions={"colon_fence", "dollarmath"})
    settings = SimpleNamespace(llmref_root=str(tmp_path), html_baseurl="https://example.org")
    env: Any = SimpleNamespace(config=settings, domains=SimpleNamespace())
    env.domains.math_domain = SimpleNamespace(equations={})
    builder: Any = SimpleNamespace(get_target_uri=lambda docname: f"{docname}.html")
    document: Any = None
    return Page("rl/kl", env, builder, site_parser(config), document)


def test_a_question_says_its_level_and_its_kind(page: Page) -> None:
    text = ":::{question} Why is $k_3$ good?\n:level: 1\n:kind: explain\nIt is.\n\nReally.\n:::\n"
    assert page_parts(page, text, 1) == [
        "**Question (level 1, explain).** Why is $k_3$ good?\n\nIt is.\n\nReally."
    ]
    assert page_parts(page, ":::{question} Why?\nIt is.\n:::", 1) == [
        "**Question.** Why?\n\nIt is."
    ]


def test_symbols_are_a_table_under_their_name(page: Page) -> None:
    table = "| symbol | meaning |\n|---|---|\n| $a$ | one |"
    assert page_parts(page, f":::{{symbols}}\n{table}\n:::", 1) == [f"**Symbols**\n\n{table}"]


def test_code_by_hand_is_code_that_a_reader_can_run(page: Page) -> None:
    path = page.root / "llmref/practice/by_hand/rl/kl.py"
    path.parent.mkdir(parents=True)
    path.write_text('"""What it is."""\n\nimport torch\n\n\nx = 1\n', encoding="utf-8")
    found = page_parts(page, "Before.\n\n```{by-hand} kl-by-hand\n```\n\nAfter.", 1)
    link = "**[Code by hand](https://example.org/rl/kl.html#kl-by-hand)**"
    assert found == [f"Before.\n\n{link}", Code("import torch\n\nx = 1"), "After."]
    assert as_markdown(found).endswith("```python\nimport torch\n\nx = 1\n```\n\nAfter.")


def test_code_by_hand_without_its_file_is_left_to_the_site_to_refuse(page: Page) -> None:
    assert page_parts(page, "```{by-hand} kl-by-hand\n```", 1) == []


def test_what_stands_in_a_list_or_a_quotation_stays_there(page: Page) -> None:
    text = (
        "- one\n\n  :::{note}\n  Two.\n\n  Three.\n  :::\n- four\n\n> ```{code-block} c\n> x\n> ```"
    )
    assert page_parts(page, text, 1) == [
        "- one\n\n  **Note**\n  \n  Two.\n  \n  Three.\n\n- four\n\n> ```c\n> x\n> ```"
    ]


def test_a_fence_is_longer_than_any_in_the_code() -> None:
    assert fenced("a") == "```\na\n```"
    assert fenced("````\na", "text") == "`````text\n````\na\n`````"
