"""Exports: a recipe and weights, from which the small network is rebuilt on a new model, without pickle.

Both files have checksums, and the recipe has a probe: the network's output on a reproducible input. An export that is
damaged, mixed up with another or loaded into another network is refused.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load as tensors_of_bytes
from torch import nn

from autoprune.errors import AutopruneError, RecipeError
from autoprune.plugins import home_of
from autoprune.pretrained.saving import without_saving
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.modules.skip import within
from autoprune.prune.modules.wrappers import unwrapped
from autoprune.prune.surgery.surgery import rebuild
from autoprune.run.records.folder import as_path, write_json
from autoprune.run.records.tensor_file import write_tensors
from autoprune.run.results.exporter import ExportFacts
from autoprune.run.results.probe import UNCHECKED, make_probe, probe_difference
from autoprune.run.results.recipe_file import RECIPE_FORMAT, RecipeDocument, check_fits, read_recipe, sealed

RECIPE, WEIGHTS = "recipe.json", "weights.safetensors"

_log = logging.getLogger(__name__)


class RecipeExporter:
    """Writes recipe.json and weights.safetensors, which `autoprune.load` rebuilds the network from."""

    name = "autoprune"

    def write(self, network: nn.Module, facts: ExportFacts, example: Sequence[torch.Tensor], directory: Path) -> None:
        """Writes both files, and loads them again as a check.

        The recipe also has the measurements of the network. The probe's input is in the range of the example.

        Raises:
            RecipeError: the export cannot be loaded again.
            OSError: a file cannot be written; the error has its name.
        """
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in named_tensors(network).items()}
        write_tensors(directory / WEIGHTS, tensors)
        dense, recipe = facts.dense, facts.recipe
        document = {
            "format": RECIPE_FORMAT,
            "class": home_of(type(dense)),
            "dense_shapes": {name: list(tensor.shape) for name, tensor in named_tensors(dense).items()},
            "adapted": list(recipe.adapted),
            "sizes": {module: dict(sizes) for module, sizes in recipe.sizes.items()},
            "skipped": dict(recipe.skipped),
            "positions": {unit: list(kept) for unit, kept in recipe.positions.items()},
            "measured": dict(facts.measured),
            "weights_sha256": hashlib.sha256((directory / WEIGHTS).read_bytes()).hexdigest(),
            "probe": make_probe(network, example),
        }
        write_json(directory / RECIPE, sealed(document))
        _assembled(dense, *_read(directory), directory, any_class=False, any_output=False)


def load(model: nn.Module, directory: str | Path, *, any_class: bool = False, any_output: bool = False) -> nn.Module:
    """Loads an exported small network by rebuilding it on a new model of the original class.

    Args:
        model: a model from the factory that made the pruned one; its weights do not matter and it is not changed. The
            result is on its device.
        directory: a folder with recipe.json and weights.safetensors.
        any_class: whether a model is accepted whose class has another name than in the export.
        any_output: whether a model is accepted whose output with these weights differs from that at the time of the
            export. The measurements in the export are then not valid.

    Returns:
        The small network, in eval mode.

    Raises:
        RecipeError: files are missing, damaged or not of one export; the model is of another class, has tensors of
            other names or shapes, or computes something else.

    >>> small = autoprune.load(resnet20(), "export")
    """
    model, _ = unwrapped(model)
    directory = as_path("directory", directory)
    return without_saving(_assembled(model, *_read(directory), directory, any_class=any_class, any_output=any_output))


def _assembled(
    model: nn.Module,
    recipe: RecipeDocument,
    tensors: Mapping[str, torch.Tensor],
    directory: Path,
    *,
    any_class: bool,
    any_output: bool,
) -> nn.Module:
    """Assembles the network from the recipe and tensors; messages name the directory."""
    _check_model(model, recipe, directory, any_class)
    if tensors.keys() != {name for name in recipe.shapes if not within(name, recipe.skipped)}:
        raise RecipeError(f"{directory}: weights and recipe do not belong together. Export again.")
    small = _rebuilt(model, recipe, tensors, directory)
    _check_output(small, recipe, directory, any_output)
    return small.eval()


def _read(directory: Path) -> tuple[RecipeDocument, dict[str, torch.Tensor]]:
    for name in (RECIPE, WEIGHTS):
        if not (directory / name).is_file():
            raise RecipeError(f"expected an export with {RECIPE} and {WEIGHTS}, {directory} has no {name}")
    recipe = read_recipe(directory / RECIPE)
    weights = directory / WEIGHTS
    try:
        content = weights.read_bytes()
    except OSError as error:
        raise RecipeError(f"{weights} cannot be read: {error.strerror or error}") from error
    if recipe.weights_sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise RecipeError(
            f"{weights}: the export is damaged: the file does not have the checksum in {RECIPE}. Copy both "
            "again from where they were exported, or export again."
        )
    try:
        return recipe, tensors_of_bytes(content)
    except Exception as error:  # safetensors may raise anything
        raise RecipeError(f"{weights}: the export is damaged: {error}. Export again.") from error


def _check_model(model: nn.Module, recipe: RecipeDocument, directory: Path, any_class: bool) -> None:
    """Raises RecipeError for a model of another class, or with other names or shapes of tensors, than the original."""
    kind = home_of(type(model))
    known = kind if recipe.weights_sha256 else type(model).__name__  # earlier exports have only the name
    if not (any_class or _same_class(known, recipe.kind)):
        raise RecipeError(
            f"{directory} was exported from a {recipe.kind}, got a {kind}. Pass a model of that class; if it is the "
            "same network under another name, write autoprune.load(model, directory, any_class=True)."
        )
    actual = {name: tuple(tensor.shape) for name, tensor in named_tensors(model).items()}
    if recipe.shapes != actual:
        raise RecipeError(
            f"{directory} was exported from a {recipe.kind}, got a {kind} that differs: "
            + _difference(recipe.shapes, actual)
        )


def _same_class(left: str, right: str) -> bool:
    """Whether two names are of one class; a module that was loaded by its path has no package in its name."""
    shorter, longer = sorted((left, right), key=len)
    return longer == shorter or longer.endswith(f".{shorter}")


def _rebuilt(
    model: nn.Module, recipe: RecipeDocument, tensors: Mapping[str, torch.Tensor], directory: Path
) -> nn.Module:
    current = named_tensors(model)
    for name, tensor in tensors.items():
        full = current[name].shape
        if tensor.dim() != len(full) or any(few > many for few, many in zip(tensor.shape, full, strict=True)):
            raise RecipeError(
                f"{directory / WEIGHTS}: expected {name} to be a part of {tuple(full)}, got {tuple(tensor.shape)}"
            )
    placed = {name: tensor.to(current[name].device) for name, tensor in tensors.items()}
    try:
        check_fits(model, recipe)
        return rebuild(model, placed, recipe.sizes, recipe.adapted, recipe.skipped)
    except AutopruneError:  # the model cannot be copied
        raise
    except Exception as error:  # modules may raise anything for wrong sizes
        raise RecipeError(f"{directory / RECIPE} does not fit the model: {error}") from error


def _check_output(small: nn.Module, recipe: RecipeDocument, directory: Path, any_output: bool) -> None:
    """Raises RecipeError for a network whose output differs from that of the exported one."""
    if recipe.probe is None:
        _log.warning(
            "%s was written by an earlier autoprune: it has no checksums, and whether the network computes what it did "
            "then is not checked. Export it again to have both.",
            directory,
        )
        return
    if UNCHECKED in recipe.probe:
        _log.warning(
            "%s: whether the network computes what it did when it was exported is not checked: %s",
            directory,
            recipe.probe[UNCHECKED],
        )
        return
    try:
        difference = probe_difference(small, recipe.probe)
    except Exception as error:  # the probe is invalid
        raise RecipeError(
            f"{directory / RECIPE}: the export is damaged: its probe is {error!r}. Export again."
        ) from error
    if difference and not any_output:
        raise RecipeError(
            f"{directory}: the network does not compute what it did when it was exported: {difference}. Pass a model "
            "that is built as it was built for the search, by the same code; if its forward is meant to differ, write "
            "autoprune.load(model, directory, any_output=True)."
        )
    if difference:
        _log.warning("%s: the network does not compute what it did when it was exported: %s", directory, difference)


def _difference(expected: Mapping[str, tuple[int, ...]], actual: Mapping[str, tuple[int, ...]]) -> str:
    missing = [name for name in expected if name not in actual]
    extra = [name for name in actual if name not in expected]
    other = [f"{n} is {actual[n]}, not {expected[n]}" for n in expected if n in actual and actual[n] != expected[n]]
    parts = [f"missing {missing[:3]}" if missing else "", f"unexpected {extra[:3]}" if extra else "", *other[:3]]
    return "; ".join(part for part in parts if part) + ". Build it as it was built for the search."
