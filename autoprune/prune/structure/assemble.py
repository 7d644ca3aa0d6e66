"""Turns a finished trace into a structure: selects the atoms that are units, and expresses everything else in them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import nn

from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.unit import Kind, Role, Slot, Span, Unit
from autoprune.prune.modules.attributes import get
from autoprune.prune.modules.names import numbered
from autoprune.prune.modules.skip import within
from autoprune.prune.structure.axes import Atom, Axis, Product, Sum, leaves, resolve, size, spans
from autoprune.prune.structure.recorder import Contraction, Recorder, RoleMark
from autoprune.prune.structure.structure import Branch, Frozen, ModuleSize, Read, Structure, Term
from autoprune.prune.structure.widths import follow_widths

SlotsByAtom = dict[Atom, list[Slot]]
UNSLICED = "not both produced and consumed by a weight"


def assemble(
    model: nn.Module, recorder: Recorder, adapted: tuple[str, ...], branches: Mapping[str, Branch]
) -> Structure:
    """The structure found by a trace.

    A unit is an atom of two or more positions that is not frozen, that some weight produces, and that some weight or a
    product of activations contracts. A branch is a further kind of unit, and multiplies the cost of everything that is
    removed with it.
    """
    roles = _Roles(recorder)
    activations = [*recorder.attended, *recorder.routed, *(axis for axis, _ in recorder.computed)]
    attended, normalised = _atoms(activations), _atoms(recorder.normalised)
    least, multiples = _largest(recorder.least, max), _largest(recorder.multiples, math.lcm)
    between = {atom: found for atom, found in _slots(recorder, roles).items() if _is_between(atom, found, attended)}
    prunable = {atom: found for atom, found in between.items() if not atom.frozen}
    kind_of = _kinds(recorder, normalised)
    kinds = {atom: kind_of(atom) for atom in prunable}
    names = _names(prunable, kinds)
    sizer = _Sizer(names)
    units = (
        *(
            Unit(names[a], kinds[a], a.size, tuple(s), a in normalised, least.get(a, 1), multiples.get(a, 1))
            for a, s in prunable.items()
        ),
        *(_branch_unit(name, branch, model) for name, branch in branches.items()),
    )
    terms = tuple(
        Term(c.module, sizer.product(c.constant, c.axes) * _presence(c.module, branches)) for c in recorder.contractions
    )
    params = [
        sizer.product(1, recorder.roots[name]) * _presence(name, branches) for name, _ in model.named_parameters()
    ]
    sizes = _module_sizes(model, recorder, sizer)
    followed, notes = follow_widths(model, recorder, sizer, sizes)
    costs = {"macs": _total([term.macs for term in terms]), "params": _total(params)}
    return Structure(
        units=units,
        frozen=(*(rows := _frozen(recorder, terms)), *_kept_whole(between, rows)),
        cost=CostModel({unit.name: unit.width for unit in units}, costs),
        sizes=(*sizes, *followed),
        terms=terms,
        reads=_reads(recorder, names),
        batch_norms=recorder.sole_norms(),
        adapted=adapted,
        uncounted=tuple(recorder.uncounted),
        branches=branches,
        notes=notes,
        shapes={name: tuple(map(sizer, recorder.roots[name])) for name, _ in model.named_parameters()},
    )


def _branch_unit(name: str, branch: Branch, model: nn.Module) -> Unit:
    inside = [(tensor, p) for tensor, p in model.named_parameters() if within(tensor, branch.modules)]
    slots = tuple(Slot(tensor, 0, "along", Span(inner=len(p) if p.dim() else 1)) for tensor, p in inside)
    return Unit(name, "branches", 1, slots, least=0)


def _presence(name: str, branches: Mapping[str, Branch]) -> Polynomial:
    """1 while every branch that contains a module or tensor is kept, else 0."""
    result = Polynomial.constant(1)
    for unit, branch in branches.items():
        if within(name, branch.modules):
            result = result * Polynomial.of(unit)
    return result


class _Roles:
    """The roles of parameters' dimensions, derived from the marks.

    A mark refers to one dimension of a parameter if that dimension carries the mark's own axis; otherwise, as for
    tensors computed from the parameter, it refers to every dimension that has its atoms.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.exact: dict[int, list[Role]] = {}
        self.loose: dict[str, list[RoleMark]] = {}
        roots = {id(axis) for axes in recorder.roots.values() for axis in axes}
        for mark in recorder.marks:
            if id(mark.axis) in roots:
                self.exact.setdefault(id(mark.axis), []).append(mark.role)
                continue
            for name in mark.parameters:
                self.loose.setdefault(name, []).append(mark)

    def of(self, tensor: str, root: Axis, atom: Atom) -> list[Role]:
        loose = [mark.role for mark in self.loose.get(tensor, ()) if atom in leaves(mark.axis)]
        return list(dict.fromkeys(self.exact.get(id(root), []) + loose)) or ["along"]


def _slots(recorder: Recorder, roles: _Roles) -> SlotsByAtom:
    slots: SlotsByAtom = {}
    for tensor, roots in recorder.roots.items():
        for dim, root in enumerate(roots):
            for atom, span in spans(root):
                slots.setdefault(atom, []).extend(Slot(tensor, dim, r, span) for r in roles.of(tensor, root, atom))
    return slots


def _atoms(axes: Iterable[Axis]) -> set[Atom]:
    return {atom for axis in axes for atom in leaves(axis)}


def _largest(demands: Sequence[tuple[Axis, int]], combine: Callable[[int, int], int]) -> dict[Atom, int]:
    """The combined demand on each atom's number of positions."""
    found: dict[Atom, int] = {}
    for axis, count in demands:
        for atom in leaves(axis):
            found[atom] = combine(found.get(atom, 1), min(count, atom.size))
    return found


def _is_between(atom: Atom, slots: Sequence[Slot], attended: set[Atom]) -> bool:
    roles = {slot.role for slot in slots}
    return atom.size > 1 and "out" in roles and ("in" in roles or atom in attended)


def _kinds(recorder: Recorder, normalised: set[Atom]) -> Callable[[Atom], Kind]:
    """The kind of each unit: the first one that applies; the last resort is neurons of linear layers."""
    kinds: tuple[tuple[Kind, set[Atom]], ...] = (
        ("experts", _atoms(recorder.routed)),
        ("heads", _atoms(recorder.batched)),
        ("head_dim", _atoms(recorder.attended)),
        ("channels", _atoms(recorder.convolved) | normalised),
    )
    return lambda atom: next((kind for kind, atoms in kinds if atom in atoms), "neurons")


def _names(prunable: Mapping[Atom, Sequence[Slot]], kinds: Mapping[Atom, str]) -> dict[Atom, str]:
    """A unit's name: the module that first produces it, and the kind.

    The kind is omitted for channels and neurons, which modules are expected to produce; several units of one kind are
    numbered.
    """
    plain = {atom: _producer(slots) for atom, slots in prunable.items()}
    bases = [n if kinds[a] in ("channels", "neurons") else f"{n}/{kinds[a]}" for a, n in plain.items()]
    return dict(zip(plain, numbered(bases), strict=True))


class _Sizer:
    """Sizes of axes as polynomials in the kept counts of named atoms; all other atoms are constants."""

    def __init__(self, names: Mapping[Atom, str]) -> None:
        self.names = names

    def __call__(self, axis: Axis) -> Polynomial:
        axis = resolve(axis)
        if isinstance(axis, Sum):
            return _total([self(part) for part in axis.parts])
        if isinstance(axis, Product):
            return self.product(1, axis.factors)
        return Polynomial.of(self.names[axis]) if axis in self.names else Polynomial.constant(axis.size)

    def product(self, constant: int, axes: Sequence[Axis]) -> Polynomial:
        result = Polynomial.constant(constant)
        for axis in axes:
            result = result * self(axis)
        return result


def _total(polynomials: Sequence[Polynomial]) -> Polynomial:
    total = Polynomial()
    for polynomial in polynomials:
        total = total + polynomial
    return total


def _frozen(recorder: Recorder, terms: Sequence[Term]) -> tuple[Frozen, ...]:
    """One row for each module with operators that no unit touches: their share of the MACs and the reasons."""
    computed = {
        atom: f"{why}; no weight produces these positions" for axis, why in recorder.computed for atom in leaves(axis)
    }
    dense = [c.constant * math.prod(size(axis) for axis in c.axes) for c in recorder.contractions]
    macs: Counter[str] = Counter()
    reasons: dict[str, dict[str, None]] = {}
    for contraction, term, count in zip(recorder.contractions, terms, dense, strict=True):
        if not term.macs.units:
            macs[contraction.module] += count
            reasons.setdefault(contraction.module, {}).update(_reasons(contraction, computed))
    total = max(sum(dense), 1)
    return tuple(Frozen(module, macs[module] / total, "; ".join(why)) for module, why in reasons.items())


def _reasons(contraction: Contraction, computed: Mapping[Atom, str]) -> dict[str, None]:
    """The reasons why none of a product's axes can lose positions."""
    atoms = [atom for axis in contraction.axes for atom in leaves(axis) if atom.size > 1]
    found = dict.fromkeys(atom.frozen or computed.get(atom) or UNSLICED for atom in atoms)
    features = {atom.frozen for axis in contraction.axes[1:] for atom in leaves(axis) if atom.size > 1}
    if features <= {"spatial"}:  # the remaining axis is the number of examples
        found["what it reads and what it makes are single positions, of which none can go"] = None
    return found


def _kept_whole(between: SlotsByAtom, rows: Sequence[Frozen]) -> tuple[Frozen, ...]:
    """Frozen axes that would otherwise be units, in modules whose operators other units touch; their share is 0."""
    told = {row.what for row in rows}
    found: dict[str, dict[str, None]] = {}
    for atom, slots in between.items():
        module = _producer(slots)
        if atom.frozen and atom.frozen not in ("model input", "model output") and module not in told:
            found.setdefault(module, {})[atom.frozen] = None
    return tuple(Frozen(module, 0.0, "; ".join(reasons)) for module, reasons in found.items())


def _producer(slots: Sequence[Slot]) -> str:
    """The module that first produces the positions; the tensor's name if that is the model itself."""
    tensor = next(slot.tensor for slot in slots if slot.role == "out")
    return tensor.rpartition(".")[0] or tensor


def _reads(recorder: Recorder, names: Mapping[Atom, str]) -> tuple[Read, ...]:
    found = []
    for reading in recorder.readings:
        units = tuple((names[atom], span) for atom, span in spans(reading.axis) if atom in names)
        if units:
            visits = recorder.visits[reading.run][reading.site]
            found.append(Read(reading.site, reading.visit, visits, reading.argument, reading.dim, units, reading.run))
    return tuple(found)


def _module_sizes(model: nn.Module, recorder: Recorder, sizer: _Sizer) -> tuple[ModuleSize, ...]:
    found: dict[tuple[str, str], ModuleSize] = {}
    slopes = [  # a PReLU reshapes its weight before its operator runs
        (name, "num_parameters", recorder.roots[f"{name}.weight"][0])
        for name, module in model.named_modules()
        if isinstance(module, nn.PReLU) and f"{name}.weight" in recorder.roots
    ]
    computed = [(module, path, axis) for (module, path), axis in recorder.sizes.kept.items()]
    for name, path, axis in [*computed, *recorder.module_sizes, *slopes]:
        value = sizer(axis)
        if value.units and _holds(model.get_submodule(name), path, size(axis)):
            found.setdefault((name, path), ModuleSize(name, path, value))
    return tuple(found.values())


def _holds(module: nn.Module, path: str, value: int) -> bool:
    """Whether a path leads to an integer of this value."""
    try:
        return type(get(module, path)) is int and get(module, path) == value
    except (AttributeError, IndexError, KeyError, TypeError):
        return False
