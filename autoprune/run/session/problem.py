"""States the problem of a searcher from the settings of a job."""

from __future__ import annotations

from collections.abc import Mapping

from autoprune.core.cost import CostModel, Formula, UserCost
from autoprune.core.objective import KNOWN_DIRECTIONS, Objective
from autoprune.core.problem import Problem
from autoprune.core.space import SearchSpace
from autoprune.core.sparse import SPARSE_COSTS
from autoprune.errors import ConfigError
from autoprune.run.records.columns import check_named
from autoprune.run.session.costs import check_costs, with_costs
from autoprune.run.session.job import Job


def state_problem(job: Job, costs: CostModel, own: Mapping[str, Formula | UserCost], space: SearchSpace) -> Problem:
    """The problem for the searcher, with the guide in place of the objective it replaces and bounds in absolute units.

    `own` are the job's costs, made by their factories.
    """
    costs = with_costs(costs, own)
    check_named(costs.names, job.costs, job.objectives, job.guide)
    dense = costs.dense()
    limits = [o.limit for o in job.objectives if o.limit and o.limit.sense == "<=" and o.name in dense]
    bounds = [limit.absolute(dense) for limit in limits]
    stood_for = first_measured(job, dense)
    guide = Objective(job.guide, KNOWN_DIRECTIONS.get(job.guide, "min")) if job.guide else None
    objectives = tuple(
        guide if guide and o.name == stood_for else Objective(o.name, o.direction, o.unit) for o in job.objectives
    )
    distortion = guide.name if guide and guide.direction == "min" else None
    problem = Problem(space, objectives, costs, tuple(bounds), distortion)
    check_costs(problem, list(job.costs))
    problem.check_bounds()
    return problem


def check_cost_names(job: Job, costs: CostModel) -> None:
    """Raises ConfigError if a cost of the job has the name of an existing one."""
    if taken := [name for name in job.costs if name in (*costs.names, *SPARSE_COSTS)]:
        raise ConfigError([f"cost {name!r} is computed already. Give it another name." for name in taken])


def first_measured(job: Job, costs: Mapping[str, float] | None = None) -> str:
    """The name of the first objective that is measured, not a cost; "fitness" if all are costs."""
    known = set(costs) if costs is not None else {"macs", "params", *SPARSE_COSTS, *job.costs}
    return next((o.name for o in job.objectives if o.name not in known), "fitness")
