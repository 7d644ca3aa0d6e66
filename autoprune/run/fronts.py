"""The final front: its members built as they will be exported, proved, and measured on the report set."""

from __future__ import annotations

import csv
import io
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from autoprune.core.evaluation import Evaluation
from autoprune.core.front import Front
from autoprune.core.interval import wilson
from autoprune.core.objective import Objective
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError, RunNotFound, VerifyError
from autoprune.measure.fitness import averages
from autoprune.prune.copying import named_tensors
from autoprune.prune.surgery import make_recipe
from autoprune.prune.verify import verify_positions
from autoprune.run.deployed import deployed
from autoprune.run.export import write_export
from autoprune.run.folder import RunFolder, write_json, write_text
from autoprune.run.job import Progress
from autoprune.run.session import Session

_log = logging.getLogger(__name__)

Row = dict[str, Any]
SELECT = "select_"  # prefix of values measured on the selection set, of the network as built
LOW, HIGH = "_low", "_high"  # suffixes of the ends of an interval
STITCHED = "search_"  # prefix of values measured on the selection set while searching, before compensation


@dataclass(frozen=True)
class Built:
    """A network as it is deployed, with what is known about it."""

    network: nn.Module
    row: Row


def build_member(session: Session, evaluation: Evaluation) -> Built:
    """The network of an evaluation, compared with its masked original and measured on the report set.

    "fit" in its row says what fitting it did (prune.compensate.Compensation); empty where it is as stitched.
    Raises VerifyError when the two compute different things.
    """
    candidate = evaluation.candidate
    network, steps, fit = deployed(session, candidate)
    counts = session.space.counts(candidate)
    positions = session.bank.positions(counts)
    report = verify_positions(
        session.model, network, session.structure, positions, session.example, named_tensors(network)
    )
    if not report.ok:
        raise VerifyError(
            f"network {_label(counts)}: expected pruned and masked outputs to agree to {report.tolerance:.2g}, as the "
            f"precision of this network allows, they differ by {report.worst:.2g} relative{report.parted}. The network "
            "is left out. Keep the units named whole (`rules` with `min_keep: 1.0`) to search the rest, and report it "
            "with the model, as this may be a defect of autoprune."
        )
    measured = session.scorer.measure(network, session.reported)
    selected = {SELECT: {**evaluation.values, **session.selected(network)}, STITCHED: evaluation.values}
    row = _row(session, candidate, measured, selected, report.worst) | {"fit": {} if fit is None else asdict(fit)}
    return Built(network, {**row, "finetune_steps": steps} if session.job.finetune else row)


def finish(session: Session, evaluations: Sequence[Evaluation], folder: RunFolder | None) -> list[Row]:
    """Builds and measures the front of a search and writes front.csv and front.json.

    What was on the front by the scores of the search is built; what is not on it as built, outside the bounds of
    measured objectives, or does not compute what its masked original computes, is left out.
    """
    scored = [e for e in evaluations if e.ok]
    front = Front.of(scored, session.problem.objectives, session.dense_costs)
    members = front.thinned(session.job.front_size).members
    built: list[Row] = []
    note = ""
    for index, evaluation in enumerate(members):
        session.progress(Progress("front", index, len(members), note))
        start = time.perf_counter()
        try:
            built.append(build_member(session, evaluation).row)
            note = f"{_gain(built[-1], session)} in {time.perf_counter() - start:.1f} s"
        except VerifyError as error:  # the others are none the worse for it
            _log.error("left out of the front: %s", error)
    if members and not built:
        raise VerifyError("no network of the front computes what its masked original computes; the log says which")
    session.progress(Progress("front", len(members), len(members), note))
    rows = _undominated(session, built)
    if folder is not None:
        write_text(folder.front_csv, to_csv(rows))
        write_json(folder.front_json, document_of(session, rows))
    return rows


def _undominated(session: Session, rows: Sequence[Row]) -> list[Row]:
    """The rows within all bounds that no other one betters in all objectives, on the selection set."""
    as_built = [Evaluation(Candidate(tuple(row["levels"])), _values_as_built(session, row)) for row in rows]
    admitted = [evaluation for evaluation in as_built if session.admits(evaluation)]
    kept = {e.candidate.levels for e in Front.of(admitted, session.problem.objectives, session.dense_costs).members}
    return [row for row in rows if tuple(row["levels"]) in kept]


def _values_as_built(session: Session, row: Row) -> dict[str, float]:
    """Costs, and what was measured on the selection set."""
    measured = {name.removeprefix(SELECT): value for name, value in row.items() if name.startswith(SELECT)}
    return {**measured, **{name: row[name] for name in session.dense_costs}}


def _gain(row: Row, session: Session) -> str:
    """What building did to the first measured objective: "kl 0.64 -> 0.21"."""
    name = next((o.name for o in session.problem.objectives if STITCHED + o.name in row), None)
    return "built" if name is None else f"{name} {row[STITCHED + name]:.4g} -> {row[SELECT + name]:.4g}"


def document_of(session: Session, rows: Sequence[Row]) -> dict[str, Any]:
    """What front.json holds: the rows, the dense costs, and the objectives by the names they have in the rows."""
    costs = session.dense_costs
    objectives = [[o.name if o.name in costs else SELECT + o.name, o.direction] for o in session.problem.objectives]
    return {"objectives": objectives, "dense": costs, "rows": list(rows)}


def pick_row(document: Mapping[str, Any], text: str) -> Row:
    """The row of a front.json document that `Front.pick` takes: bounds on any column, "macs<=0.5" as a share."""
    objectives = tuple(Objective(name, direction) for name, direction in document["objectives"])
    rows = {tuple(row["levels"]): row for row in document["rows"]}
    members = tuple(Evaluation(Candidate(levels), _numbers(row)) for levels, row in rows.items())
    picked: Row = rows[Front(members, objectives, document["dense"]).pick(text).candidate.levels]
    return picked


def read_document(folder: RunFolder) -> dict[str, Any]:
    """The document of front.json. RunNotFound while the run has no front yet."""
    if not folder.front_json.is_file():
        raise RunNotFound(f"{folder.path} has no front yet. Finish it with: autoprune resume {folder.path}")
    document: dict[str, Any] = json.loads(folder.front_json.read_text())
    return document


def to_csv(rows: Sequence[Row]) -> str:
    """One line a network; lists and mappings stay in front.json."""
    flat = [flat_row(row) for row in rows]
    names = list(flat[0]) if flat else ["candidate", "macs", "params", "macs_ratio", "params_ratio"]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def flat_row(row: Row) -> Row:
    return {name: value for name, value in row.items() if not isinstance(value, list | dict)}


def rebuild_member(session: Session, row: Row) -> Built:
    """The network of a row, built, proved and measured again."""
    values = {name.removeprefix(STITCHED): value for name, value in row.items() if name.startswith(STITCHED)}
    return build_member(session, Evaluation(Candidate(tuple(row["levels"])), values))


def export_member(session: Session, row: Row, directory: Path) -> Row:
    """Builds the network of a row again and writes it, with what it was measured to do just now."""
    return write_member(session, rebuild_member(session, row), directory)


def write_member(session: Session, built: Built, directory: Path) -> Row:
    """Writes a network that was just built."""
    recipe = make_recipe(session.structure, session.bank.positions(built.row["kept"]))
    write_export(built.network, session.model, recipe, built.row, directory)
    return built.row


def _row(
    session: Session,
    candidate: Candidate,
    measured: Mapping[str, float],
    selected: Mapping[str, Mapping[str, float]],
    verify_error: float,
) -> Row:
    counts = session.space.counts(candidate)
    costs = session.problem.costs_of(candidate)
    clash = costs.keys() & measured.keys()
    if clash:
        raise ConfigError(f"fitness and costs both report {sorted(clash)}: rename one of them")
    return {
        "candidate": _label(counts),
        **costs,
        **{f"{name}_ratio": value / session.dense_costs[name] for name, value in costs.items()},
        **({"density": costs["nonzeros"] / costs["params"]} if session.weights else {}),
        **measured,
        **_intervals(session, measured),
        **{
            prefix + name: value
            for prefix, values in selected.items()
            for name, value in values.items()
            if name not in costs
        },
        "verify_error": verify_error,
        "levels": list(candidate.levels),
        "kept": counts,
    }


def _intervals(session: Session, measured: Mapping[str, float]) -> dict[str, float]:
    """Where the true accuracy lies in 95 of 100 cases, from how many examples it was counted on; by name, both ends."""
    if not averages(session.job.fitness) or not 0 <= measured.get("accuracy", -1) <= 1:
        return {}
    low, high = wilson(measured["accuracy"], sum(batch.examples for batch in session.reported))
    return {"accuracy" + LOW: low, "accuracy" + HIGH: high}


def _label(counts: Mapping[str, int]) -> str:
    return "-".join(str(count) for count in counts.values())


def _numbers(row: Row) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if isinstance(value, int | float)}
