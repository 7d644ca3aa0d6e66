"""The result of tracing, as plain data: units, frozen parts and reasons, costs, sizes that modules keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.unit import Span, Unit
from autoprune.errors import SpaceError, UnsupportedModel
from autoprune.prune.passes.site import CallSite, Pass

LISTED = 8  # units that are named where a structure is shown


@dataclass(frozen=True)
class Frozen:
    """A part of the network that cannot be pruned: its name, the share of MACs that no unit touches, and the reason."""

    what: str
    share: float
    reason: str


@dataclass(frozen=True)
class ModuleSize:
    """An integer of a module (in_channels, num_heads, normalized_shape[0], ...), as a polynomial in kept counts."""

    module: str
    attribute: str
    value: Polynomial


@dataclass(frozen=True)
class Term:
    """The multiply-accumulates of one operator call in one module, as a polynomial in the kept counts."""

    module: str
    macs: Polynomial


@dataclass(frozen=True)
class Read:
    """An operator that contracts, reduces or normalises one of its arguments over positions of units.

    It is number `visit`, from 1, of the `visits` traced at its site; `run` is the index of the pass (see Pass). `units`
    give the location of each unit's positions along `dim`.
    """

    site: CallSite
    visit: int
    visits: int
    argument: str
    dim: int
    units: tuple[tuple[str, Span], ...]
    run: int = 0


@dataclass(frozen=True)
class Unmet:
    """A parameter that no pass has read, so that its use is unknown."""

    name: str
    shape: tuple[int, ...]
    share: float  # share of all parameters


@dataclass(frozen=True)
class Addition:
    """An addition in a pass, number `visit` of the `visits` traced at its site, and one of its arguments."""

    site: CallSite
    visit: int
    visits: int
    argument: str
    run: int = 0


@dataclass(frozen=True)
class Branch:
    """An operand of an addition that can be removed as a whole, with everything that is removed with it.

    `modules`, in the order they run, map to the length of the tuple each returns, 0 for a bare tensor. In each pass
    that runs them the branch is one operand of an addition.
    """

    modules: Mapping[str, int]
    additions: tuple[Addition, ...]


@dataclass(frozen=True)
class Structure:
    """The prunable structure of a network: picklable, free of tensors.

    Attributes:
        units: the units that can be pruned.
        frozen: the parts that cannot, with reasons.
        cost: costs as polynomials in kept counts.
        sizes: integers that modules keep, as polynomials in kept counts.
        terms: multiply-accumulates of single operator calls in the first pass, to which costs refer as well.
        reads: operators that contract, reduce or normalise over positions of units.
        batch_norms: for a convolution or linear module, the batch norm that alone reads its output.
        adapted: modules that get an adapter, whose forward does not insist on their sizes (adapters.py).
        uncounted: operators whose MACs no rule counts.
        branches: the branch of every unit of kind "branches", by name.
        shapes: shapes of the parameters, as polynomials in kept counts.
        passes: the forward passes that the structure covers, the first one in eval mode.
        unmet: parameters that no pass has read; axes with the size of one of their dimensions are frozen.
        notes: sentences for the user about what was not examined or was removed.
    """

    units: tuple[Unit, ...]
    frozen: tuple[Frozen, ...]
    cost: CostModel
    sizes: tuple[ModuleSize, ...]
    terms: tuple[Term, ...]
    reads: tuple[Read, ...]
    batch_norms: Mapping[str, str]
    adapted: tuple[str, ...]
    uncounted: tuple[str, ...]
    branches: Mapping[str, Branch]
    shapes: Mapping[str, tuple[Polynomial, ...]]
    passes: tuple[Pass, ...] = (Pass(),)
    unmet: tuple[Unmet, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(unit.kind for unit in self.units).items())
        dense = ", ".join(f"{name} {value:,}" for name, value in self.cost.dense().items())
        names = [unit.name for unit in self.units]
        shown = ", ".join(names if len(names) <= LISTED else [*names[: LISTED - 1], f"... {names[-1]}"])
        return (
            f"Structure: {len(names)} units{f' ({kinds})' if kinds else ''}, {len(self.frozen)} frozen parts\n"
            f"  dense: {dense}; {self.joint_share(names):.1%} of the macs can go\n"
            f"  units: {shown or 'none'}"
        )

    def unit(self, name: str) -> Unit:
        """The unit of that name; SpaceError if there is none."""
        for unit in self.units:
            if unit.name == name:
                return unit
        raise SpaceError(f"no unit is called {name!r}; units are {[unit.name for unit in self.units]}")

    def check_prunable(self) -> None:
        """Raises UnsupportedModel, with the reasons, for a network in which nothing can be pruned."""
        if not self.units:
            reasons = "; ".join(f"{row.what}: {row.reason}" for row in self.frozen[:5])
            raise UnsupportedModel(f"expected something that can be pruned, every axis is frozen: {reasons}")

    def share(self, name: str, cost: str = "macs") -> float:
        """The share of the dense cost ("macs" or "params") that removing the whole unit would save."""
        return self.joint_share((name,), cost)

    def joint_share(self, names: Iterable[str], cost: str = "macs") -> float:
        """The share of the dense cost that removing all of these units would save."""
        polynomial = self.cost.costs[cost]
        if not isinstance(polynomial, Polynomial):
            raise SpaceError(f"expected a cost that is a polynomial, such as macs or params, got {cost!r}")
        dense = self.cost.dense()[cost]
        rest = polynomial.substitute({**self.cost.widths, **dict.fromkeys(names, 0)}).terms.get((), 0)
        return 1 - rest / dense if dense else 0.0

    def keeping_two(self) -> Structure:
        """A copy in which every unit keeps at least two positions, since statistics of one position are degenerate."""
        units = tuple(replace(u, least=max(u.least, 2)) if u.width > 2 and not u.is_branch else u for u in self.units)
        return replace(self, units=units)

    def demote(self, names: Mapping[str, str]) -> Structure:
        """A copy with some units frozen, each for the given reason."""
        widths = {name: self.unit(name).width for name in names}
        terms = tuple(replace(term, macs=term.macs.substitute(widths)) for term in self.terms)
        total = self.cost.dense()["macs"]
        lost = dict.fromkeys(names, 0)
        for old, new in zip(self.terms, terms, strict=True):
            if old.macs.units and not new.macs.units:
                lost[min(old.macs.units)] += int(new.macs.terms.get((), 0))
        costs = {
            cost: poly.substitute(widths) if isinstance(poly, Polynomial) else poly
            for cost, poly in self.cost.costs.items()
        }
        rows = tuple(Frozen(name, lost[name] / total if total else 0.0, reason) for name, reason in names.items())
        return replace(
            self,
            units=tuple(unit for unit in self.units if unit.name not in names),
            frozen=(*self.frozen, *rows),
            cost=CostModel({unit: count for unit, count in self.cost.widths.items() if unit not in names}, costs),
            sizes=tuple(replace(size, value=size.value.substitute(widths)) for size in self.sizes),
            terms=terms,
            reads=tuple(_without(read, names) for read in self.reads),
            branches={name: branch for name, branch in self.branches.items() if name not in names},
            shapes={tensor: tuple(n.substitute(widths) for n in sizes) for tensor, sizes in self.shapes.items()},
        )


def _without(read: Read, names: Mapping[str, str]) -> Read:
    return replace(read, units=tuple(part for part in read.units if part[0] not in names))
