"""Running sums of the rows that a weight multiplies, and of their products."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from autoprune.prune.devices.precision import PreciseSum, precise_dtype
from autoprune.prune.moments.consumers import Consumer
from autoprune.prune.moments.held_out import held_rows
from autoprune.prune.moments.shifts import add_products, row_sums, shift_macs, shiftable
from autoprune.prune.passes.precision import LOWER

ROWS_BYTES = 1 << 22  # size of a piece of rows, which fits into the cache; at least as many rows as columns
ROWS_A_COLUMN = 64  # rows that are sampled for each column; 16 raise the KL of ResNet-20 by up to 27 %, 64 by 0 %
LEVEL = 10.0  # a mean of so many standard deviations is subtracted before products are taken in float32


class Sums:
    """Running sums of x and x x^T over the rows that a weight multiplies, on the device of the model.

    Products are in float32 and added up in float64; in float32 for wide consumers and on devices without float64.
    Nothing is fetched from the device between rows. The mean of the first rows is subtracted from x, because float32
    would lose a variance far below the squared mean. Where there are many more rows than columns, one is taken at
    random from every few adjacent rows, unless shifted products of all rows take fewer multiplications. The sums are
    allocated at the start, next to each other: allocated between the rows of two layers, they would keep malloc from
    reusing that memory.

    Args:
        consumer: the weight.
        device: the device of the model.
        examples: the number of examples in all batches.
    """

    def __init__(self, consumer: Consumer, device: torch.device, examples: int) -> None:
        self.consumer = consumer
        self.examples = examples
        self.rows = 0  # rows that were used
        self.seen = 0  # all rows
        self.refused = ""
        self.shift: torch.Tensor | None = None  # (g, k)
        self.shifted = False  # whether products are those of shifts
        groups, size = consumer.design.groups * consumer.blocks, consumer.size // consumer.blocks
        dtype = torch.float32 if consumer.dtype == torch.float32 else precise_dtype(device)
        self.first = PreciseSum((consumer.design.groups, consumer.design.columns), device)
        self.second = torch.zeros(groups, size, size, dtype=dtype, device=device)
        self.held: HeldSums | None = None  # of examples that are held out, if there are few rows
        self._generator = torch.Generator().manual_seed(0)

    def refuse(self, module: nn.Module, inputs: list[torch.Tensor]) -> bool:
        """Whether a call cannot be used, which is then noted."""
        if isinstance(module, nn.MultiheadAttention) and any(x is not inputs[0] for x in inputs[:3]):
            self.refused = "queries, keys and values are made of different inputs"
        return bool(self.refused)

    def add(self, x: torch.Tensor, examples: int, first: int = 0) -> None:
        """Adds the rows of an input that belongs to a batch of so many examples, which follow the `first` ones."""
        design = self.consumer.design
        count = design.count(x)
        every = max(1, count * self.examples // (examples * ROWS_A_COLUMN * design.columns))
        self.seen += count
        if self.shift is None:
            if self.consumer.lacks_rows(count * self.examples // examples):
                self.held = HeldSums(self.first.value().shape, self.second, x.dtype)
            self.shifted = self.held is None and self._takes_shifts(x, every)
        if self.shifted:
            self._add_shifts(x.float())
        else:
            for positions in self._sampled(count, every):
                rows = design.rows(x, positions)
                if self.held is not None:
                    held = held_rows(positions, count, examples, first, self.examples).nonzero()[:, 0]
                    self.held.add(rows[:, held.to(rows.device)], self._shift_of(rows))
                self._add_rows(rows.sub_(self._shift_of(rows)))

    def finish(self, centred: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """The (g, k) mean, and the second moments about it or about zero. The sums are used up."""
        assert self.shift is not None, "finish comes after add"
        drift = self.first.value() / self.rows
        mean = self.shift.cpu().double() + drift
        second = self.second.cpu().to(self.consumer.dtype).div_(self.rows)
        second -= self._outer(drift).to(second)
        second.diagonal(dim1=1, dim2=2).clamp_(min=0)  # the difference of two sums may round to less
        if not centred:
            second += self._outer(mean).to(second)
        self.second = self.second[:0]
        return mean, second

    def held_moments(self, centred: bool) -> torch.Tensor | None:
        """(g, d, d) sums of products over the rows that are held out, about the mean or about zero; None without any.

        It comes before `finish`. The sums of these rows are used up.
        """
        assert self.shift is not None, "it comes after add"
        if self.held is None or not 0 < self.held.rows < self.rows:
            return None
        point = self.first.value() / self.rows if centred else -self.shift.cpu().double()
        first = self.held.first.value() - self.held.rows * point
        second, size = self.held.second().cpu().double(), self.second.shape[1]
        crossed = first.reshape(len(second), size, -1) @ point.reshape(len(second), size, -1).transpose(1, 2)
        return second.sub_(crossed).sub_(crossed.transpose(1, 2)).sub_(self._outer(point).mul_(self.held.rows))

    def _outer(self, mean: torch.Tensor) -> torch.Tensor:
        """The contribution of a (g, k) mean to the second moments."""
        lifted = mean.reshape(len(self.second), self.second.shape[1], -1)
        return lifted @ lifted.transpose(1, 2)

    def _takes_shifts(self, x: torch.Tensor, every: int) -> bool:
        """Whether shifted products take fewer multiplications than sampled rows, and are as accurate."""
        design = self.consumer.design
        if self.consumer.form != "columns" or self.consumer.blocks > 1 or not shiftable(design) or x.dim() != 4:
            return False
        gathered = design.count(x) // every * design.columns**2
        if len(x) * shift_macs(design, *x.shape[2:]) >= gathered:
            return False
        spread, level = torch.std_mean(x.float(), dim=(0, 2, 3), correction=0)
        return bool((level.abs() <= LEVEL * spread).all())

    def _add_shifts(self, x: torch.Tensor) -> None:
        design = self.consumer.design
        if self.shift is None:
            self.shift = torch.zeros(design.groups, design.columns, device=x.device)
        places = max(1, design.count(x[:1]))
        for part in torch.split(x, max(1, max(design.columns, ROWS_BYTES // (4 * x.shape[1])) // places)):
            add_products(self.second[0], part, design)
        self.first.add(row_sums(x, design)[None])
        self.rows += design.count(x)

    def _sampled(self, count: int, every: int) -> Iterator[torch.Tensor]:
        """Positions of rows: one at random from every so many, a piece at a time."""
        design = self.consumer.design
        positions = torch.arange(0, count, every)
        if every > 1:
            offsets = torch.randint(every, positions.shape, generator=self._generator)
            positions = (positions + offsets).clamp(max=count - 1)
        return iter(torch.split(positions, max(design.columns, ROWS_BYTES // (4 * design.groups * design.columns))))

    def _shift_of(self, rows: torch.Tensor) -> torch.Tensor:
        """(g, 1, k) the mean of the first (g, n, k) rows, which is subtracted from all."""
        if self.shift is None:
            self.shift = rows.to(precise_dtype(rows.device)).mean(dim=1).float()
        return self.shift[:, None]

    def _add_rows(self, rows: torch.Tensor) -> None:
        self.rows += rows.shape[1]
        self.first.add(rows.sum(dim=1))
        _add_squares(self.second, self._lifted(rows))

    def _lifted(self, rows: torch.Tensor) -> torch.Tensor:
        """(g * blocks, n * q, d / blocks) from (g, n, k) rows: of the form "channels", kernel positions become rows."""
        groups, size = self.consumer.design.groups, self.consumer.size
        lifted = rows.reshape(groups, rows.shape[1], size, -1).transpose(2, 3).reshape(groups, -1, size)
        if self.consumer.blocks == 1:
            return lifted
        split = lifted.reshape(groups, lifted.shape[1], self.consumer.blocks, -1).transpose(1, 2)
        return split.flatten(0, 1)


class HeldSums:
    """Running sums of the rows that are held out, less the same shift as all rows.

    Rows wait, in the precision of the input, until they are as many as columns: so long they take less memory than
    their products.

    Args:
        shape: (g, k).
        second: the (g, k, k) sums of products over all rows, whose precision those of these rows get.
        dtype: the precision of the input.
    """

    def __init__(self, shape: tuple[int, ...], second: torch.Tensor, dtype: torch.dtype) -> None:
        self.rows = 0
        self.first = PreciseSum(shape, second.device)
        self._dtype = dtype if dtype in LOWER[torch.float32] else torch.float32
        self._like = second.new_empty(0)
        self._second: torch.Tensor | None = None
        self._waiting: list[torch.Tensor] = []
        self._shift = second.new_zeros(())

    def add(self, rows: torch.Tensor, shift: torch.Tensor) -> None:
        """Adds (g, n, k) rows, from which the same (g, 1, k) shift is still to be subtracted each time."""
        self._shift = shift
        self.rows += rows.shape[1]
        self.first.add((rows - shift).sum(dim=1))
        self._waiting.append(rows.to(self._dtype))
        if sum(waiting.shape[1] for waiting in self._waiting) >= rows.shape[2]:
            self._second = self.second()

    def second(self) -> torch.Tensor:
        """(g, k, k) sums of products."""
        total = self._second
        for rows in self._waiting:
            if total is None:
                total = self._like.new_zeros(len(rows), rows.shape[2], rows.shape[2])
            _add_squares(total, rows.float() - self._shift)
        self._waiting = []
        assert total is not None, "it comes after add"
        return total


def _add_squares(second: torch.Tensor, rows: torch.Tensor) -> None:
    """Adds the products of (g, n, d) rows to (g, d, d) sums, in place if they have the same precision."""
    if second.dtype == torch.float32:
        second.baddbmm_(rows.transpose(1, 2), rows)
    else:
        second += rows.transpose(1, 2) @ rows


def tensors_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors among the arguments of a call."""
    return [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
