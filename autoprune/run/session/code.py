"""The options and the source of the functions that a job calls, as part of a run's identity."""

from __future__ import annotations

from collections.abc import Mapping

from autoprune.core.cost import CostModel, is_factory
from autoprune.plugins import plugin_name
from autoprune.run.fingerprint.fingerprint import CodeFacts, fingerprint
from autoprune.run.session.job import Job, NamedSearcher

FACTORY = " factory"  # suffix of the roles of model and data factories
COST = "cost "  # prefix of the roles of costs


def cost_facts(job: Job, code: Mapping[str, CodeFacts], costs: CostModel) -> dict[str, CodeFacts]:
    """The facts of costs made by factories, with their values for the dense network, as the values that a factory reads
    or measures are not part of its source.
    """
    dense = costs.dense()
    made = {f"{COST}{name}": dense[name] for name, cost in job.costs.items() if is_factory(cost)}
    return {role: {**code[role], "cost of the dense network": repr(value)} for role, value in made.items()}


def code_of(job: Job) -> dict[str, CodeFacts]:
    """The options and the source of all functions that a job calls, by role; read before any of them has run."""
    searcher = job.searcher.plugin if isinstance(job.searcher, NamedSearcher) else job.searcher
    costs = {f"{COST}{name}": {"function": plugin_name(cost), **fingerprint(cost)} for name, cost in job.costs.items()}
    return {
        "fitness": fingerprint(job.fitness),
        "criterion": fingerprint(job.criterion),
        "masks": fingerprint(job.masks),
        "searcher": {"function": plugin_name(searcher), **fingerprint(searcher)},
        **costs,
        **({"loss": fingerprint(job.finetune.loss)} if job.finetune else {}),
        f"model{FACTORY}": fingerprint(job.model),
        f"data{FACTORY}": fingerprint(job.data),
    }
