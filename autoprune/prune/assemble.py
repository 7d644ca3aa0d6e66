"""From a finished trace to a structure: which atoms are units, and everything else in terms of their names."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from torch import nn

from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.unit import Slot, Unit
from autoprune.prune.axes import Atom, Axis, Product, Sum, leaves, resolve, size, spans
from autoprune.prune.recorder import Contraction, Recorder
from autoprune.prune.structure import Frozen, ModuleSize, Structure, Term


def assemble(model: nn.Module, recorder: Recorder) -> Structure:
    """The structure a trace has found.

    A unit is an atom of two or more positions that is not frozen, that some weight produces and some weight consumes.
    """
    slots = _slots(recorder)
    prunable = {atom: found for atom, found in slots.items() if _is_unit(atom, found)}
    names = _names(prunable)
    sizer = _Sizer(names)
    units = tuple(Unit(names[atom], "channels", atom.size, tuple(found)) for atom, found in prunable.items())
    terms = tuple(Term(c.module, sizer.product(c.constant, c.axes)) for c in recorder.contractions)
    params = [sizer.product(1, recorder.roots[name]) for name, _ in model.named_parameters()]
    costs = {"macs": _total([term.macs for term in terms]), "params": _total(params)}
    return Structure(
        units=units,
        frozen=_frozen(recorder.contractions, terms),
        cost=CostModel({unit.name: unit.width for unit in units}, costs),
        sizes=_module_sizes(model, recorder, sizer),
        terms=terms,
        batch_norms={m: norm for m, norm in recorder.batch_norms.items() if recorder.uses[m] == 1},
        uncounted=tuple(recorder.uncounted),
    )


def _slots(recorder: Recorder) -> dict[Atom, list[Slot]]:
    slots: dict[Atom, list[Slot]] = {}
    for tensor, roots in recorder.roots.items():
        for dim, root in enumerate(roots):
            for atom, span in spans(root):
                slots.setdefault(atom, []).append(Slot(tensor, dim, recorder.role(root), span))
    return slots


def _is_unit(atom: Atom, slots: Sequence[Slot]) -> bool:
    return not atom.frozen and atom.size > 1 and {"out", "in"} <= {slot.role for slot in slots}


def _names(prunable: Mapping[Atom, Sequence[Slot]]) -> dict[Atom, str]:
    """The module that first produces a unit (the tensor where that is the model itself), numbered where several."""
    tensors = {atom: next(s.tensor for s in slots if s.role == "out") for atom, slots in prunable.items()}
    modules = {atom: tensor.rpartition(".")[0] or tensor for atom, tensor in tensors.items()}
    produced = list(modules.values())
    names: dict[Atom, str] = {}
    for index, (atom, module) in enumerate(modules.items()):
        number = produced[: index + 1].count(module)
        names[atom] = f"{module}/{number}" if produced.count(module) > 1 else module
    return names


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


def _frozen(contractions: Sequence[Contraction], terms: Sequence[Term]) -> tuple[Frozen, ...]:
    """One row for every module with operators no unit touches: their share of the MACs, the reasons on their axes."""
    dense = [c.constant * math.prod(size(axis) for axis in c.axes) for c in contractions]
    macs: Counter[str] = Counter()
    reasons: dict[str, dict[str, None]] = {}
    for contraction, term, count in zip(contractions, terms, dense, strict=True):
        if not term.macs.units:
            macs[contraction.module] += count
            atoms = [atom for axis in contraction.axes for atom in leaves(axis) if atom.size > 1]
            found = dict.fromkeys(atom.frozen or "not both produced and consumed by a weight" for atom in atoms)
            reasons.setdefault(contraction.module, {}).update(found)
    return tuple(Frozen(module, macs[module] / sum(dense), "; ".join(why)) for module, why in reasons.items())


def _module_sizes(model: nn.Module, recorder: Recorder, sizer: _Sizer) -> tuple[ModuleSize, ...]:
    found: dict[tuple[str, str], ModuleSize] = {}
    slopes = [  # a PReLU reshapes its weight before its operator sees it
        (name, "num_parameters", recorder.roots[f"{name}.weight"][0])
        for name, module in model.named_modules()
        if isinstance(module, nn.PReLU) and f"{name}.weight" in recorder.roots
    ]
    for module, attribute, axis in [*recorder.sizes, *slopes]:
        value = sizer(axis)
        if value.units and isinstance(getattr(model.get_submodule(module), attribute, None), int):
            found[module, attribute] = ModuleSize(module, attribute, value)
    return tuple(found.values())
