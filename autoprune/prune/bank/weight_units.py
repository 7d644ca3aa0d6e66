"""Weight units: zeros in place of single entries of a weight, or of some of every few inputs in a row.

Nothing is cut out, so a network with zeros is as large as before until it is compressed or run by kernels that skip
zeros; `nonzeros` and `effective_macs` count what is left to store and to multiply.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from autoprune.core.cost import Polynomial
from autoprune.core.levels import LevelRule
from autoprune.core.sparse import SparseWeight
from autoprune.core.unit import SPARSE_KINDS, Slot, Span, Unit
from autoprune.prune.modules.skip import within
from autoprune.prune.moments.design import CONVOLUTIONS, Design, design_of
from autoprune.prune.structure.structure import Structure


def sparse_weights(model: nn.Module, structure: Structure, rules: Sequence[LevelRule]) -> dict[str, SparseWeight]:
    """What the rules of the kinds weights and pattern ask for, by unit: of several rules the first for a weight counts.

    A unit is named after its weight, "layer1.0.conv1.weight". Linear and convolutional modules that use torch's own
    forward have one. Others do not, nor does a weight that several modules share, whose module is never called, or
    whose entries are used a number of times that other units change; nor, for a pattern, one with fewer inputs than a
    group.
    """
    asked = [rule for rule in rules if rule.kind in SPARSE_KINDS]
    if not asked:
        return {}
    offered = [w for name in _plain_weights(model) if (w := _weight(model, structure, name)) is not None]
    chosen = (_first(weight, asked, model.get_parameter(weight.unit).shape[1]) for weight in offered)
    return {weight.unit: weight for weight in chosen if weight is not None}


def sparse_units(model: nn.Module, weights: Mapping[str, SparseWeight]) -> tuple[Unit, ...]:
    """The units of some sparse weights, in the model's order."""
    return tuple(_unit(weight, model.get_parameter(name).shape[0]) for name, weight in weights.items())


def _unit(weight: SparseWeight, rows: int = 1) -> Unit:
    slots = (Slot(weight.unit, 0, "along", Span(inner=rows)),)
    if weight.group:
        return Unit(weight.unit, "pattern", weight.whole, slots)
    return Unit(weight.unit, "weights", weight.whole, slots, least=0)


def _plain_weights(model: nn.Module) -> list[str]:
    """Names of weights that only one module holds, which multiplies its input with it and does nothing else."""
    holders = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    return [
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, *CONVOLUTIONS))
        and isinstance(design_of(module), Design)
        and isinstance(module._parameters.get("weight"), nn.Parameter)
        and holders[id(module.weight)] == 1
    ]


def _weight(model: nn.Module, structure: Structure, name: str) -> SparseWeight | None:
    module = name.rpartition(".")[0]
    dense = model.get_parameter(name).numel()
    numel = _product(structure.shapes[name])
    for unit, branch in structure.branches.items():
        if within(name, branch.modules):
            numel = numel * Polynomial.of(unit)
    macs = Polynomial()
    for term in structure.terms:
        if term.module == module:
            macs = macs + term.macs
    uses = int(macs.substitute(structure.cost.widths).terms.get((), 0)) // dense
    if not uses or macs != numel * Polynomial.constant(uses):
        return None
    return SparseWeight(name, dense, numel, structure.shapes[name][1], uses)


def _product(sizes: Sequence[Polynomial]) -> Polynomial:
    return list(itertools.accumulate(sizes, lambda a, b: a * b, initial=Polynomial.constant(1)))[-1]


def _first(weight: SparseWeight, rules: Sequence[LevelRule], inputs: int) -> SparseWeight | None:
    """The weight as the first rule that is for it has it."""
    for rule in rules:
        group = rule.group if rule.kind == "pattern" else 0
        asked = replace(weight, group=group)
        if inputs >= group and rule.covers(_unit(asked)):
            return asked
    return None
