"""Loads the device of simulated.cpp as `torch.device("simulated")`, which takes a compiler and half a minute once."""

from __future__ import annotations

import functools
import types
from pathlib import Path
from typing import Any

import torch
from torch.utils import rename_privateuse1_backend
from torch.utils.cpp_extension import load

SOURCE = Path(__file__).with_name("simulated.cpp")


@functools.cache
def simulated() -> Any:
    """The extension: set_limit, set_doubles, held, limit, fetches."""
    extension = load("autoprune_simulated", [str(SOURCE)], extra_cflags=["-O1", "-w"])
    rename_privateuse1_backend("simulated")
    torch._register_device_module("simulated", _module())
    return extension


def _module() -> types.ModuleType:
    module = types.ModuleType("simulated")
    module.is_available = lambda: True
    module.device_count = lambda: 1
    module.current_device = lambda: 0
    module._is_in_bad_fork = lambda: False
    module.manual_seed_all = lambda seed: None
    module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    module.get_rng_state = lambda device=None: torch.empty(0)
    module.set_rng_state = lambda state, device=None: None
    return module
