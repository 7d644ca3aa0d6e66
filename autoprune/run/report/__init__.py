"""The report of a run: one HTML file that needs nothing else, with its charts drawn by hand as inline SVG.

facts.py knows what the folder says, chart.py draws, markup.py writes text and tables, figures.py, coupling.py and
page.py are the sections. The file holds no date, no duration and nothing else by which two equal runs would differ.
"""

from __future__ import annotations

from pathlib import Path

from autoprune.run.records.folder import RunFolder, write_text
from autoprune.run.report.facts import read_facts
from autoprune.run.report.page import page


def write_report(folder: Path) -> Path:
    """Writes report.html of a run from what its folder holds, and returns its path.

    Raises RunNotFound for a folder without a run, a run without a front yet, or a folder that misses a file.
    """
    path = RunFolder(folder).report
    text = page(read_facts(folder))
    write_text(path, text.encode("ascii", "xmlcharrefreplace").decode())  # ASCII reads the same in every encoding
    return path
