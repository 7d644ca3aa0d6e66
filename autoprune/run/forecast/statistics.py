"""The work of second moments, of orders and of least squares, from designs, rows and widths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from autoprune.core.unit import Unit
from autoprune.prune.criteria.surgeon import EXACT, ROUND_SHARE, WIDE
from autoprune.prune.moments.consumers import Consumer, consumers_of
from autoprune.prune.moments.held_out import EVERY
from autoprune.prune.moments.shifts import shift_macs, shiftable
from autoprune.prune.moments.sums import ROWS_A_COLUMN, ROWS_BYTES
from autoprune.run.forecast.bare import Read
from autoprune.run.forecast.rates import Rates

SHIFT_MOVES = 6  # numbers that are moved for each input of shifted products
UNEVEN = 2  # gathered and shifted rows are multiplied so many times more slowly than one matrix in the cache
ADDED = 2  # numbers that are moved for each one of a product that is added to a sum
FINISHED = 6  # numbers that are moved for each one of the second moments at the end
GATHERED = 4  # numbers that are moved for each one of the second moments in least squares
THIN = 4  # a matrix product with one block of columns takes so many times longer for each multiplication
STEP_SECONDS = 2e-4  # what removing one position takes beside its products


def moments_seconds(
    consumers: Mapping[str, Consumer], reads: Mapping[str, Read], examples: int, batch: int, rates: Rates
) -> float:
    """The seconds that the sums of consumers take for so many examples, beside the passes through the network."""
    done: set[object] = set()
    total = 0.0
    for consumer in consumers.values():
        for read in (reads[caller.module] for caller in consumer.callers if caller.module in reads):
            key = (read.tensor, consumer.design, consumer.form, consumer.blocks)
            if len(consumer.callers) > 1 or key not in done:
                total += read.calls * _sums_seconds(consumer, read, examples, batch, rates)
            done.add(key)
    return total


def kept_bytes(consumers: Mapping[str, Consumer], reads: Mapping[str, Read]) -> int:
    """The size of the second moments once they are collected, of which weights that read the same tensor share one."""
    found: dict[object, int] = {}
    for name, consumer in consumers.items():
        read = reads.get(consumer.callers[0].module) if len(consumer.callers) == 1 else None
        key = name if read is None else (read.tensor, consumer.design, consumer.form, consumer.blocks)
        found[key] = consumer.nbytes
    return sum(found.values())


def held_out_bytes(consumers: Mapping[str, Consumer], reads: Mapping[str, Read], examples: int) -> int:
    """The size of the rows that are held out from weights with few rows, and of their moments where they are many."""
    found: dict[object, int] = {}
    for name, consumer in consumers.items():
        own = [reads[caller.module] for caller in consumer.callers if caller.module in reads]
        rows = consumer.design.count(own[0].x) * examples // own[0].examples if own else 0
        if own and consumer.lacks_rows(rows):
            shared = len(consumer.callers) == 1
            found[(own[0].tensor, consumer.design) if shared else name] = _held_bytes(consumer, rows, own[0].x.dtype)
    return sum(found.values())


def _held_bytes(consumer: Consumer, rows: int, dtype: torch.dtype) -> int:
    """The size of the held ones of so many rows, of which as many as columns wait at most, and of their products."""
    design, held = consumer.design, math.ceil(rows / EVERY)
    waiting = design.groups * design.columns * min(held, design.columns) * min(dtype.itemsize, 4)
    return waiting + (consumer.nbytes if held >= design.columns else 0)


def _sums_seconds(consumer: Consumer, read: Read, examples: int, batch: int, rates: Rates) -> float:
    """The seconds of one weight's sums, by sampled rows or by shifts as `Sums` chooses."""
    design, size = consumer.design, consumer.size
    batches, each = math.ceil(examples / batch), design.count(read.x) / read.examples
    batch = min(batch, examples)
    rows = each * batch // max(1, each * examples // (ROWS_A_COLUMN * design.columns))
    macs = rows * design.columns * size / consumer.blocks * design.groups
    square = design.groups * size**2 / consumer.blocks
    pieces = math.ceil(rows / max(design.columns, ROWS_BYTES // (4 * design.groups * design.columns)))
    moved = rows * design.columns * design.groups
    if consumer.form == "columns" and consumer.blocks == 1 and shiftable(design) and read.x.dim() == 4:
        shifted = batch * shift_macs(design, *read.x.shape[2:])
        if shifted < macs:
            macs, moved = shifted, SHIFT_MOVES * read.x.numel() / read.examples * batch
            pieces = math.ceil(each * batch / max(design.columns, ROWS_BYTES // (4 * read.x.shape[1])))
    added = rates.products(UNEVEN * macs) + rates.move * (moved + ADDED * pieces * square)
    return batches * added + rates.move * FINISHED * square


@dataclass(frozen=True)
class Elimination:
    """Positions of a unit that consumers of the same rows contract.

    Attributes:
        positions: n.
        block: m, the number of columns of a position.
        gram: d, the number of columns of the second moments.
        outputs: the number of outputs of all of these consumers.
        groups: the number of groups, each of which has an elimination of its own.
    """

    positions: int
    block: int
    gram: int
    outputs: int
    groups: int

    def seconds(self, rates: Rates) -> float:
        """The seconds of optimal brain surgeon: the inverse, updates, damages in every round, and steps."""
        columns = self.positions * self.block
        outputs = min(columns, self.outputs)
        wide = columns > WIDE and columns == self.gram
        updates = columns**3 / 3 + columns**2 * outputs / 2
        few = min(self.positions, EXACT)  # these go one by one
        rounds = ROUND_SHARE * math.log(self.positions / few)
        weighed = (ROUND_SHARE * (self.positions - few) + few**2 / 2) * self.block**2 * outputs
        windows = 4 * self.block**3 * sum((2 * n / ROUND_SHARE) ** 2 for n in range(few, self.positions))
        products = rates.products(updates + THIN * weighed, torch.float32 if wide else torch.float64)
        inverse = rates.factor * self.gram**3 / 2 + rates.products(windows, torch.float64)
        return self.groups * (inverse + products + STEP_SECONDS * (self.positions + rounds))

    @property
    def nbytes(self) -> int:
        """The memory of one elimination: two matrices in float64, the inverse, and weights."""
        columns = self.positions * self.block
        return 8 * (2 * self.gram**2 + columns**2 + 2 * columns * min(columns, self.outputs))


def order_seconds(eliminations: Sequence[Elimination], rates: Rates) -> float:
    """The seconds that the orders of all units take."""
    return sum(one.seconds(rates) for one in eliminations)


def order_bytes(eliminations: Sequence[Elimination]) -> int:
    """The memory of the largest order."""
    return max((one.nbytes for one in eliminations), default=0)


def eliminations(
    units: Sequence[Unit], consumers: Mapping[str, Consumer], outputs: Mapping[str, int], reads: Mapping[str, Read]
) -> list[Elimination]:
    """The eliminations of units; `outputs` are the outputs of a group of each weight, by name."""
    return [one for unit in units if not unit.is_branch for one in _of_unit(unit, consumers, outputs, reads)]


def _of_unit(
    unit: Unit, consumers: Mapping[str, Consumer], outputs: Mapping[str, int], reads: Mapping[str, Read]
) -> list[Elimination]:
    alike: dict[object, list[tuple[int, Consumer, int]]] = {}
    for name in consumers_of([unit]):
        consumer = consumers.get(name)
        if consumer is None:
            continue
        slots = [slot for slot in unit.with_role("in") if slot.tensor == name]
        inputs = sum(slot.span.indices(np.arange(1)).shape[1] for slot in slots)
        per = inputs * (consumer.design.kernel if consumer.form == "columns" else 1)
        read = reads.get(consumer.callers[0].module)
        key = (name if read is None else read.tensor, consumer.design, consumer.form, per)
        alike.setdefault(key, []).append((max(1, min(per, consumer.size // unit.width)), consumer, outputs[name]))
    return [
        Elimination(
            unit.width,
            same[0][0],
            same[0][1].size,
            sum(count * own.design.columns // own.size for _, own, count in same),
            same[0][1].design.groups,
        )
        for same in alike.values()
    ]


def solve_seconds(consumer: Consumer, outputs: int, on_cpu: Rates) -> float:
    """The seconds of a consumer's least squares where it keeps half of its inputs; outputs are those of a group."""
    columns, kept = consumer.size, consumer.size // 2
    own = outputs * consumer.design.columns // columns
    products = own * columns * kept + 2 * own * kept**2
    factored = on_cpu.factor * kept**3 / 6 + on_cpu.move * GATHERED * columns**2
    return consumer.design.groups * (on_cpu.products(products, torch.float64) + factored)
