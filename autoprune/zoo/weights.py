"""Loads trained weights from a file into a network, or explains why they do not fit."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from autoprune.errors import DataError, RecipeError


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Fills a network with the state dict in a .safetensors file or a torch file.

    Torch files are read with weights_only, so that they execute no code. {"state_dict": ...} is unwrapped and
    DataParallel's "module." dropped. `num_batches_tracked` may be missing: no output depends on it.

    Raises:
        DataError: the file does not exist, or holds no state dict.
        RecipeError: the weights belong to another network; names up to three keys or shapes. The network is unchanged.
    """
    file = Path(path).expanduser()
    state = _plain(_read(file), file)
    problems = _mismatches(network.state_dict(), state)
    if problems:
        raise RecipeError(f"{file}: expected the weights of this {type(network).__name__}, got {'; '.join(problems)}")
    network.load_state_dict(state, strict=False)


def _read(path: Path) -> object:
    if not path.is_file():
        raise DataError(f"{path}: expected a file of trained weights, got no such file. Give its path as weights.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path}: expected a plain state dict (.safetensors, or .pt saved with torch.save(model.state_dict())), "
            f"got a file that cannot be read ({first})"
        ) from error


def _plain(content: object, path: Path) -> dict[str, torch.Tensor]:
    state = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not state or not all(isinstance(x, torch.Tensor) for x in state.values()):
        got = f"the entries {list(map(str, state))[:3]}" if isinstance(state, Mapping) else type(state).__name__
        raise DataError(f"{path}: expected a state dict, tensors by name, got {got}")
    return {str(name).removeprefix("module."): x for name, x in state.items()}


def _mismatches(expected: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> list[str]:
    missing = [name for name in expected if name not in given and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in given if name not in expected]
    shapes = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(x.shape)}"
        for name, x in expected.items()
        if name in given and given[name].shape != x.shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    return [f"{len(names)} {what}: {_some(names)}" for what, names in found.items() if names]


def _some(names: list[Any]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
