"""Surgery on its own: `shrink` a network without any search, `verify` that the result is right."""

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
_POSITIONS = "autoprune_positions"  # attribute of a shrunk network: what it kept of the one it came from


def shrink(model: nn.Module, structure: Structure, kept: float | Mapping[str, Amount]) -> nn.Module:
    """A really smaller copy of the network, in the mode the model is in; the model itself is not touched.

    Args:
        model: the network the structure was found on. Of one in DataParallel, DistributedDataParallel or torch.compile
            the copy is of the network inside.
        structure: from `find_structure`.
        kept: a fraction for all units, or by unit name a fraction (a float in (0, 1], rounded up), a count (an int)
            or explicit positions; units not named stay whole. Which positions stay for a fraction or a count is
            decided by the L2 norm of the weights that produce them. A branch goes with a count of 0 or no positions.

    Raises:
        SpaceError: a name that is no unit, or a count below what the unit must keep or above its width.
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
    """How far a network made by `shrink` is from the original with everything removed set to zero; see VerifyReport.

    They are compared in every call that is given and that the structure was found with, in eval mode and, on copies
    without randomness, in train mode where the original runs in it.

    Raises VerifyError for a network that `shrink` did not make, or for a call that the structure does not know.
    """
    (model, _), (small, _) = unwrapped(model), unwrapped(small)
    recorded = getattr(small, _POSITIONS, None)
    if recorded is None:
        raise VerifyError(f"expected a network made by shrink, got a {type(small).__name__} that was not")
    positions: Positions = {name: np.array(chosen, dtype=np.int64) for name, chosen in recorded.items()}
    return verify_positions(model, copy_model(small), structure, positions, example_inputs)


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
