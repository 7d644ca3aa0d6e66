"""The final front: its members built as they will be exported, proved, and measured on the report set."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from autoprune.core.evaluation import Evaluation
from autoprune.core.front import Front
from autoprune.core.process import ending_forks
from autoprune.core.space import Candidate
from autoprune.core.statistics import wilson
from autoprune.errors import PluginError, RunFailed, VerifyError
from autoprune.measure.fitness import averages
from autoprune.measure.scorer import cause_of
from autoprune.prune.bank.weights import emptied_weights
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.surgery.surgery import make_recipe
from autoprune.prune.surgery.verify import verify_positions
from autoprune.run.fingerprint.secrets import without
from autoprune.run.loop.hiding import secrets_of
from autoprune.run.records.columns import HIGH, LOW, RATIO, SELECT, STITCHED, check_measured
from autoprune.run.records.documents import write_checked
from autoprune.run.records.folder import RunFolder, write_text
from autoprune.run.results.deployed import deployed
from autoprune.run.results.exporter import DEFAULT, Exporter, ExportFacts, Format, find_exporter
from autoprune.run.results.front_file import LeftOut, Row, to_csv
from autoprune.run.results.publishing import write_export
from autoprune.run.session.emptied import EmptiedWeights, uniform_rivals
from autoprune.run.session.job import Progress
from autoprune.run.session.session import Session

_log = logging.getLogger(__name__)

NAMED = 3  # members that failed are named so far in an error; the log has all


class Finished(NamedTuple):
    """The rows of a front, and what had to be left out of it."""

    rows: list[Row]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Built:
    """A network as it is deployed, with what is known about it."""

    network: nn.Module
    row: Row


@ending_forks()
def build_member(session: Session, evaluation: Evaluation) -> Built:
    """The network of an evaluation, compared with its masked original and measured on the report set.

    "fit" in its row says what fitting it did (prune.compensate.Compensation); empty where it is as stitched. "emptied"
    counts the weights that are left without any entry, which "emptied_weights" names; both are there where a search
    puts zeros into weights, and where there are such weights all the same.

    Raises:
        VerifyError: the two compute different things.
        RunFailed: it cannot be built or measured for any other reason, with the network's name and the cause.
    """
    try:
        return _build_member(session, evaluation)
    except (VerifyError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a user's code may raise anything
        name = _label(session.space.counts(evaluation.candidate))
        raise RunFailed(f"network {name} cannot be built and measured: {cause_of(error)}") from error


def _build_member(session: Session, evaluation: Evaluation) -> Built:
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
    as_built = session.selected(network)
    for values in (measured, as_built):
        _check_reported(session, values)
    selected = {SELECT: {**evaluation.values, **as_built}, STITCHED: evaluation.values}
    row = _row(session, candidate, measured, selected, report.worst) | {"fit": {} if fit is None else asdict(fit)}
    emptied = emptied_weights(network, named_tensors(session.model))
    if session.weights or emptied:
        row |= {"emptied": len(emptied), "emptied_weights": emptied}
    return Built(network, {**row, "finetune_steps": steps} if session.job.finetune else row)


def finish(session: Session, evaluations: Sequence[Evaluation], folder: RunFolder | None) -> Finished:
    """Builds and measures the front of a search and writes front.csv and front.json.

    What was on the front by the scores of the search is built, and the uniform network of equal cost where a weight is
    emptied (run.emptied). A network that cannot be built, proved or measured is left out with its cause. One that is
    dominated as built, or outside the bounds of measured objectives, is no member any more.

    Raises:
        RunFailed: every network was left out for a cause; nothing is written then.
    """
    scored = [e for e in evaluations if e.ok]
    front = Front.of(scored, session.problem.objectives, session.dense_costs)
    members = [*front.thinned(session.job.front_size).members]
    members += uniform_rivals(session, members, scored)
    built: list[Row] = []
    left_out: list[LeftOut] = []
    clean = without(secrets_of(session.job))
    note = ""
    for index, evaluation in enumerate(members):
        session.progress(Progress("front", index, len(members), note))
        start = time.perf_counter()
        try:
            built.append(build_member(session, evaluation).row)
            note = f"{_gain(built[-1], session)} in {time.perf_counter() - start:.1f} s"
        except (VerifyError, RunFailed) as error:  # the others are none the worse for it
            _log.error("left out of the front: %s", clean(str(error)))
            left_out.append(_left_out(session, evaluation.candidate, error, clean))
            note = f"{len(left_out)} left out"
    if members and not built:
        raise RunFailed(_why_empty(left_out, folder))
    session.progress(Progress("front", len(members), len(members), note))
    rows = _with_emptied(_undominated(session, built))
    _name_replaced(session, built, rows)
    if folder is not None:
        write_text(folder.front_csv, to_csv(rows))
        write_checked(folder.front_json, document_of(session, rows, left_out))
    return Finished(rows, tuple(left_out))


def _left_out(session: Session, candidate: Candidate, error: Exception, clean: Callable[[str], str]) -> LeftOut:
    """What failed and why, without the secrets that `clean` takes out."""
    said = error if error.__cause__ is None else error.__cause__
    return LeftOut(_label(session.space.counts(candidate)), candidate.levels, clean(cause_of(said)))


def _why_empty(left_out: Sequence[LeftOut], folder: RunFolder | None) -> str:
    causes = "; ".join(f"{member.candidate}: {member.cause}" for member in left_out[:NAMED])
    more = f"; and {len(left_out) - NAMED} more, which the log names" if len(left_out) > NAMED else ""
    again = f" and go on with: autoprune resume {folder.path}" if folder is not None else " and search again."
    return (
        f"none of the {len(left_out)} networks on the front of the search could be built and measured "
        f"({causes}{more}). The evaluations of the search are not lost: correct the cause{again}"
    )


def _undominated(session: Session, rows: Sequence[Row]) -> list[Row]:
    """The rows within all bounds that no other one betters in all objectives, on the selection set."""
    as_built = [Evaluation(Candidate(tuple(row["levels"])), _values_as_built(session, row)) for row in rows]
    admitted = [evaluation for evaluation in as_built if session.admits(evaluation)]
    kept = {e.candidate.levels for e in Front.of(admitted, session.problem.objectives, session.dense_costs).members}
    return [row for row in rows if tuple(row["levels"]) in kept]


def _name_replaced(session: Session, built: Sequence[Row], rows: Sequence[Row]) -> None:
    """Logs which networks that empty weights were on the front while searching and are not as built."""
    kept, emptied = [row["levels"] for row in rows], EmptiedWeights(session)
    for row in built:
        least = emptied.of(Candidate(tuple(row["levels"])))
        if least and row["levels"] not in kept:
            _log.warning(
                "left out of the front, as another network is better as built: %s, which keeps %s",
                row["candidate"],
                ", ".join(f"{count:,} entries of {name}" for name, count in least.items()),
            )


def _with_emptied(rows: Sequence[Row]) -> list[Row]:
    """The same rows; where one of them counts emptied weights all do, and the log names the weights."""
    if not any("emptied" in row for row in rows):
        return list(rows)
    for row in rows:
        if row.get("emptied"):
            _log.warning("nothing is left of %s in %s", ", ".join(row["emptied_weights"]), row["candidate"])
    return [{**row, "emptied": row.get("emptied", 0)} for row in rows]


def _values_as_built(session: Session, row: Row) -> dict[str, float]:
    """Costs, and what was measured on the selection set."""
    measured = {name.removeprefix(SELECT): value for name, value in row.items() if name.startswith(SELECT)}
    return {**measured, **{name: row[name] for name in session.dense_costs}}


def _gain(row: Row, session: Session) -> str:
    """What building did to the first measured objective: "kl 0.64 -> 0.21"."""
    name = next((o.name for o in session.problem.objectives if STITCHED + o.name in row), None)
    return "built" if name is None else f"{name} {row[STITCHED + name]:.4g} -> {row[SELECT + name]:.4g}"


def document_of(session: Session, rows: Sequence[Row], left_out: Sequence[LeftOut] = ()) -> dict[str, Any]:
    """What front.json holds: the rows, the dense costs, the objectives by the names they have in the rows, and which
    networks were left out, with their causes.
    """
    costs = session.dense_costs
    objectives = [[o.name if o.name in costs else SELECT + o.name, o.direction] for o in session.problem.objectives]
    missing = [{"candidate": m.candidate, "levels": list(m.levels), "cause": m.cause} for m in left_out]
    return {"objectives": objectives, "dense": costs, "rows": list(rows), "left_out": missing}


def rebuild_member(session: Session, row: Row) -> Built:
    """The network of a row, built, proved and measured again."""
    values = {name.removeprefix(STITCHED): value for name, value in row.items() if name.startswith(STITCHED)}
    return build_member(session, Evaluation(Candidate(tuple(row["levels"])), values))


def export_member(session: Session, row: Row, directory: Path, format: Format = DEFAULT) -> Row:
    """Builds the network of a row again and writes it, with what it was measured to do just now."""
    exporter = find_exporter(format)  # before what takes long
    return write_member(session, rebuild_member(session, row), directory, exporter)


def write_member(session: Session, built: Built, directory: Path, exporter: Exporter | None = None) -> Row:
    """Writes a network that was just built."""
    recipe = make_recipe(session.structure, session.bank.positions(built.row["kept"]))
    facts = ExportFacts(session.model, recipe, built.row)
    write_export(built.network, facts, session.data.example, directory, exporter or find_exporter(DEFAULT))
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
    return {
        "candidate": _label(counts),
        **costs,
        **{name + RATIO: value / session.dense_costs[name] for name, value in costs.items()},
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


def _check_reported(session: Session, measured: Mapping[str, float]) -> None:
    """Raises where a fitness reports other names than it did of the dense network, and a row cannot hold them."""
    check_measured(measured, session.dense_costs)
    also = {*session.dense_costs, *session.scorer.also}
    missing = [o.name for o in session.job.objectives if o.name not in also and o.name not in measured]
    if missing:
        raise PluginError(f"expected the fitness to report {missing}, it reported {sorted(measured)}")


def _intervals(session: Session, measured: Mapping[str, float]) -> dict[str, float]:
    """Where the true accuracy lies in 95 of 100 cases, from how many examples it was counted on; by name, both ends."""
    if not averages(session.job.fitness) or not 0 <= measured.get("accuracy", -1) <= 1:
        return {}
    low, high = wilson(measured["accuracy"], sum(batch.examples for batch in session.reported))
    return {"accuracy" + LOW: low, "accuracy" + HIGH: high}


def _label(counts: Mapping[str, int]) -> str:
    return "-".join(str(count) for count in counts.values())
