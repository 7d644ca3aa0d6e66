"""What can be told of a request to a finished run before anything heavy is loaded: neither torch nor the model."""

from __future__ import annotations

from pathlib import Path

from autoprune.core.objective import Bound
from autoprune.errors import ConfigError, RunNotFound, did_you_mean
from autoprune.run.folder import RunFolder, check_new
from autoprune.run.front_file import Shown, show_front
from autoprune.run.journal import read_journal


def check_export(path: Path, pick: str, out: Path) -> Shown:
    """The row that an export would build, with why. Raises for a pick of nothing and for a folder that is taken."""
    found = show_front(path, pick)
    check_new(out, "the export")
    return found


def check_solve(path: Path, budget: str, out: Path | None) -> None:
    """Raises ConfigError for what is no budget on a cost of the run, RunExists for a folder that is taken."""
    bound = Bound.parse(budget)
    records = read_journal(RunFolder.open(path).journal)
    if not records:
        raise RunNotFound(f"{path} was stopped before it measured anything. Go on with: autoprune resume {path}")
    costs = sorted(records[0]["dense"])
    if bound.name not in costs or bound.sense != "<=":
        raise ConfigError(
            f"expected a budget on one of {costs}, as in macs=0.4, got {budget!r}{did_you_mean(bound.name, costs)}"
        )
    if out is not None:
        check_new(out, "the export")
