"""The memory of devices, and that of the machine."""

from __future__ import annotations

import os

import torch
from torch import nn


def device_of(network: nn.Module) -> torch.device:
    """The device of a network: that of its first parameter or buffer, and the CPU if it has neither."""
    return next((x.device for xs in (network.parameters(), network.buffers()) for x in xs), torch.device("cpu"))


def machine_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def total_bytes(device: torch.device) -> int | None:
    """The memory of a device that has its own; None if it uses the machine's."""
    return torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else None


def free_bytes(device: torch.device) -> int | None:
    """The bytes that this process can still allocate on a device with memory of its own; None if it has none.

    Memory that torch holds without a tensor in it counts as free.
    """
    if device.type != "cuda":
        return None
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused
