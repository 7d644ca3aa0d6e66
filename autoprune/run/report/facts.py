"""The facts of a report, read from a run folder, and the figures computed from them, without markup."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from autoprune.core.evaluation import Evaluation
from autoprune.core.front import hypervolume
from autoprune.core.objective import KNOWN_DIRECTIONS, Direction, Objective
from autoprune.core.space import Candidate, SearchSpace
from autoprune.core.statistics import kendall_tau
from autoprune.core.unit import Unit
from autoprune.errors import AutopruneError, RunDamaged, RunNotFound
from autoprune.run.audits.results import GuideAudit
from autoprune.run.records.documents import damaged, read_checked, understanding
from autoprune.run.records.folder import RunFolder
from autoprune.run.records.journal import read_run, told_evaluations
from autoprune.run.recovery.written import read_recovered
from autoprune.run.results.front_file import FrontFile, LeftOut, read_front_file
from autoprune.run.results.member import Member

Pairs = Sequence[tuple[float, float]]

STOPS = 120  # largest number of points of a curve over evaluations


@dataclass(frozen=True)
class RunFacts:
    """The facts of one run folder.

    Attributes:
        front: the content of front.json.
        job: the content of job.yaml, which is almost empty for earlier runs from Python.
        identity: the first record of the journal.
        told: every evaluation in the journal, in order.
        modules: names of the modules with tensors, in the order of the network.
        units: all units, searched or not.
        additivity: how far damages of single units add up.
        recovered: the networks that were recovered.
        guide_audit: the last audit of the guide; None if there was none.
        harms: the harm that `autoprune harm` measured, by the name of the network.
    """

    path: Path
    front: FrontFile
    job: Mapping[str, Any]
    identity: Mapping[str, Any]
    told: tuple[Evaluation, ...]
    space: SearchSpace
    environment: Mapping[str, Any]
    modules: tuple[str, ...]
    units: tuple[Unit, ...]
    additivity: str = ""
    recovered: tuple[Member, ...] = ()
    guide_audit: GuideAudit | None = None
    harms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def members(self) -> Sequence[Member]:
        """The members of the front, in the order of front.json."""
        return self.front.members

    @property
    def left_out(self) -> Sequence[LeftOut]:
        """The networks that the front lacks because they could not be built or measured."""
        return self.front.left_out

    @property
    def dense(self) -> Mapping[str, float]:
        """The costs of the dense network."""
        return self.front.dense

    @cached_property
    def spent(self) -> tuple[Evaluation, ...]:
        """The evaluations that took budget: each network once, without those outside the bounds."""
        first: dict[Candidate, Evaluation] = {}
        for evaluation in self.told:
            if evaluation.status != "infeasible":
                first.setdefault(evaluation.candidate, evaluation)
        return tuple(first.values())

    @cached_property
    def scored(self) -> tuple[Evaluation, ...]:
        """The evaluations with comparable values: ok, on the whole selection set."""
        return tuple(e for e in self.spent if e.ok and e.candidate.fidelity == 1.0)

    @cached_property
    def causes(self) -> Counter[str]:
        """The number of failed evaluations by cause."""
        return Counter(f"{e.status}: {e.cause}" for e in self.spent if not e.ok)

    @cached_property
    def measured(self) -> tuple[str, ...]:
        """Names of the measurements, objectives of the job first."""
        if self.members:
            both = [m.report.keys() & m.select.keys() for m in self.members]
            names = [name for name in self.members[0].report if all(name in found for found in both)]
        else:
            names = [name for name in (self.scored[0].values if self.scored else ()) if name not in self.dense]
        wanted = [name for name, *_ in self.identity.get("objectives", ())]
        return tuple(sorted(names, key=lambda name: name not in wanted))

    @cached_property
    def cost(self) -> str:
        """The cost on the x axes: the first that is an objective, else the first cost."""
        return next((o.name for o in self.guides if o.name in self.dense), next(iter(self.dense)))

    @cached_property
    def guides(self) -> tuple[Objective, ...]:
        """The objectives of the search, under their names in evaluations."""
        return self.front.followed

    def direction(self, name: str) -> Direction | None:
        """Whether a lower or higher value is better; None if unknown."""
        said: dict[str, Direction] = {**KNOWN_DIRECTIONS, **{o.name: o.direction for o in self.guides}}
        said |= {objective[0]: objective[1] for objective in self.identity.get("objectives", ())}
        return said.get(name)

    def ratio(self, evaluation: Evaluation) -> float:
        """The cost of an evaluation as a share of the dense network's."""
        return evaluation.values[self.cost] / self.dense[self.cost]

    def dense_values(self) -> dict[str, float]:
        """The costs of the dense network, and its values on the report set if it is a member of the front."""
        member = next((member for member in self.members if member.is_dense), None)
        return {**self.dense, **({name: member.report[name] for name in self.measured} if member else {})}

    def pick(self, member: Member) -> str | None:
        """The shortest bound on the cost for which `--pick` finds this member; None if there is none."""
        ratio = member.ratios[self.cost]
        shares = [f"{math.ceil(ratio * 10**digits) / 10**digits:g}" for digits in (2, 3, 4)]
        bounds = [f"{self.cost}<={value}" for value in (*shares, repr(member.costs[self.cost]))]
        return next((bound for bound in bounds if self._picks(bound, member)), None)

    def _picks(self, bound: str, member: Member) -> bool:
        try:
            return self.front.picked(bound).levels == member.levels
        except AutopruneError:  # rounding put the row outside, or the name of a cost cannot stand in a bound
            return False


def read_facts(path: Path) -> RunFacts:
    """Reads the facts of a run folder. RunNotFound if there is no front yet or a file is missing."""
    folder = RunFolder.open(path)
    front = read_front_file(folder)
    _check_whole(folder)
    records = read_run(folder.journal)
    space, units, modules = _read_space(folder), *_read_structure(folder)
    identity = records[0]["identity"] if records else {}
    _check_related(folder, front, identity, space)
    return RunFacts(
        path=path,
        front=front,
        job=_read_job(folder),
        identity=identity,
        told=tuple(told_evaluations(records)),
        space=space,
        environment=_read_environment(folder),
        modules=modules,
        units=units,
        additivity=_first_line(folder.additivity),
        recovered=tuple(read_recovered(path)),
        guide_audit=_read_guide_audit(folder),
        harms=_read_harms(folder, front),
    )


def _read_harms(folder: RunFolder, front: FrontFile) -> Mapping[str, Mapping[str, Any]]:
    """The content of harm.json for the networks of the front."""
    if not folder.harm.is_file():
        return {}
    document = read_checked(folder.harm)
    with understanding(folder.harm):
        found = {name: dict(values) for name, values in document["networks"].items()}
    return {member.candidate: found[member.candidate] for member in front.members if member.candidate in found}


def _read_guide_audit(folder: RunFolder) -> GuideAudit | None:
    if not folder.audit_json.is_file():
        return None
    document = read_checked(folder.audit_json)
    with understanding(folder.audit_json):
        return GuideAudit.from_json(document)


def _read_space(folder: RunFolder) -> SearchSpace:
    data = read_checked(folder.space)
    with understanding(folder.space):
        return SearchSpace.from_json(data)


def _read_structure(folder: RunFolder) -> tuple[tuple[Unit, ...], tuple[str, ...]]:
    data = read_checked(folder.structure)
    with understanding(folder.structure):
        return tuple(map(Unit.from_json, data["units"])), tuple(map(str, data["modules"]))


def _read_environment(folder: RunFolder) -> dict[str, Any]:
    """Reads environment.json and checks the parts that the page reads."""
    found = read_checked(folder.environment)
    with understanding(folder.environment):
        for what, share, reason in found["frozen"]:
            f"{what} {share:.3f} {reason}"
        ", ".join(found["uncounted_operators"])
        for entry in found["data"]["sets"].values():
            f"{entry['examples']:,} {entry['sha256'][:16]}"
        for count in found["data"]["shared"].values():
            f"{count:,}"
    return found


def _read_job(folder: RunFolder) -> dict[str, Any]:
    """The content of job.yaml. RunDamaged if it is not a mapping in YAML."""
    try:
        job = yaml.safe_load(folder.job.read_bytes().decode()) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        said = str(error).replace("\n", " ")
        raise RunDamaged(f"{folder.job}: expected the job in YAML: {said}. Restore it from a copy.") from error
    if not isinstance(job, dict):
        raise RunDamaged(f"{folder.job}: expected the keys of a job, got {job!r:.60}. Restore it from a copy.")
    return job


def _check_related(folder: RunFolder, front: FrontFile, identity: Mapping[str, Any], space: SearchSpace) -> None:
    """Raises RunDamaged if the files are from different runs."""
    if identity and identity["space"] != space.to_json():
        raise damaged(folder.space, "it has another search space than journal.jsonl")
    if any(list(member.counts) != list(space.units) for member in front.members):
        raise damaged(folder.front_json, "its networks are not of the search space in space.json")


def _first_line(path: Path) -> str:
    """The summary in the first line of a file; empty if there is no such file, as in runs of earlier versions."""
    return path.read_text(errors="replace").partition("\n")[0].removeprefix("# ") if path.is_file() else ""


def _check_whole(folder: RunFolder) -> None:
    """Raises RunNotFound if a file is missing. A resumed run writes all of them again except the journal."""
    files = (folder.space, folder.structure, folder.environment, folder.journal)
    gone = [file.name for file in files if not file.is_file()]
    if gone:
        remedy = f"Write it again with: autoprune resume {folder.path}"
        if not folder.journal.is_file():
            remedy = "Restore it from a copy."
        raise RunNotFound(f"expected a whole run folder, {folder.path} has no {', '.join(gone)}. {remedy}")


@dataclass(frozen=True)
class Audit:
    """The agreement of a value on the selection set with one on the report set, over the members of a front.

    Attributes:
        pairs: the (selected, reported) values.
        tau: Kendall's tau of their losses; NaN if undefined.
        optimism: the mean difference by which selected values look better than reported ones; None if they are
            different quantities or the better direction is unknown.
    """

    selected: str
    reported: str
    pairs: Pairs
    tau: float
    optimism: float | None


def audits(facts: RunFacts) -> list[Audit]:
    """The audit of the guide against the first measured objective, then of every measured value against itself."""
    guides = [o.name for o in facts.guides if o.name in facts.measured]
    names = [(guide, facts.measured[0]) for guide in guides[:1] if guide != facts.measured[0]]
    return [_audit(facts, *pair) for pair in (*names, *((name, name) for name in facts.measured))]


def _audit(facts: RunFacts, selected: str, reported: str) -> Audit:
    pairs = [(float(member.select[selected]), float(member.report[reported])) for member in facts.members]
    directions = facts.direction(selected), facts.direction(reported)
    sign = -1.0 if set(directions) == {"min", "max"} else 1.0
    tau = sign * kendall_tau([x for x, _ in pairs], [y for _, y in pairs])
    if selected != reported or directions[0] is None or not pairs:
        return Audit(selected, reported, pairs, tau, None)
    gain = sum(x - y for x, y in pairs) / len(pairs)
    return Audit(selected, reported, pairs, tau, gain if directions[0] == "max" else -gain)


@dataclass(frozen=True)
class Growth:
    """The hypervolume over evaluations.

    Attributes:
        points: pairs of evaluations spent and hypervolume, from 0 to 1.
        reference: the reference point, in words, by objective.
    """

    points: Pairs
    reference: tuple[str, ...]


def growth(facts: RunFacts) -> Growth:
    """The hypervolume of the search's objectives after every evaluation, or after `STOPS` of them if there are more.

    A cost is scaled to 1 at the dense network, any other objective from its best value (0) to its worst (1); the
    reference point is 1 in each. So the figure compares points in time of one run, not different runs.
    """
    if not facts.scored:
        return Growth((), ())
    scales = [_scale(facts, objective) for objective in facts.guides]
    losses = np.stack([scaled for scaled, _ in scales], axis=1)  # (n, m)
    position = {e.candidate: number for number, e in enumerate(facts.spent, start=1)}
    when = np.array([position[e.candidate] for e in facts.scored])
    total = len(facts.spent)
    stops = sorted({round(stop) for stop in np.linspace(1, total, min(total, STOPS)).tolist()})
    points = [(float(stop), hypervolume(losses[when <= stop], (1.0,) * len(scales))) for stop in stops]
    return Growth(points, tuple(words for _, words in scales))


def _scale(facts: RunFacts, objective: Objective) -> tuple[np.ndarray, str]:
    """The (n,) losses of the scored evaluations, scaled so that the reference is 1, and the reference in words."""
    values = np.array([e.values[objective.name] for e in facts.scored])
    if objective.direction == "min" and facts.dense.get(objective.name, 0) > 0:
        dense = facts.dense[objective.name]
        return values / dense, f"{objective.name} = {dense:,} (dense)"
    losses = np.array([objective.loss(value) for value in values])
    worst = values[int(losses.argmax())]
    spread = np.ptp(losses) or 1.0  # all equal: every network is at the best value
    return (losses - losses.min()) / spread, f"{objective.name} = {worst:.4g} (the worst seen)"
