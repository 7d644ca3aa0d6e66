"""The options and the source of what a job calls, as part of a run's identity."""

from __future__ import annotations

from collections.abc import Mapping

from autoprune.core.cost import CostModel, is_factory
from autoprune.plugins import plugin_name
from autoprune.run.fingerprint.fingerprint import Facts, fingerprint
from autoprune.run.session.job import Job, NamedSearcher

FACTORY = " factory"  # what the facts of model and data factories are called after
COST = "cost "  # what those of a cost are called before


def cost_facts(job: Job, code: Mapping[str, Facts], costs: CostModel) -> dict[str, Facts]:
    """The facts of costs that a factory has made, with their values for the dense network: what a factory reads or
    measures is no part of its source.
    """
    dense = costs.dense()
    made = {f"{COST}{name}": dense[name] for name, cost in job.costs.items() if is_factory(cost)}
    return {role: {**code[role], "cost of the dense network": repr(value)} for role, value in made.items()}


def code_of(job: Job) -> dict[str, Facts]:
    """The options and the source of everything a job calls, by what it is for; taken before any of it has run."""
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
