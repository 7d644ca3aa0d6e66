"""Makes links that lead out of docs/ work in the site as they do on a git host: a hook of mkdocs.

Pages outside docs/ (README.md, CONTRIBUTING.md, ...) become pages of the site. Every other file that a page links to is
copied into the site under the path that it has in the repository.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {  # paths in the repository, and in the site
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
    "benchmarks/README.md": "benchmarks.md",
}
LINK = re.compile(
    r"```.*?```|`[^`\n]*`|(?<=\]\()(?![a-z]+:|#)([^)\s#]+)", re.DOTALL
)  # its group: a relative link's path


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages outside docs/, and the files that pages link to."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for file in list(files.documentation_pages()):
        for target in _targets(file):
            if _in_site(target) is None and files.get_file_from_path(target) is None:
                files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links as they are to be in the site."""
    folder = posixpath.dirname(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        if match[1] is None:  # code
            return match[0]
        target = _target(page.file, match[1])
        return posixpath.relpath(_in_site(target) or target, folder or ".")

    return LINK.sub(moved, markdown)


def _targets(file: File) -> Iterator[str]:
    for match in LINK.finditer(file.content_string):
        if match[1] is not None:
            yield _target(file, match[1])


def _target(file: File, link: str) -> str:
    """The path in the repository of what a page links to; a folder stands for its README.md."""
    source = Path(file.abs_src_path or "")
    target = Path(os.path.normpath(source.parent / link))
    target = target / "README.md" if target.is_dir() else target
    if not target.is_file():
        raise PluginError(f"{source.relative_to(ROOT)}: expected a file at {link!r}, found none. Mend the link.")
    return target.relative_to(ROOT).as_posix()


def _in_site(target: str) -> str | None:
    """Where a page of the repository is in the site; None for a file that is no page."""
    return PAGES.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
