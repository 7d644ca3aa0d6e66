"""What a report says: the facts a run folder holds and the figures that follow from them. No markup."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from autoprune.run.records.documents import damaged, read_checked, understanding
from autoprune.run.records.folder import RunFolder
from autoprune.run.records.journal import read_run, told_evaluations
from autoprune.run.results.front_file import FrontFile, LeftOut, read_front_file
from autoprune.run.results.member import Member

Pairs = Sequence[tuple[float, float]]

STOPS = 120  # a curve over evaluations is computed at so many of them at most


@dataclass(frozen=True)
class RunFacts:
    """One run, as its folder tells it.

    `front` is what front.json holds, `job` what job.yaml says (of earlier runs from Python next to nothing), `identity`
    what the journal starts with, `told` every evaluation in it, in order, `modules` those with tensors in the order of
    the network, `units` all of them, searched or not, `additivity` how far damages of single units added up.
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
        """The evaluations that were paid for: each network once, none that was outside the bounds."""
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
        """How often each cause made an evaluation fail."""
        return Counter(f"{e.status}: {e.cause}" for e in self.spent if not e.ok)

    @cached_property
    def measured(self) -> tuple[str, ...]:
        """Names of what the fitness measures, objectives of the job first."""
        if self.members:
            both = [m.report.keys() & m.select.keys() for m in self.members]
            names = [name for name in self.members[0].report if all(name in found for found in both)]
        else:
            names = [name for name in (self.scored[0].values if self.scored else ()) if name not in self.dense]
        wanted = [name for name, *_ in self.identity.get("objectives", ())]
        return tuple(sorted(names, key=lambda name: name not in wanted))

    @cached_property
    def cost(self) -> str:
        """The cost things are drawn over: the first that is an objective, else the first there is."""
        return next((o.name for o in self.guides if o.name in self.dense), next(iter(self.dense)))

    @cached_property
    def guides(self) -> tuple[Objective, ...]:
        """The objectives the search followed, under the names evaluations have."""
        return self.front.followed

    def direction(self, name: str) -> Direction | None:
        """Whether less or more of a value is better; None where nothing says so."""
        said: dict[str, Direction] = {**KNOWN_DIRECTIONS, **{o.name: o.direction for o in self.guides}}
        said |= {objective[0]: objective[1] for objective in self.identity.get("objectives", ())}
        return said.get(name)

    def ratio(self, evaluation: Evaluation) -> float:
        """The cost of an evaluation as a share of the dense network's."""
        return evaluation.values[self.cost] / self.dense[self.cost]

    def dense_values(self) -> dict[str, float]:
        """Costs of the dense network, and what it measures on the report set where it is a member of the front."""
        member = next((member for member in self.members if member.is_dense), None)
        return {**self.dense, **({name: member.report[name] for name in self.measured} if member else {})}

    def pick(self, member: Member) -> str | None:
        """The shortest bound on the cost that `--pick` answers with this member, or None where there is none."""
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
    """The facts of a run folder. RunNotFound where there is no front yet or a file is gone."""
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
    )


def _read_space(folder: RunFolder) -> SearchSpace:
    data = read_checked(folder.space)
    with understanding(folder.space):
        return SearchSpace.from_json(data)


def _read_structure(folder: RunFolder) -> tuple[tuple[Unit, ...], tuple[str, ...]]:
    data = read_checked(folder.structure)
    with understanding(folder.structure):
        return tuple(map(Unit.from_json, data["units"])), tuple(map(str, data["modules"]))


def _read_environment(folder: RunFolder) -> dict[str, Any]:
    """What the page reads of it is there and of the right form."""
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
    """What job.yaml says; RunDamaged where it is no mapping in YAML."""
    try:
        job = yaml.safe_load(folder.job.read_bytes().decode()) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        said = str(error).replace("\n", " ")
        raise RunDamaged(f"{folder.job}: expected the job in YAML: {said}. Restore it from a copy.") from error
    if not isinstance(job, dict):
        raise RunDamaged(f"{folder.job}: expected the keys of a job, got {job!r:.60}. Restore it from a copy.")
    return job


def _check_related(folder: RunFolder, front: FrontFile, identity: Mapping[str, Any], space: SearchSpace) -> None:
    """RunDamaged where files are those of different runs."""
    if identity and identity["space"] != space.to_json():
        raise damaged(folder.space, "it has another search space than journal.jsonl")
    if any(list(member.counts) != list(space.units) for member in front.members):
        raise damaged(folder.front_json, "its networks are not of the search space in space.json")


def _first_line(path: Path) -> str:
    """The summary a file begins with; none where there is no such file, as in runs of earlier versions."""
    return path.read_text(errors="replace").partition("\n")[0].removeprefix("# ") if path.is_file() else ""


def _check_whole(folder: RunFolder) -> None:
    """Raises RunNotFound where a file is gone; all but the journal follow from the job, so a resume writes them."""
    files = (folder.space, folder.structure, folder.environment, folder.journal)
    gone = [file.name for file in files if not file.is_file()]
    if gone:
        remedy = f"Write it again with: autoprune resume {folder.path}"
        if not folder.journal.is_file():
            remedy = "Restore it from a copy."
        raise RunNotFound(f"expected a whole run folder, {folder.path} has no {', '.join(gone)}. {remedy}")


@dataclass(frozen=True)
class Audit:
    """How well one value on the selection set foretold one on the report set, over the members of a front.

    `pairs` are (selected, reported), `tau` the rank agreement of their losses (NaN where undefined), `optimism` by
    how much the selected value looked better on average than the reported one, None where the two are different
    quantities or nothing says which direction is better.
    """

    selected: str
    reported: str
    pairs: Pairs
    tau: float
    optimism: float | None


def audits(facts: RunFacts) -> list[Audit]:
    """What guided the search against what matters, then every measured value against itself."""
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
    """Hypervolume over evaluations: `points` are (evaluations spent, hypervolume between 0 and 1).

    `reference` says of each objective where the volume ends, in words.
    """

    points: Pairs
    reference: tuple[str, ...]


def growth(facts: RunFacts) -> Growth:
    """Hypervolume of what the search followed, after every evaluation (after 120 of them where there are more).

    A cost runs from 0 to 1 at the dense network, anything else from the best value seen (0) to the worst (1); the
    reference point is 1 in each. So the figure compares moments of one run, not runs.
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
    """(n,) losses of the scored evaluations, scaled so that the reference is 1, and the reference in words."""
    values = np.array([e.values[objective.name] for e in facts.scored])
    if objective.direction == "min" and facts.dense.get(objective.name, 0) > 0:
        dense = facts.dense[objective.name]
        return values / dense, f"{objective.name} = {dense:,} (dense)"
    losses = np.array([objective.loss(value) for value in values])
    worst = values[int(losses.argmax())]
    spread = np.ptp(losses) or 1.0  # all equal: every network is at the best value
    return (losses - losses.min()) / spread, f"{objective.name} = {worst:.4g} (the worst seen)"
