"""Weight units: zeros in place of single entries of a weight, or of some entries in every group of consecutive inputs.

Tensors keep their shapes, so a network with zeros is as large as before until it is compressed or run by kernels that
skip zeros; the costs `nonzeros` and `effective_macs` count the remaining entries and the multiplications with them.
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
    """The weights that rules of the kinds weights and pattern select, by unit name.

    A unit is named after its weight, such as "layer1.0.conv1.weight". Only weights of linear and convolutional modules
    that use torch's own forward have units. A weight has none if several modules share it, if its module is never
    called, if other units change how many times its entries are used, or, for a pattern, if it has fewer inputs than a
    group.

    Args:
        model: the dense network.
        structure: its structure.
        rules: the rules of the search space; the first one that matches a weight applies.
    """
    asked = [rule for rule in rules if rule.kind in SPARSE_KINDS]
    if not asked:
        return {}
    offered = [w for name in plain_weights(model) if (w := _weight(model, structure, name)) is not None]
    chosen = (_first(weight, asked, model.get_parameter(weight.unit).shape[1]) for weight in offered)
    return {weight.unit: weight for weight in chosen if weight is not None}


def sparse_units(model: nn.Module, weights: Mapping[str, SparseWeight]) -> tuple[Unit, ...]:
    """The units of sparse weights, in the model's order."""
    return tuple(_unit(weight, model.get_parameter(name).shape[0]) for name, weight in weights.items())


def _unit(weight: SparseWeight, rows: int = 1) -> Unit:
    slots = (Slot(weight.unit, 0, "along", Span(inner=rows)),)
    if weight.group:
        return Unit(weight.unit, "pattern", weight.whole, slots)
    return Unit(weight.unit, "weights", weight.whole, slots, least=0)


def plain_weights(model: nn.Module) -> list[str]:
    """Names of the weights that belong to a single module, which only multiplies its input by the weight."""
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
    """The weight with the group size of the first rule that matches it; None if no rule matches."""
    for rule in rules:
        group = rule.group if rule.kind == "pattern" else 0
        asked = replace(weight, group=group)
        if inputs >= group and rule.covers(_unit(asked)):
            return asked
    return None
