"""Writes tensors to files atomically."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from autoprune.run.records.folder import replacing


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file atomically, with the usual access rights of a new file (those of the umask).

    Tensors that share memory are written separately.

    Raises:
        OSError: the file cannot be written; the error has its name.
    """
    with replacing(path) as scratch:
        scratch.touch()
        rights = stat.S_IMODE(scratch.stat().st_mode)
        save_file(_apart(tensors), scratch, dict(metadata) if metadata else None)
        scratch.chmod(rights)  # safetensors makes files that only their owner can read


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors without shared memory, as the format does not support it."""
    seen: set[int] = set()
    found = {}
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return found
