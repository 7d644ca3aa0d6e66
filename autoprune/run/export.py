"""Exports: a recipe and weights, from which the small network is rebuilt on a fresh model without any pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from autoprune.errors import RecipeError, RunExists
from autoprune.prune.copying import named_tensors
from autoprune.prune.skip import within
from autoprune.prune.surgery import Recipe, rebuild
from autoprune.run.folder import write_json

FORMAT = 2  # 1 knew neither adapted nor skipped modules
RECIPE, WEIGHTS = "recipe.json", "weights.safetensors"


def write_export(
    network: nn.Module, dense: nn.Module, recipe: Recipe, measured: Mapping[str, Any], directory: Path
) -> None:
    """Writes recipe.json and weights.safetensors of a small network into a new directory.

    `measured` is what the network is known to do (its row of the front), kept for whoever loads it.
    """
    if directory.exists() and any(directory.iterdir()):
        raise RunExists(f"expected a new folder for the export, {directory} is already there. Give another --out.")
    directory.mkdir(parents=True, exist_ok=True)
    shapes = {name: list(tensor.shape) for name, tensor in named_tensors(dense).items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in named_tensors(network).items()}
    save_file(tensors, directory / WEIGHTS)
    document = {
        "format": FORMAT,
        "class": type(dense).__name__,
        "dense_shapes": shapes,
        "adapted": list(recipe.adapted),
        "sizes": {module: dict(sizes) for module, sizes in recipe.sizes.items()},
        "skipped": dict(recipe.skipped),
        "positions": {unit: list(kept) for unit, kept in recipe.positions.items()},
        "measured": dict(measured),
    }
    write_json(directory / RECIPE, document)  # last, so that a recipe means a whole export


def load(model: nn.Module, directory: str | Path) -> nn.Module:
    """The exported small network, rebuilt on a fresh model of the class it was made from.

    Args:
        model: what the model factory returned when the network was pruned; its weights do not matter and it is not
            changed. The result is on its device, in its training mode.
        directory: a folder with recipe.json and weights.safetensors.

    Raises:
        RecipeError: files missing or damaged, or a model whose tensors have other names or shapes.

    >>> small = autoprune.load(resnet20(), "export")
    """
    recipe, tensors = _read(Path(directory))
    current = named_tensors(model)
    expected = {name: tuple(shape) for name, shape in recipe["dense_shapes"].items()}
    actual = {name: tuple(tensor.shape) for name, tensor in current.items()}
    if expected != actual:
        raise RecipeError(
            f"{directory} was exported from a {recipe['class']}, got a {type(model).__name__} that differs: "
            + _difference(expected, actual)
        )
    skipped = recipe.get("skipped", {})
    if tensors.keys() != {name for name in expected if not within(name, skipped)}:
        raise RecipeError(f"{directory}: weights and recipe do not belong together. Export again.")
    placed = {name: tensor.to(current[name].device) for name, tensor in tensors.items()}
    return rebuild(model, placed, recipe["sizes"], recipe.get("adapted", ()), skipped)


def _read(directory: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    for name in (RECIPE, WEIGHTS):
        if not (directory / name).is_file():
            raise RecipeError(f"expected an export with {RECIPE} and {WEIGHTS}, {directory} has no {name}")
    try:
        recipe: dict[str, Any] = json.loads((directory / RECIPE).read_text())
        tensors = load_file(directory / WEIGHTS)
    except (ValueError, SafetensorError) as error:
        raise RecipeError(f"{directory}: the export is damaged: {error}") from error
    if recipe.get("format") not in (1, FORMAT):
        raise RecipeError(
            f"{directory}: expected format 1 or {FORMAT}, got {recipe.get('format')!r}. Update autoprune."
        )
    return recipe, tensors


def _difference(expected: Mapping[str, tuple[int, ...]], actual: Mapping[str, tuple[int, ...]]) -> str:
    missing = [name for name in expected if name not in actual]
    extra = [name for name in actual if name not in expected]
    other = [f"{n} is {actual[n]}, not {expected[n]}" for n in expected if n in actual and actual[n] != expected[n]]
    parts = [f"missing {missing[:3]}" if missing else "", f"unexpected {extra[:3]}" if extra else "", *other[:3]]
    return "; ".join(part for part in parts if part) + ". Build it as it was built for the search."
