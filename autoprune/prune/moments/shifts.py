"""Second moments of a stride-1 convolution's rows from products of its input with shifted copies of itself.

Two kernel positions p and q see the same products as any other two at the same distance, but for the border, where each
leaves out other places. So one product is taken for each distance, over all places, and thin strips at the border are
taken off. For a 3 x 3 kernel these are 13 products of the channels, where the rows of all kernel positions take 81.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.nn import functional as F

from autoprune.prune.moments.design import Design, SpatialAxis

Interval = tuple[int, int]


class Pair(NamedTuple):
    """Two kernel positions, as indices, with their distance and the places that the first of them reads."""

    first: int
    second: int
    distance: tuple[int, int]
    reads: tuple[Interval, Interval]


def shiftable(design: Design) -> bool:
    """Whether a design's rows have second moments by shifts: two spatial axes, stride 1, zero padding, one group."""
    plain = all(axis.stride == 1 and axis.mode == "zeros" and not axis.transposed for axis in design.axes)
    return plain and len(design.axes) == 2 and design.kernel > 1 and design.groups == 1


def shift_macs(design: Design, height: int, width: int) -> int:
    """The multiplications of `add_products` for one example, without the strips."""
    channels = design.columns // design.kernel
    reach = [axis.dilation * (axis.kernel - 1) for axis in design.axes]
    distances = len({pair.distance for pair in _pairs(design.axes, height, width)})
    return distances * channels**2 * (height + reach[0]) * (width + reach[1])


def add_products(total: torch.Tensor, x: torch.Tensor, design: Design) -> None:
    """Adds the sum of r r^T over the rows r of an input to a (k, k) total, in place.

    Args:
        total: the sum so far, contiguous.
        x: (n, channels, height, width) float32.
        design: a shiftable design.
    """
    channels, (height, width) = x.shape[1], x.shape[2:]
    reach = [axis.dilation * (axis.kernel - 1) for axis in design.axes]
    # zeros after every line and image: a shift of the flat places reads them where it leaves a line
    padded = F.pad(x.movedim(1, 3), (0, 0, 0, reach[1], 0, reach[0])).contiguous()
    products = _Products(padded, height, width)
    blocks = total.view(channels, design.kernel, channels, design.kernel)
    for pair in _pairs(design.axes, height, width):
        product = products.over(pair)
        blocks[:, pair.first, :, pair.second] += product
        if pair.first != pair.second:
            blocks[:, pair.second, :, pair.first] += product.T


def row_sums(x: torch.Tensor, design: Design) -> torch.Tensor:
    """(k,) float32 sums of an input's rows."""
    height, width = x.shape[2:]
    sums = torch.zeros(x.shape[1], design.kernel, device=x.device)
    for pair in _pairs(design.axes, height, width):
        if pair.first == pair.second:
            rows, columns = (slice(max(0, low), max(0, high)) for low, high in pair.reads)
            sums[:, pair.first] = x[:, :, rows, columns].sum(dim=(0, 2, 3))
    return sums.flatten()


def _pairs(axes: tuple[SpatialAxis, ...], height: int, width: int) -> Iterator[Pair]:
    """Each two kernel positions once, in the order in which the second lies behind the first."""
    places = list(itertools.product(*(range(axis.kernel) for axis in axes)))
    for (i, p), (j, q) in itertools.combinations_with_replacement(enumerate(places), 2):
        distance = [(b - a) * axis.dilation for a, b, axis in zip(p, q, axes, strict=True)]
        starts = [a * axis.dilation - axis.pads[0] for a, axis in zip(p, axes, strict=True)]
        ends = [start + axis.length(size) for start, axis, size in zip(starts, axes, (height, width), strict=True)]
        yield Pair(i, j, (distance[0], distance[1]), ((starts[0], ends[0]), (starts[1], ends[1])))


class _Products:
    """Sums of x_y x_{y + distance}^T over places y, each taken once, of (n, height, width, channels) padded values."""

    def __init__(self, padded: torch.Tensor, height: int, width: int) -> None:
        self.padded, self.sizes = padded, (height, width)
        self.known: dict[tuple[object, ...], torch.Tensor] = {}

    def over(self, pair: Pair) -> torch.Tensor:
        """(channels, channels) sum over the places that the pair's first position reads."""
        whole, strips = [], []
        for size, distance, (start, end) in zip(self.sizes, pair.distance, pair.reads, strict=True):
            low, high = max(0, -distance), min(size, size - distance)  # both places lie in the image
            whole.append((low, high))
            strips.append([(low, min(high, max(low, start))), (max(low, min(high, end)), high)])
        product = self._all(pair.distance)
        for rows in strips[0]:
            product = product - self._rectangle(rows, whole[1], pair.distance)
        for columns in strips[1]:
            product = product - self._rectangle(whole[0], columns, pair.distance)
        for rows, columns in itertools.product(*strips):  # corners have been taken off twice
            product = product + self._rectangle(rows, columns, pair.distance)
        return product

    def _all(self, distance: tuple[int, int]) -> torch.Tensor:
        key = (distance,)
        if key not in self.known:
            flat = self.padded.flatten(0, 2)
            offset = distance[0] * self.padded.shape[2] + distance[1]
            self.known[key] = flat[: len(flat) - offset].T @ flat[offset:]
        return self.known[key]

    def _rectangle(self, rows: Interval, columns: Interval, distance: tuple[int, int]) -> torch.Tensor | float:
        if rows[0] >= rows[1] or columns[0] >= columns[1]:
            return 0.0
        key = (rows, columns, distance)
        if key not in self.known:
            here = self.padded[:, rows[0] : rows[1], columns[0] : columns[1]]
            down, right = distance
            there = self.padded[:, rows[0] + down : rows[1] + down, columns[0] + right : columns[1] + right]
            channels = self.padded.shape[3]
            self.known[key] = here.reshape(-1, channels).T @ there.reshape(-1, channels)
        return self.known[key]
