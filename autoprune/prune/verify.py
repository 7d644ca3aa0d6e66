"""The proof that surgery is right: the small network computes what the masked original computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from autoprune.core.unit import Unit
from autoprune.prune.masks import masked
from autoprune.prune.modes import evaluating
from autoprune.prune.structure import Structure
from autoprune.prune.surgery import Positions, cut, rebuild
from autoprune.prune.trace import Examples, call_arguments

TOLERANCE = 1e-4
TRIALS: tuple[Callable[[int], int], ...] = (lambda n: n // 2, lambda n: n - 1, lambda n: 1)  # kept of n positions


@dataclass(frozen=True)
class VerifyReport:
    """How far the small network's outputs are from the masked original's.

    `errors` has, for each output tensor in order, the largest absolute difference over the largest absolute value of
    the reference; inf where shapes differ or a value is not finite.
    """

    errors: tuple[float, ...]
    compared: str

    @property
    def worst(self) -> float:
        return max(self.errors, default=float("inf"))

    @property
    def ok(self) -> bool:
        return self.worst <= TOLERANCE


def verify_positions(
    model: nn.Module,
    small: nn.Module,
    structure: Structure,
    positions: Positions,
    example_inputs: Examples,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> VerifyReport:
    """Compares a small network with the original in which the consumers of everything removed are zeroed.

    `weights` are consumer weights that were changed on the way (see masks.masked).
    """
    reference = masked(model, structure, positions, weights or {})
    left, right = _outputs(small, example_inputs), _outputs(reference, example_inputs)
    errors = tuple(_relative_error(a, b) for a, b in zip(left, right, strict=True))
    return VerifyReport(errors, f"small {type(small).__name__} with the original whose removed inputs are zeroed")


def demote_wrong_units(model: nn.Module, structure: Structure, example_inputs: Examples, seed: int = 0) -> Structure:
    """The structure without the units whose removal does not compute what masking computes.

    Positions are removed from all units at once (half of each, one of each, all but one of each; which ones is
    random) in a copy with randomised batch norms, so that no error can hide behind a zero bias. Only when that fails
    is every unit tried alone; a unit that fails becomes frozen, with what happened as the reason.
    """
    probe = randomised_norms(model, seed)
    trials = _trials(structure.units, seed)
    if not _first_failure(probe, structure, trials, example_inputs):
        return structure
    for unit in structure.units:
        alone = [{unit.name: positions[unit.name]} for positions in trials]
        if reason := _first_failure(probe, structure, alone, example_inputs):
            structure = structure.demote(unit.name, reason)
    names = {unit.name for unit in structure.units}
    remaining = [{name: kept for name, kept in positions.items() if name in names} for positions in trials]
    if reason := _first_failure(probe, structure, remaining, example_inputs):
        for unit in structure.units:  # right one by one, wrong together: nothing can be trusted
            structure = structure.demote(unit.name, f"together with other units: {reason}")
    return structure


def _trials(units: Sequence[Unit], seed: int) -> list[Positions]:
    """Kept positions of all units: a number that a forward relies on may fit one count by chance, hardly three."""
    rng = np.random.default_rng(seed)
    return [{u.name: np.sort(rng.permutation(u.width)[: max(keep(u.width), 1)]) for u in units} for keep in TRIALS]


def randomised_norms(model: nn.Module, seed: int) -> nn.Module:
    """A copy whose batch norms have random scale, shift and statistics."""
    probe = rebuild(model, {}, {})
    generator = torch.Generator().manual_seed(seed)
    for module in probe.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                if tensor is not None:
                    tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return probe


def _first_failure(
    model: nn.Module, structure: Structure, trials: Sequence[Positions], example_inputs: Examples
) -> str:
    """Why the network without the other positions is wrong in the first trial that fails; empty when all are right."""
    return next((reason for kept in trials if (reason := _failure(model, structure, kept, example_inputs))), "")


def _failure(model: nn.Module, structure: Structure, positions: Positions, example_inputs: Examples) -> str:
    """Why the network without the other positions is wrong; empty when it is right."""
    try:
        small = cut(model, structure, positions)
        report = verify_positions(model, small, structure, positions, example_inputs)
    except Exception as error:  # whatever a forward does with a size it did not expect is a finding, not a crash
        return f"the forward does not run with fewer positions: {type(error).__name__}: {error}"
    return "" if report.ok else f"pruned and masked outputs differ by {report.worst:.2g} relative"


def _outputs(model: nn.Module, example_inputs: Examples) -> list[torch.Tensor]:
    args, kwargs = call_arguments(example_inputs)
    # TensorFloat-32, which cuDNN uses by default, rounds to 1e-3
    with evaluating(model), torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        output: Any = model(*args, **kwargs)
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]


def _relative_error(small: torch.Tensor, reference: torch.Tensor) -> float:
    if small.shape != reference.shape:
        return float("inf")
    if not reference.numel():
        return 0.0
    small, reference = small.cpu().double(), reference.cpu().double()  # integers and flags are compared alike
    scale = reference.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    error = float(((small - reference).abs().max() / scale).item())
    return error if np.isfinite(error) else float("inf")
