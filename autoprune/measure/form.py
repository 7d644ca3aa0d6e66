"""The form in which networks run while they are scored: layout, precision, batch size, threads. It is not exported.

Which form is fastest depends on the device and the network; run.session.tuning times some and compares their scores.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.utils._pytree import tree_map

from autoprune.errors import ConfigError
from autoprune.measure.batch import Batch, rebatched
from autoprune.prune.modules.borrowed import torch_threads

Layout = Literal["channels_last", "contiguous"]
Precision = Literal["float32", "bfloat16"]

_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@dataclass(frozen=True)
class Form:
    """The form of forward passes. None leaves a setting as it is.

    Attributes:
        layout: the memory format of images and convolution weights.
        dtype: the precision. With bfloat16, torch.autocast chooses the operators that use it; outputs are float32.
        batch: the number of examples per batch.
        threads: the number of torch's threads on the CPU.

    Raises:
        ConfigError: a setting is out of bounds.
    """

    layout: Layout | None = None
    dtype: Precision = "float32"
    batch: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        words = {"layout": (self.layout, (None, *get_args(Layout))), "dtype": (self.dtype, get_args(Precision))}
        wrong = [
            f"{name}: expected one of {known}, got {value!r}"
            for name, (value, known) in words.items()
            if value not in known
        ]
        for name, number in {"batch": self.batch, "threads": self.threads}.items():
            whole = isinstance(number, int) and not isinstance(number, bool) and number >= 1
            if number is not None and not whole:
                wrong.append(f"{name}: expected None or a whole number from 1, got {number!r}")
        if wrong:
            raise ConfigError(wrong)

    def to_json(self) -> dict[str, Any]:
        """The form as plain data for JSON."""
        return asdict(self)

    @contextlib.contextmanager
    def running(self, device: torch.device) -> Iterator[None]:
        """Runs networks with this precision and number of threads inside the context."""
        low = self.dtype == "bfloat16"
        with torch_threads(self.threads), torch.autocast(device.type, torch.bfloat16, enabled=low):
            yield

    def place(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the tensor in this layout if it holds images."""
        return x.contiguous(memory_format=_FORMATS[self.layout]) if self.layout and x.dim() == 4 else x

    def dress(self, network: nn.Module) -> nn.Module:
        """Puts the network in this layout in place; it returns float32 in any precision."""
        if self.layout and any(parameter.dim() == 4 for parameter in network.parameters()):
            network.to(memory_format=_FORMATS[self.layout])  # type: ignore[call-overload]  # torch's stub omits it
        if self.dtype != "float32":
            network.register_forward_hook(lambda module, args, output: tree_map(_widened, output))
        return network

    def inputs(self, batches: Sequence[tuple[torch.Tensor, ...]]) -> list[tuple[torch.Tensor, ...]]:
        """Returns calibration inputs in this layout; their batches stay the same, as estimates depend on them."""
        return [tuple(map(self.place, inputs)) for inputs in batches]

    def batches(self, batches: Sequence[Batch]) -> list[Batch]:
        """Returns batches in this layout and batch size; the last may be smaller."""
        if self.layout is None and self.batch is None:
            return list(batches)
        sized = batches if self.batch is None else rebatched(batches, self.batch)
        return [batch.placed(self.place) for batch in sized]


DEFAULT_FORM = Form()


def _widened(value: Any) -> Any:
    low = isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if low else value


@dataclass(frozen=True)
class Trial:
    """One form that was timed: its examples per second, or None and a note with the reason why it did not run."""

    form: Form
    examples_per_second: float | None
    note: str = ""


@dataclass(frozen=True)
class Tuning:
    """The form in which candidates are scored, the reason for it, and the forms that were timed."""

    form: Form
    reason: str
    trials: tuple[Trial, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Tuning:
        trials = tuple(Trial(Form(**t["form"]), t["examples_per_second"], t["note"]) for t in data["trials"])
        return Tuning(Form(**data["form"]), data["reason"], trials)
