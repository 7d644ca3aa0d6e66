"""Where networks run."""

from __future__ import annotations

import torch

from autoprune.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" is cuda, mps or cpu, the first there is."""
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
    """The tensor on the device; images channels-last, the layout convolutions are fastest in."""
    return x.to(device, memory_format=torch.channels_last if x.dim() == 4 else torch.preserve_format)
