"""The device that networks run on."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from autoprune.errors import ConfigError
from autoprune.measure.batch import Batch


def pick_device(name: str) -> torch.device:
    """Returns the named device; "auto" is the first available of cuda, mps and cpu."""
    if name != "auto":
        try:
            device = torch.device(name)
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"run.device: expected a device torch can use here, got {name!r}: {error}") from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def placed(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Moves a tensor to the device; images become channels-last, the fastest layout for convolutions."""
    return x.to(device, memory_format=torch.channels_last if x.dim() == 4 else torch.preserve_format)


def placed_batches(batches: Iterable[Batch], device: torch.device) -> list[Batch]:
    """Moves batches to the device, see `placed`."""
    return [batch.placed(lambda x: placed(x, device)) for batch in batches]


def check_values(name: str) -> None:
    """Raises ConfigError if a search cannot run on the named device because its tensors have no values."""
    if name.partition(":")[0] == "meta":
        raise ConfigError(
            "run.device: expected a device with values for a search, got 'meta', where autoprune inspect forecasts a "
            "run. Choose cpu or an accelerator, and load the network's weights."
        )
