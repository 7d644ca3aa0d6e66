"""Design rows: the rows of a linear regression whose coefficients are a layer's weight.

Every convolution is a table of the input place that each output place reads through each kernel position. Padding of
any kind and transposition are entries of that table, so that one gather serves all of them, also for a sample of the
rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

NOWHERE = -1  # table entry of a kernel position that reads a zero

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class SpatialAxis:
    """One spatial dimension of a convolution.

    Attributes:
        kernel: the number of kernel positions.
        stride: the stride.
        dilation: the dilation.
        pads: the numbers of places added before and after; if `transposed`, the numbers of places cut off before and
            after (after: padding minus output_padding).
        mode: the padding mode.
        transposed: whether the convolution is transposed.
    """

    kernel: int
    stride: int
    dilation: int
    pads: tuple[int, int]
    mode: str = "zeros"
    transposed: bool = False

    def length(self, size: int) -> int:
        """The number of output places for `size` input places."""
        reach = self.dilation * (self.kernel - 1)
        if self.transposed:
            return (size - 1) * self.stride + reach + 1 - sum(self.pads)
        return (size + sum(self.pads) - reach - 1) // self.stride + 1

    def table(self, size: int) -> torch.Tensor:
        """(outputs, kernel) input places that each output place reads through each kernel position, or NOWHERE."""
        out, kernel = torch.arange(self.length(size))[:, None], torch.arange(self.kernel) * self.dilation
        if self.transposed:  # output = stride * input + dilation * kernel - pad, solved for the input
            scaled = out + self.pads[0] - kernel
            place = torch.div(scaled, self.stride, rounding_mode="floor")
            return torch.where((place * self.stride == scaled) & (place >= 0) & (place < size), place, NOWHERE)
        return _padded(out * self.stride + kernel - self.pads[0], size, self.mode)


def _padded(place: torch.Tensor, size: int, mode: str) -> torch.Tensor:
    """The places inside the input whose values padding repeats, or NOWHERE for padding with zeros."""
    if mode == "circular":
        return place % size
    if mode == "replicate":
        return place.clamp(0, size - 1)
    if mode == "reflect":  # places 0 and size - 1 are mirrors and not repeated
        return (size - 1) - ((size - 1) - place.abs()).abs()
    return torch.where((place >= 0) & (place < size), place, NOWHERE)


@dataclass(frozen=True)
class Design:
    """Describes how a module's weight multiplies its input: `outputs(module(x)) == rows(x) @ flat(weight)^T + bias`.

    A design has g groups of outputs with inputs of their own, k weights per output, and n = b * places rows. Rows run
    over examples, then output places; for a matrix product, over all leading dimensions.

    Attributes:
        groups: g.
        columns: k, the inputs of a group times kernel positions, kernel positions innermost, as in `weight.flatten(1)`
            of a convolution.
        axes: the spatial dimensions, outermost first; empty for a matrix product.
        inputs_first: whether the weight is (inputs, outputs / g, kernel...) instead of (outputs, inputs / g,
            kernel...).
    """

    groups: int
    columns: int
    axes: tuple[SpatialAxis, ...] = ()
    inputs_first: bool = False

    @property
    def kernel(self) -> int:
        """The number of kernel positions, that is, of columns per input."""
        return math.prod(axis.kernel for axis in self.axes)

    @property
    def input_dim(self) -> int:
        """The index of the weight's dimension of inputs."""
        return 0 if self.inputs_first else 1

    def count(self, x: torch.Tensor) -> int:
        """The number n of rows for an input."""
        if not self.axes:
            return math.prod(x.shape[:-1])
        examples = x.shape[0] if x.dim() == len(self.axes) + 2 else 1
        return examples * math.prod(axis.length(size) for axis, size in zip(self.axes, self._sizes(x), strict=True))

    def count_outputs(self, z: torch.Tensor) -> int:
        """n, the number of rows for an output."""
        return z.numel() // z.shape[-len(self.axes) - 1]

    def rows(self, x: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """Gathers rows of an input.

        Args:
            x: the module's input.
            positions: (n,) integers that select and order the rows; None for all. Only these rows are gathered.

        Returns:
            (g, n, k) float32 rows, which the weight multiplies.
        """
        places = x.movedim(-len(self.axes) - 1, -1)  # (..., channels)
        flat = places.reshape(-1, places.shape[-1])
        if not self.axes:
            chosen = flat if positions is None else flat[positions.to(x.device)]
            return self.grouped(chosen.float())
        return self._patches(flat, self._reads(x, positions))

    def pieces(self, x: torch.Tensor, rows: int) -> Iterator[torch.Tensor]:
        """Yields all rows in order as (g, m, k) pieces with m <= `rows`."""
        for chosen in torch.split(torch.arange(self.count(x), device=x.device), max(1, rows)):
            yield self.rows(x, chosen)

    def channels(self, z: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """(n, o) float32: a module's output in the order of the rows, also if it has other groups than this design."""
        channels = z.movedim(-len(self.axes) - 1, -1)
        flat = channels.reshape(-1, channels.shape[-1])
        return (flat if positions is None else flat[positions.to(z.device)]).float()

    def outputs(self, z: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """(g, n, o / g) float32: the module's output, in the order of the rows."""
        return self.grouped(self.channels(z, positions))

    def flat(self, weight: torch.Tensor) -> torch.Tensor:
        """(g, o / g, k) matrices of a weight, which may be pruned if it has the same number of groups."""
        first, second, *kernel = weight.shape
        grouped = weight.reshape(self.groups, first // self.groups, second, *kernel)
        return (grouped.transpose(1, 2) if self.inputs_first else grouped).flatten(2)

    def shaped(self, flat: torch.Tensor) -> torch.Tensor:
        """The inverse of `flat`: the weight, contiguous."""
        groups, outputs, columns = flat.shape
        grouped = flat.reshape(groups, outputs, columns // self.kernel, *(axis.kernel for axis in self.axes))
        return (grouped.transpose(1, 2) if self.inputs_first else grouped).flatten(0, 1).contiguous()

    def _sizes(self, x: torch.Tensor) -> Sequence[int]:
        return x.shape[x.dim() - len(self.axes) :]

    def _reads(self, x: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
        """(n, kernel) places, counted over all examples, that each row reads for each kernel position."""
        table = torch.zeros(1, 1, dtype=torch.long)
        for axis, size in zip(self.axes, self._sizes(x), strict=True):
            inner = axis.table(size)
            joint = table[:, None, :, None] * size + inner[None, :, None, :]
            outside = (table < 0)[:, None, :, None] | (inner < 0)[None, :, None, :]
            table = joint.masked_fill(outside, NOWHERE).flatten(2).flatten(0, 1)
        table = table.to(x.device)
        if positions is None:
            positions = torch.arange(self.count(x), device=x.device)
        positions = positions.to(x.device)
        reads, example = table[positions % len(table)], positions // len(table)
        return torch.where(reads < 0, NOWHERE, reads + (example * math.prod(self._sizes(x)))[:, None])

    def _patches(self, flat: torch.Tensor, reads: torch.Tensor) -> torch.Tensor:
        """(g, n, k) rows from (places, channels) values and (n, kernel) places."""
        values = flat[reads.clamp(min=0)].float()  # (n, kernel, channels)
        if self._reads_zeros:  # asked of the settings, as asking the values would fetch them from the device
            values = values.masked_fill((reads < 0)[:, :, None], 0.0)
        rows, kernel, channels = values.shape
        grouped = values.reshape(rows, kernel, self.groups, channels // self.groups)
        return grouped.permute(2, 0, 3, 1).flatten(2)  # (g, n, channels / g * kernel)

    @property
    def _reads_zeros(self) -> bool:
        """Whether rows may have zeros in place of inputs."""
        return any(axis.transposed or (axis.mode == "zeros" and axis.pads != (0, 0)) for axis in self.axes)

    def grouped(self, values: torch.Tensor) -> torch.Tensor:
        """(g, n, c / g) from (n, c)."""
        return values.reshape(len(values), self.groups, values.shape[1] // self.groups).movedim(1, 0)


def design_of(module: nn.Module) -> Design | str:
    """The design of a module whose output is linear in its `weight`, or the reason why there is none.

    Supported are Linear, convolutions and transposed convolutions of any settings, the Conv1D of transformers, and
    subclasses that compute the same. The rows of a transposed convolution are wrong if it is called with `output_size`.
    """
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):
        return Design(1, cast(torch.Tensor, module.weight).shape[0], inputs_first=True)
    base = next((known for known in (nn.Linear, *CONVOLUTIONS, *TRANSPOSED) if isinstance(module, known)), None)
    if base is None:
        return f"no least squares for a weight of {type(module).__name__}"
    if type(module).forward is not base.forward or _inner(type(module)) is not _inner(base):
        return f"{type(module).__name__} has a forward of its own"
    if isinstance(module, nn.Linear):
        return Design(1, module.in_features)
    assert isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)), "the other base, Linear, was handled above"
    columns = module.in_channels // module.groups * math.prod(module.kernel_size)
    return Design(module.groups, columns, _axes(module), isinstance(module, TRANSPOSED))


def _inner(kind: type[nn.Module]) -> object:
    return getattr(kind, "_conv_forward", None)


def _axes(module: nn.Module) -> tuple[SpatialAxis, ...]:
    geometry = cast(nn.Conv2d, module)  # all convolutions have these attributes
    sizes = zip(geometry.kernel_size, geometry.stride, geometry.dilation, strict=True)
    transposed = isinstance(module, TRANSPOSED)
    return tuple(
        SpatialAxis(kernel, stride, dilation, _pads(geometry, dim, kernel, dilation), geometry.padding_mode, transposed)
        for dim, (kernel, stride, dilation) in enumerate(sizes)
    )


def _pads(module: nn.Conv2d, dim: int, kernel: int, dilation: int) -> tuple[int, int]:
    if isinstance(module.padding, str):  # "same": an odd place is added after, as in torch
        total = dilation * (kernel - 1) if module.padding == "same" else 0
        return total // 2, total - total // 2
    pad = module.padding[dim]
    return pad, pad - (module.output_padding[dim] if isinstance(module, TRANSPOSED) else 0)
