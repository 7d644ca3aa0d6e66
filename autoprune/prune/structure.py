"""What tracing found out about a network, as plain data: units, what is frozen and why, costs, sizes modules keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.unit import Unit
from autoprune.errors import SpaceError


@dataclass(frozen=True)
class Frozen:
    """A part of the network that cannot be pruned: where, which share of the MACs no unit touches, and why."""

    what: str
    share: float
    reason: str


@dataclass(frozen=True)
class ModuleSize:
    """An integer attribute a module keeps (in_channels, groups, ...), as a polynomial in the kept counts."""

    module: str
    attribute: str
    value: Polynomial


@dataclass(frozen=True)
class Term:
    """The multiply-accumulates of one operator call in one module, as a polynomial in the kept counts."""

    module: str
    macs: Polynomial


@dataclass(frozen=True)
class Structure:
    """The prunable structure of a network: picklable, free of tensors.

    `batch_norms` names, for a convolution or linear module, the batch norm that alone reads its output.
    `uncounted` lists operators whose MACs no rule counts.
    """

    units: tuple[Unit, ...]
    frozen: tuple[Frozen, ...]
    cost: CostModel
    sizes: tuple[ModuleSize, ...]
    terms: tuple[Term, ...]
    batch_norms: Mapping[str, str]
    uncounted: tuple[str, ...]

    def unit(self, name: str) -> Unit:
        for unit in self.units:
            if unit.name == name:
                return unit
        raise SpaceError(f"no unit is called {name!r}; units are {[unit.name for unit in self.units]}")

    def share(self, name: str) -> float:
        """Share of the dense MACs in operators that the unit touches."""
        total = self.cost.dense()["macs"]
        touched = [self._dense(term.macs) for term in self.terms if name in term.macs.units]
        return sum(touched) / total if total else 0.0

    def demote(self, name: str, reason: str) -> Structure:
        """The same structure with one unit frozen for the given reason."""
        width = {name: self.unit(name).width}
        terms = tuple(replace(term, macs=term.macs.substitute(width)) for term in self.terms)
        lost = sum(
            self._dense(old.macs)
            for old, new in zip(self.terms, terms, strict=True)
            if old.macs.units > new.macs.units and not new.macs.units
        )
        total = self.cost.dense()["macs"]
        costs = {
            cost: poly.substitute(width) if isinstance(poly, Polynomial) else poly
            for cost, poly in self.cost.costs.items()
        }
        widths = {unit: count for unit, count in self.cost.widths.items() if unit != name}
        return replace(
            self,
            units=tuple(unit for unit in self.units if unit.name != name),
            frozen=(*self.frozen, Frozen(name, lost / total if total else 0.0, reason)),
            cost=CostModel(widths, costs),
            sizes=tuple(replace(size, value=size.value.substitute(width)) for size in self.sizes),
            terms=terms,
        )

    def _dense(self, polynomial: Polynomial) -> int:
        return polynomial.substitute(self.cost.widths).terms.get((), 0)
