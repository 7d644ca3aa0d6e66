"""Pages that list what the code has: they list all of it, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import autoprune
from autoprune.searchers import SEARCHERS, searcher_options

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md"))]


def rows(page: str) -> dict[str, set[str]]:
    """The rows of the table of searchers: each one's options."""
    section = (DOCS / page).read_text(encoding="utf-8").partition("## All searchers")[2].partition("\n## ")[0]
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


def test_the_reference_has_every_public_name_once():
    listed = re.findall(r"^::: autoprune\.(\w+)$", (DOCS / "reference.md").read_text(encoding="utf-8"), re.MULTILINE)
    public = {*autoprune.__all__} - {
        "__version__",
        "AutopruneError",
    }  # the errors are listed as a module, as is testing
    assert sorted(listed) == sorted({*public, "errors", "testing"})


def test_a_commit_and_a_pull_request_run_the_checkers_that_everything_runs():
    everything = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    checkers = everything[everything.index("ruff check .") : everything.index("mypy") + 1]
    assert [hook["entry"] for hook in hooks] == [line.removesuffix(" .").removesuffix(" --check") for line in checkers]
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    assert [jobs[name]["steps"][-1]["run"] for name in ("fast", "all")] == ["bash .ci/run fast", "bash .ci/run"]
    lane, *rest = everything[everything.index("pytest -n 2") + 1 :]
    assert lane.endswith("= fast ]; then exit; fi")
    assert all(re.search(r"-m .*(slow|faults|ray)", line) for line in rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
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
