"""One pass over unlabelled images: second moments of what every consumer reads, for criteria and compensation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from autoprune.core.unit import Unit
from autoprune.errors import DataError
from autoprune.prune.structure import Structure
from autoprune.prune.surgery import rebuild

UNFOLDED_BYTES = 1 << 28  # unfolded inputs are made in pieces of at most this size


@dataclass(frozen=True)
class Moments:
    """Second moments of the rows a consumer's weight multiplies, for k columns = inputs x kernel positions.

    `gram` is (k, k) float64, the mean of x x^T; centred when a constant may be fitted beside the weights (the module
    has a bias, or a batch norm that will be re-estimated follows). `mean` is (k,).
    """

    gram: torch.Tensor
    mean: torch.Tensor
    centred: bool


def consumers_of(units: Sequence[Unit]) -> tuple[str, ...]:
    """Names of the weights that contract positions of the units, each once."""
    return tuple(dict.fromkeys(slot.tensor for unit in units for slot in unit.with_role("in")))


def collect_moments(
    model: nn.Module,
    structure: Structure,
    weights: Sequence[str],
    batches: Iterable[tuple[torch.Tensor, ...]],
    max_columns: int = 2304,
) -> tuple[dict[str, Moments], dict[str, str]]:
    """Moments by weight name, and for every weight without them the reason.

    Args:
        weights: names of consumer weights.
        batches: positional arguments of the model, a batch each.
        max_columns: consumers with more columns than this are left out; their moments would not be small (k * k * 8
            bytes each, 42 MB at the default).
    """
    watched = rebuild(model, {}, {}, structure.adapted, share=True).eval()
    reasons = {name: reason for name in weights if (reason := _unsupported(watched, name, max_columns))}
    sums = {name: _Sums() for name in weights if name not in reasons}
    for name, total in sums.items():
        _owner(watched, name).register_forward_pre_hook(total.add)
    images = 0
    with torch.no_grad():
        for inputs in batches:
            images += len(inputs[0])
            watched(*inputs)
    if not images:
        raise DataError("expected at least one batch to collect statistics from, got none. Check `calibrate`.")
    reasons |= {
        name: "the forward uses it without calling its module" for name, total in sums.items() if not total.count
    }
    called = {name: total for name, total in sums.items() if total.count}
    return {name: total.finish(_has_constant(watched, structure, name)) for name, total in called.items()}, reasons


def _owner(model: nn.Module, weight: str) -> nn.Module:
    return model.get_submodule(weight.rpartition(".")[0])


def _unsupported(model: nn.Module, weight: str, max_columns: int) -> str:
    module = _owner(model, weight)
    plain = isinstance(module, nn.Linear) or (
        isinstance(module, nn.Conv2d)
        and module.groups == 1
        and not isinstance(module.padding, str)
        and module.padding_mode == "zeros"
    )
    if not plain or not weight.endswith(".weight"):
        return f"no least squares for a weight of {type(module).__name__}"
    columns = cast(torch.Tensor, module.weight)[0].numel()
    return f"{columns} columns are more than the limit of {max_columns}" if columns > max_columns else ""


def _has_constant(model: nn.Module, structure: Structure, weight: str) -> bool:
    module = weight.rpartition(".")[0]
    return module in structure.batch_norms or getattr(_owner(model, weight), "bias", None) is not None


class _Sums:
    """Running sums of x and x x^T over the rows a module's weight multiplies; float64, on the CPU.

    Sums are of x less the mean of the first rows seen: a variance far below the squared mean would drown in float32.
    """

    def __init__(self) -> None:
        self.count = 0
        self.shift: torch.Tensor | None = None
        self.first: torch.Tensor = torch.zeros(())
        self.second: torch.Tensor = torch.zeros(())

    def add(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        for rows in _rows(module, inputs[0].detach()):
            if self.shift is None:
                self.shift = rows.cpu().double().mean(dim=1).float()
            rows = rows - self.shift.to(rows.device)[:, None]
            self.count += rows.shape[1]
            self.first = self.first + rows.sum(dim=1).cpu().double()
            self.second = self.second + (rows @ rows.T).cpu().double()

    def finish(self, centred: bool) -> Moments:
        assert self.shift is not None, "finish comes after add"
        drift = self.first / self.count
        mean, covariance = self.shift.double() + drift, self.second / self.count - torch.outer(drift, drift)
        return Moments(covariance if centred else covariance + torch.outer(mean, mean), mean, centred)


def _rows(module: nn.Module, x: torch.Tensor) -> Iterable[torch.Tensor]:
    """The (k, n) matrices a weight multiplies, in pieces."""
    if isinstance(module, nn.Conv2d):
        kernel = module.kernel_size[0] * module.kernel_size[1]
        # per example: channels x kernel positions x at most as many outputs as inputs, 4 bytes each
        step = max(1, UNFOLDED_BYTES // (4 * kernel * x[0].numel()))
        padding = cast(tuple[int, ...], module.padding)  # a padding in words is not supported, see _unsupported
        for start in range(0, len(x), step):
            piece = x[start : start + step].float()
            unfolded = functional.unfold(piece, module.kernel_size, module.dilation, padding, module.stride)
            yield unfolded.transpose(0, 1).flatten(1)  # (b, k, positions) -> (k, b * positions)
    else:
        yield x.float().flatten(0, -2).T
