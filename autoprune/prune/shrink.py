"""Surgery without a search: `shrink` makes a smaller network, `verify` checks that it is right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from autoprune.core.unit import Unit
from autoprune.errors import SpaceError, VerifyError
from autoprune.prune.criteria import UnitStatistics
from autoprune.prune.criteria.magnitudes import l2
from autoprune.prune.criteria.ordering import order_unit
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.modules.wrappers import unwrapped
from autoprune.prune.passes.examples import Examples
from autoprune.prune.structure.structure import Structure
from autoprune.prune.surgery.surgery import Positions, check_positions, cut
from autoprune.prune.surgery.verify import VerifyReport, verify_positions

Amount = float | int | Sequence[int]
_POSITIONS = "autoprune_positions"  # attribute of a shrunk network: the positions that it kept of the original


def shrink(model: nn.Module, structure: Structure, kept: float | Mapping[str, Amount]) -> nn.Module:
    """Makes a smaller copy of a network; the network itself is not changed.

    Args:
        model: the network that the structure was found on. From DataParallel, DistributedDataParallel or torch.compile,
            the network inside is copied.
        structure: from `find_structure`.
        kept: a fraction for all units, or by unit name a fraction (a float in (0, 1], rounded up), a count (an int)
            or explicit positions; units not named stay whole. For a fraction or a count, the positions with the largest
            L2 norm of the weights that produce them stay. A count of 0, or no positions, removes a branch.

    Returns:
        The small network, in the model's training mode.

    Raises:
        SpaceError: a name is not a unit, or a count is below the least that the unit must keep or above its width.
        UnsupportedModel: a fraction for a network in which nothing can be pruned; the message says why.

    >>> half = shrink(model, structure, 0.5)
    >>> less = shrink(model, structure, {"layer1.0.conv1": 10, "layer2.0.conv1": 0.25, "conv1": [0, 3, 5]})
    """
    model, _ = unwrapped(model)
    if not isinstance(kept, Mapping):
        structure.check_prunable()
    amounts = kept if isinstance(kept, Mapping) else {unit.name: kept for unit in structure.units}
    tensors = named_tensors(model)
    positions = {name: _choose(structure.unit(name), amount, tensors) for name, amount in amounts.items()}
    small = cut(model, structure, positions)
    setattr(small, _POSITIONS, {name: chosen.tolist() for name, chosen in positions.items()})
    return small


def verify(model: nn.Module, small: nn.Module, structure: Structure, example_inputs: Examples) -> VerifyReport:
    """Compares a network made by `shrink` with the original in which all removed positions are set to zero.

    They are compared in eval mode and, on copies without randomness, in train mode if the original runs in it.

    Args:
        model: the original network.
        small: the network made by `shrink`.
        structure: the structure that it was made with.
        example_inputs: the calls to compare in, as for `find_structure`, which must know them.

    Returns:
        The differences; see VerifyReport.

    Raises:
        VerifyError: `shrink` did not make the network, or a call is not known to the structure.
    """
    (model, _), (small, _) = unwrapped(model), unwrapped(small)
    recorded = getattr(small, _POSITIONS, None)
    if recorded is None:
        raise VerifyError(f"expected a network made by shrink, got a {type(small).__name__} that was not")
    positions: Positions = {name: np.array(chosen, dtype=np.int64) for name, chosen in recorded.items()}
    return verify_positions(model, copy_model(small, share=True), structure, positions, example_inputs)


def _choose(unit: Unit, amount: Amount, tensors: Mapping[str, torch.Tensor]) -> np.ndarray:
    if not isinstance(amount, int | float):
        positions = np.unique(np.asarray(amount, dtype=np.int64))
        check_positions(unit, positions)
        return positions
    count = _count(unit, amount)
    return np.sort(order_unit(l2, unit, tensors, UnitStatistics(()))[:count])


def _count(unit: Unit, amount: float) -> int:
    if isinstance(amount, float) and 0 < amount <= 1:
        return unit.allowed(math.ceil(amount * unit.width - 1e-9))  # 0.7 of 10 is 7, not the 8 of 7.000000000000001
    if isinstance(amount, int) and unit.least <= amount <= unit.width and unit.allowed(amount) == amount:
        return amount
    steps = f" in steps of {unit.multiple}" if unit.multiple > 1 else ""
    raise SpaceError(
        f"unit {unit.name!r} has {unit.width} positions: expected a fraction in (0, 1] or a count from {unit.least} to "
        f"{unit.width}{steps} to keep, got {amount!r}"
    )
