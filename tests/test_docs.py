"""Pages that list what the code has: they list all of it, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from autoprune.searchers import SEARCHERS, searcher_options

DOCS = Path(__file__).parents[1] / "docs"


def rows(page: str) -> dict[str, set[str]]:
    """The rows of the table of searchers: each one's options."""
    section = (DOCS / page).read_text(encoding="utf-8").partition("## All of them")[2].partition("\n## ")[0]
    cells = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {name.strip(" `"): set(re.findall(r"`(\w+)`", options)) for name, _, options in cells}


def test_the_page_of_searchers_lists_all_of_them():
    assert list(rows("searchers.md")) == list(SEARCHERS)


@pytest.mark.parametrize("name", SEARCHERS)
def test_the_page_of_searchers_lists_their_options(name):
    assert rows("searchers.md")[name] == set(searcher_options(name))


@pytest.mark.parametrize("name", SEARCHERS)
def test_every_searcher_is_a_method_with_a_source_or_our_own(name):
    assert f"`{name}`" in (DOCS / "methods.md").read_text(encoding="utf-8")


def test_the_page_of_methods_lists_all_presets():
    section = (DOCS / "methods.md").read_text(encoding="utf-8").partition("| presets |")[2].partition("\n## ")[0]
    presets = [path.stem for path in (DOCS.parent / "configs" / "presets").glob("*.yaml")]
    assert sorted(re.findall(r"`(\w+)`", section)) == sorted(presets)


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda path: path.stem)
def test_links_between_pages_lead_somewhere(page):
    """To files that exist, and to headings that are there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert heading in {re.sub(r"[^\w\s-]", "", title).lower().replace(" ", "-") for title in titles}, target
