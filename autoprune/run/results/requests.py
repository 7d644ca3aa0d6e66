"""Checks requests to a finished run before torch or the model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autoprune.core.objective import Bound
from autoprune.errors import ConfigError, RunNotFound, did_you_mean
from autoprune.run.records.documents import understanding
from autoprune.run.records.folder import RunFolder, check_new
from autoprune.run.records.journal import read_run
from autoprune.run.results.exporter import DEFAULT, Format, check_format
from autoprune.run.results.front_file import Shown, show_front


def check_export(path: Path, pick: str, out: Path, format: Format = DEFAULT) -> Shown:
    """The member that an export would build, with the reason. Raises an error if the pick finds no member, the folder
    is taken or the format is unknown.
    """
    if isinstance(format, str):
        check_format(format)
    found = show_front(path, pick)
    check_new(out, "the export")
    return found


def check_solve(path: Path, budget: str, out: Path | None) -> None:
    """Raises ConfigError if the text is not a budget on costs of the run, RunExists if the folder is taken."""
    folder = RunFolder.open(path)
    records = read_run(folder.journal)
    if not records:
        raise RunNotFound(f"{path} was stopped before it measured anything. Go on with: autoprune resume {path}")
    with understanding(folder.journal):
        dense = dict(records[0]["dense"])
    budgets_of(budget, dense)
    if out is not None:
        check_new(out, "the export")


def budgets_of(text: str, dense: Mapping[str, float]) -> list[Bound]:
    """Parses one or several budgets such as "macs=0.4,params=1e5", all of which must hold.

    `dense` are the costs of the dense network: a value up to 1 is a share of them. ConfigError for anything except
    upper bounds on costs.
    """
    bounds = [Bound.parse(part).absolute(dense) for part in text.split(",")]
    for bound in bounds:
        if bound.name not in dense or bound.sense != "<=":
            known = sorted(dense)
            raise ConfigError(
                f"expected a budget on one of {known}, as in macs=0.4 or macs=0.4,params=0.5, got {text!r}"
                f"{did_you_mean(bound.name, known)}"
            )
    return bounds
