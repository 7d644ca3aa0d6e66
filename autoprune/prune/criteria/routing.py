"""Statistics of mixtures of experts: what the router gave to each expert, and what the experts made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from autoprune.core.unit import Unit
from autoprune.prune.criteria.contract import RoutedStatistics
from autoprune.prune.devices.halving import whole_batches
from autoprune.prune.devices.precision import precise_dtype
from autoprune.prune.modules.borrowed import without_tf32
from autoprune.prune.moments.sums import tensors_in
from autoprune.prune.passes.containers import copied
from autoprune.prune.structure.structure import Structure
from autoprune.prune.surgery.surgery import rebuild


def collect_routing(
    model: nn.Module, structure: Structure, units: Iterable[Unit], batches: Sequence[tuple[torch.Tensor, ...]]
) -> Mapping[str, RoutedStatistics]:
    """Collects the statistics of experts in one pass over the batches, in which each expert runs twice.

    An expert's own output is what its module returns for rows that are all given to it with the weight 1. The module is
    called with the rows, (n, k) indices of experts and (n, k) weights of the router, as those of transformers are.

    Args:
        model: the dense network.
        structure: its structure.
        units: the units; those of other kinds are left out.
        batches: inputs of the model.

    Returns:
        The statistics by unit name, without units whose modules are called in another way.
    """
    experts = [unit for unit in units if unit.kind == "experts"]
    if not experts:
        return {}
    network = rebuild(model, {}, {}, structure.adapted, share=True).eval()
    routed = {unit.name: _Routed(unit.width) for unit in experts}
    for unit in experts:
        for name in unit.modules:
            network.get_submodule(name).register_forward_pre_hook(routed[unit.name].add, with_kwargs=True)
    with torch.no_grad(), without_tf32(), whole_batches(batches, stage="statistics of experts"):
        for inputs in batches:
            network(*copied(inputs))
    return {name: sums.finished() for name, sums in routed.items() if sums.rows}


class _Routed:
    """Running sums over the rows that each of so many experts gets."""

    def __init__(self, experts: int) -> None:
        self.experts = experts
        self.rows = 0
        self._busy = False
        self._sums: dict[tuple[str, int], torch.Tensor] = {}

    def add(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Adds the rows of a call of the module that holds the experts; other calls, as of the router, do not count."""
        inputs = tensors_in(args, kwargs)
        if self._busy or len(inputs) < 3 or inputs[1].is_floating_point() or inputs[1].shape != inputs[2].shape:
            return
        x, index, weights = inputs[0].flatten(0, -2), inputs[1].flatten(0, -2), inputs[2].flatten(0, -2)
        self.rows += len(x)
        self._busy = True
        try:
            for expert in range(self.experts):
                rows, places = torch.where(index == expert)
                if len(rows):
                    self._add(expert, self._output(module, x[rows], index, expert), weights[rows, places])
        finally:
            self._busy = False

    @staticmethod
    def _output(module: nn.Module, x: torch.Tensor, index: torch.Tensor, expert: int) -> torch.Tensor:
        """(n, d) output of an expert for rows, with the weight 1."""
        alone = index.new_full((len(x), 1), expert)
        output: torch.Tensor = module(x, alone, torch.ones_like(alone, dtype=x.dtype))
        return output.flatten(0, -2)

    def _add(self, expert: int, output: torch.Tensor, weights: torch.Tensor) -> None:
        output, weights = (values.to(precise_dtype(values.device)) for values in (output, weights))
        found = {
            "rows": torch.ones_like(weights).sum(),
            "weight": weights.sum(),
            "salience": (weights * output.norm(dim=1)).sum(),
            "first": output.sum(dim=0),
            "second": output.square().sum(dim=0),
        }
        for name, value in found.items():
            known = self._sums.get((name, expert))
            self._sums[name, expert] = value if known is None else known + value

    def finished(self) -> RoutedStatistics:
        """The means over each expert's rows."""
        experts = range(self.experts)
        width = next(len(value) for (name, _), value in self._sums.items() if name == "first")
        empty = {"first": torch.zeros(width), "second": torch.zeros(width)}

        def of_all(name: str) -> torch.Tensor:
            own = (self._sums.get((name, expert), empty.get(name, torch.zeros(()))) for expert in experts)
            return torch.stack([value.detach().cpu().double() for value in own])

        rows = of_all("rows")
        means = {name: of_all(name).movedim(0, -1) / rows.clamp(min=1) for name in ("salience", "first", "second")}
        spread = (means["second"] - means["first"].square()).clamp(min=0)
        return RoutedStatistics(rows, of_all("weight"), means["salience"], spread.T.sqrt())
