"""Collects second moments of every consumer's inputs in one pass over unlabelled examples."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from autoprune.errors import DataError
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.moments.consumers import MAX_COLUMNS, Consumer, MomentsForm, find_consumers
from autoprune.prune.moments.design import Design
from autoprune.prune.passes.containers import copied
from autoprune.prune.structure.structure import Structure
from autoprune.prune.surgery.surgery import rebuild

ROWS_BYTES = 1 << 22  # size of a piece of rows, which fits into the cache; a piece has at least as many rows as columns


@dataclass(frozen=True)
class Moments:
    """Float64 second moments of the rows that a consumer's weight multiplies.

    Attributes:
        design: the design of the rows.
        form: "columns" or "channels".
        gram: (g, d, d), for each group the mean of x x^T, over d = k columns or, in the form "channels", over d = k /
            kernel inputs and summed over kernel positions.
        mean: (g, k) mean of the rows.
        centred: whether `gram` is about the mean, as it is if a constant can be fitted together with the weights.
        rows: the number of rows that the moments are computed from.
        constants: for every bias that absorbs such a constant, the (g, k) mean of the rows of the modules that add it;
            a batch norm that will be re-estimated has no entry.
    """

    design: Design
    form: MomentsForm
    gram: torch.Tensor
    mean: torch.Tensor
    centred: bool
    rows: int
    constants: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def block(self) -> int:
        """The number of rows of `gram` per input."""
        return self.design.kernel if self.form == "columns" else 1


def collect_moments(
    model: nn.Module,
    structure: Structure,
    weights: Sequence[str],
    batches: Iterable[tuple[torch.Tensor, ...]],
    max_columns: int = MAX_COLUMNS,
) -> tuple[dict[str, Moments], dict[str, str]]:
    """Collects the second moments of weights' inputs in one pass over the batches.

    A weight that several modules use gets the moments of all of them together.

    Args:
        model: the network.
        structure: its structure.
        weights: names of consumer weights.
        batches: positional arguments of the model, one batch each.
        max_columns: see `find_consumers`.

    Returns:
        Moments by weight name, and the reason for every weight without them.

    Raises:
        DataError: there are no batches.
    """
    consumers, reasons = find_consumers(model, structure, weights, max_columns)
    watched = rebuild(model, {}, {}, structure.adapted, share=True).eval()
    sums = {name: _watch(watched, consumer) for name, consumer in consumers.items()}
    examples = 0
    with torch.no_grad():
        for inputs in batches:
            examples += len(inputs[0])
            watched(*copied(inputs))
    if not examples:
        raise DataError("expected at least one batch to collect statistics from, got none. Check `calibrate`.")
    reasons |= {name: reason for name, parts in sums.items() if (reason := _unusable(parts.values()))}
    biases = named_tensors(model).keys()
    return {n: _merged(consumers[n], parts, biases) for n, parts in sums.items() if n not in reasons}, reasons


def _watch(model: nn.Module, consumer: Consumer) -> dict[str, _Sums]:
    """Sums that hooks on the callers update, one for each parameter that absorbs a constant, as each has its mean."""
    sums: dict[str, _Sums] = {}
    for caller in consumer.callers:
        total = sums.setdefault(caller.constant, _Sums(consumer))
        model.get_submodule(caller.module).register_forward_pre_hook(total.add, with_kwargs=True)
    return sums


class _Sums:
    """Running sums of x and x x^T over the rows that a weight multiplies, in float64 on the CPU.

    The mean of the first rows is subtracted from x, because float32 would lose a variance far below the squared mean.
    The sums are allocated at the start, next to each other: allocated between the rows of two layers, they would keep
    malloc from reusing that memory.
    """

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.count = 0
        self.refused = ""
        self.shift: torch.Tensor | None = None  # (g, k)
        groups, size = consumer.design.groups, consumer.size
        self.first = torch.zeros(groups, consumer.design.columns, dtype=torch.float64)
        self.second = torch.zeros(groups, size, size, dtype=torch.float64)

    def add(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        if isinstance(module, nn.MultiheadAttention) and any(x is not inputs[0] for x in inputs[:3]):
            self.refused = "queries, keys and values are made of different inputs"
            return
        design, x = self.consumer.design, inputs[0].detach()
        for rows in design.pieces(x, max(design.columns, ROWS_BYTES // (4 * design.groups * design.columns))):
            if self.shift is None:
                self.shift = rows.double().mean(dim=1).float()  # the mean of the first piece
            rows -= self.shift[:, None]
            self.count += rows.shape[1]
            self.first += rows.sum(dim=1).cpu().double()
            lifted = self._lifted(rows)
            self.second += (lifted.transpose(1, 2) @ lifted).cpu().double()

    def _lifted(self, rows: torch.Tensor) -> torch.Tensor:
        """(g, n * q, d) from (g, n, k) rows: kernel positions become rows if moments are those of channels."""
        groups, size = self.consumer.design.groups, self.consumer.size
        return rows.reshape(groups, rows.shape[1], size, -1).transpose(2, 3).reshape(groups, -1, size)

    def finish(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The (g, k) mean and the (g, d, d) covariance."""
        assert self.shift is not None, "finish comes after add"
        drift = self.first / self.count
        covariance = self.second / self.count - _outer(drift, self.consumer.size)
        return self.shift.cpu().double() + drift, covariance


def _outer(mean: torch.Tensor, size: int) -> torch.Tensor:
    """The (g, d, d) contribution of a (g, k) mean to the second moments."""
    lifted = mean.reshape(len(mean), size, -1)
    return lifted @ lifted.transpose(1, 2)


def _unusable(parts: Iterable[_Sums]) -> str:
    """The reason why sums cannot be used; empty if they can."""
    parts = list(parts)
    refused = next((part.refused for part in parts if part.refused), "")
    if refused:
        return refused
    if not any(part.count for part in parts):
        return "the forward uses it without calling its module"
    if not all(bool(torch.isfinite(part.second).all()) for part in parts):
        return "its inputs, or their squares, are not finite"
    return ""


def _merged(consumer: Consumer, parts: Mapping[str, _Sums], biases: Collection[str]) -> Moments:
    """The moments of all callers together, centred if each of them can absorb a constant."""
    called = {constant: part for constant, part in parts.items() if part.count}
    count = sum(part.count for part in called.values())
    centred = all(called)
    gram, mean, constants = torch.zeros(()), torch.zeros(()), {}
    for constant, part in called.items():
        own, covariance = part.finish()
        share = part.count / count
        gram = gram + share * (covariance if centred else covariance + _outer(own, consumer.size))
        mean = mean + share * own
        if centred and constant in biases:
            constants[constant] = own
    gram = (gram + gram.transpose(1, 2)) / 2  # made exactly symmetric: products are symmetric up to rounding
    return Moments(consumer.design, consumer.form, gram, mean, centred, count, constants)
