"""Tensors in files: written whole or not at all, and read with the name of the file in every error."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from autoprune.run.records.folder import replacing


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file whole or not at all, with the access rights of any new file (the umask's).

    Tensors in one memory are written once each.

    Raises OSError with the file's name.
    """
    with replacing(path) as scratch:
        scratch.touch()
        rights = stat.S_IMODE(scratch.stat().st_mode)
        save_file(_apart(tensors), scratch, dict(metadata) if metadata else None)
        scratch.chmod(rights)  # safetensors makes files that only their owner may read


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, each in a memory of its own: the format has no ties."""
    seen: set[int] = set()
    found = {}
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return found
