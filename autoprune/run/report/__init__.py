"""The report of a run: one self-contained HTML file with charts as inline SVG.

facts.py reads the run folder, chart.py draws, markup.py writes text and tables, figures.py, coupling.py and page.py are
the sections. The file has no dates or durations, so that equal runs give equal files.
"""

from __future__ import annotations

from pathlib import Path

from autoprune.run.records.folder import RunFolder, write_text
from autoprune.run.report.facts import read_facts
from autoprune.run.report.page import page


def write_report(folder: Path) -> Path:
    """Writes report.html from the files of a run folder, and returns its path.

    Raises:
        RunNotFound: the folder has no run, the run has no front yet, or a file is missing.
    """
    path = RunFolder(folder).report
    text = page(read_facts(folder))
    write_text(path, text.encode("ascii", "xmlcharrefreplace").decode())  # ASCII reads the same in every encoding
    return path
