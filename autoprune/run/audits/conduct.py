"""Conducts an audit: chooses networks of a budget band, measures and trains them, and compares both orders."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autoprune.core.evaluation import Evaluation
from autoprune.core.options import raise_problems, word
from autoprune.core.space import Candidate
from autoprune.errors import PluginError, RunFailed, TrainingDiverged
from autoprune.prune.bank.channels import Bank
from autoprune.prune.criteria import CRITERIA
from autoprune.prune.criteria.ordering import order_units
from autoprune.run.audits.band import Band
from autoprune.run.audits.measures import Measures, Ready
from autoprune.run.audits.networks import Chosen, choose
from autoprune.run.audits.records import AuditRecords, Values
from autoprune.run.audits.request import LEAST, AuditRequest
from autoprune.run.audits.results import AuditedNetwork, GuideAudit, agreements_of, inherited_of
from autoprune.run.audits.training import AuditTraining, training_of
from autoprune.run.results.building import label
from autoprune.run.session.job import Progress
from autoprune.run.session.session import Session
from autoprune.train.fresh import reinitialised

TRAINED, SCRATCH_E, SCRATCH_B = "after", "scratch_e", "scratch_b"  # the ways in which a network is trained


def conduct(
    session: Session,
    evaluations: Sequence[Evaluation],
    band: Band,
    request: AuditRequest,
    records: AuditRecords,
    facts: Mapping[str, Any],
) -> GuideAudit:
    """Measures and trains the networks of a band, and compares their orders before and after.

    Args:
        session: the session of the run.
        evaluations: the evaluations of the search.
        band: the budget band.
        request: what is asked for.
        records: known measurements, to which new ones are added.
        facts: what measurements depend on beside the settings of the audit, such as the identity of the run.

    Raises:
        ConfigError: the data have no train set, an order is unknown, or the band has fewer than three networks.
        RunFailed: fewer than three networks could be measured and trained.
    """
    raise_problems([said for order in request.orders for said in word("orders", order, CRITERIA)])
    asked = replace(request, orders=_other_orders(session, request.orders))
    chosen = choose(session.problem, evaluations, band, asked, session.job.seed)
    audit = _Audit(session, asked, training_of(session, asked), records, facts)
    networks = audit.networks(chosen, band)
    usable = [network for network in networks if not network.cause]
    if sum(not network.order for network in usable) < LEAST:
        causes = "; ".join(dict.fromkeys(network.cause for network in networks if network.cause))
        raise RunFailed(f"fewer than {LEAST} networks of the audit could be measured and trained: {causes}")
    return GuideAudit(
        band.shown(session.dense_costs),
        session.job.guide or next(o.name for o in session.objectives if o.name not in session.dense_costs),
        audit.training_facts,
        tuple(networks),
        agreements_of(usable, audit.signs(usable)),
        inherited_of(usable, audit.signs(usable)),
    )


def _other_orders(session: Session, orders: Sequence[str]) -> tuple[str, ...]:
    """The orders of positions that give other networks than that of the search."""
    ordered = any(not session.structure.unit(name).is_branch for name in session.sliced)
    return tuple(order for order in orders if ordered and order != session.job.criterion)


@dataclass
class _Audit:
    """Measures and trains networks, or takes their measurements from the records."""

    session: Session
    request: AuditRequest
    training: AuditTraining
    records: AuditRecords
    facts: Mapping[str, Any]

    def networks(self, chosen: Sequence[Chosen], band: Band) -> list[AuditedNetwork]:
        found: list[AuditedNetwork] = []
        if self.request.scratch:  # a network without `reset_parameters` is told before hours of training
            reinitialised(self.session.model, (), 0)
        for index, one in enumerate(chosen):
            self.session.progress(Progress("audit", index, len(chosen), found[-1].candidate if found else ""))
            found.append(self._network(one, band))
        self.session.progress(Progress("audit", len(chosen), len(chosen)))
        return found

    @property
    def training_facts(self) -> dict[str, Any]:
        """The options of training, for readers."""
        options = self.training.options
        shown = {"steps": self.training.steps, "seeds": self.request.seeds, "loss": options.loss, "lr": options.lr}
        shown |= {} if options.augment == "none" else {"augment": self.request.augment}
        return shown | ({"scratch_lr": self.training.scratch_lr} if self.request.scratch else {})

    def signs(self, networks: Sequence[AuditedNetwork]) -> dict[str, float]:
        """1 for values of which lower is better, -1 for the others; those of unknown direction are left out."""
        names = {name for network in networks for name in (*network.before, *network.after)}
        directions = {name: self._measures.direction(name) for name in names}
        return {name: 1.0 if direction == "min" else -1.0 for name, direction in directions.items() if direction}

    def _network(self, chosen: Chosen, band: Band) -> AuditedNetwork:
        candidate = Candidate(chosen.levels)
        costs = self.session.problem.costs_of(candidate)
        share = costs[band.cost] / self.session.dense_costs[band.cost]
        name = label(self.session.space.counts(candidate))
        network = AuditedNetwork(name, chosen.origin, chosen.order, share)
        ready = functools.cache(lambda: self._ready(chosen))
        before = self._recorded(chosen, {"how": "before"}, lambda: ready().values)
        if "cause" in before:
            return replace(network, cause=before["cause"])
        found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for how, seed, steps in self._trainings(chosen, costs):
            key = {"how": how, "seed": seed, "steps": steps, **self.training.facts(scratch=how != TRAINED)}
            train = functools.partial(self._trained, chosen, ready, how, seed, steps)
            values = self._recorded(chosen, key, train)
            if "cause" in values:
                return replace(network, before=before, cause=values["cause"])
            for value in values:
                found[how][value].append(values[value])
        after, scratch_e, scratch_b = (dict(found[how]) for how in (TRAINED, SCRATCH_E, SCRATCH_B))
        return replace(network, before=before, after=after, scratch_e=scratch_e, scratch_b=scratch_b)

    def _trainings(self, chosen: Chosen, costs: Mapping[str, float]) -> list[tuple[str, int, int]]:
        """The ways to train a network, with the seeds and steps."""
        steps, dense = self.training.steps, self.session.dense_costs
        ways = [(TRAINED, steps)]
        if self.request.scratch and not chosen.order:
            ways += [(SCRATCH_E, steps), (SCRATCH_B, round(steps * dense["macs"] / costs["macs"]))]
        return [(how, seed, count) for how, count in ways for seed in range(self.request.seeds)]

    def _trained(self, chosen: Chosen, ready: Callable[[], Ready], how: str, seed: int, steps: int) -> Values:
        network, subnet = ready().network, self._bank(chosen.order).subnet(self._counts(chosen))
        if how == TRAINED:
            return self._measures.after(self.training.trained(network, subnet, seed))
        return self._measures.after(self.training.from_scratch(network, subnet, seed, steps))

    def _recorded(self, chosen: Chosen, key: Mapping[str, Any], measure: Callable[[], Values]) -> Values:
        """The values of a measurement, or the cause why there are none."""

        def measured() -> Values:
            try:
                return measure()
            except (PluginError, TrainingDiverged) as error:
                return {"cause": str(error)}

        network = {"levels": list(chosen.levels), "order": chosen.order}
        return self.records.get({**self.facts, **network, **key}, measured)

    def _ready(self, chosen: Chosen) -> Ready:
        bank = self._bank(chosen.order)
        return self._measures.before(bank, bank.subnet(self._counts(chosen)))

    def _counts(self, chosen: Chosen) -> dict[str, int]:
        return self.session.space.counts(Candidate(chosen.levels))

    def _bank(self, order: str) -> Bank:
        return self.session.bank if not order else self._banks[order]

    @functools.cached_property
    def _banks(self) -> dict[str, Bank]:
        """The banks with other orders of positions."""
        return {order: self._ordered(order) for order in self.request.orders}

    def _ordered(self, order: str) -> Bank:
        session, bank = self.session, self.session.bank
        units = [session.structure.unit(name) for name in session.sliced]
        given = session.model, session.structure, units, CRITERIA[order], bank.moments, session.scorer.calibrate
        return bank.with_orders(order_units(*given)[0])

    @functools.cached_property
    def _measures(self) -> Measures:
        return Measures(self.session)
