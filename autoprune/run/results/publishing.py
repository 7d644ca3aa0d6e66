"""Writes exports atomically: into a temporary folder beside, which is moved to its place when it is complete."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from autoprune.errors import AutopruneError, PluginError, RunExists
from autoprune.run.records.folder import naming
from autoprune.run.results.exporter import Exporter, ExportFacts, files_of

_SCRATCH = ".export-"  # prefix of the folders of incomplete exports
_MOVING = ".moving-"  # prefix of folders whose files are being moved to their places, one after the other


def write_export(
    network: nn.Module, facts: ExportFacts, example: Sequence[torch.Tensor], directory: Path, exporter: Exporter
) -> None:
    """Writes the files of an exporter into a new directory, atomically.

    Raises:
        RunExists: the directory exists and is not empty.
        PluginError: the exporter failed or wrote nothing.
        OSError: a file cannot be written; the error has its name.
        AutopruneError: the exporter raised it, such as RecipeError and ExportError.
    """
    check_free(directory)
    with _beside(directory) as scratch:
        try:
            exporter.write(network, facts, example, scratch)
        except (AutopruneError, OSError):
            raise
        except Exception as error:
            raise PluginError(f"the exporter {exporter.name!r} raised {type(error).__name__}: {error}") from error
        files_of(exporter, scratch)
        _publish(scratch, directory)


def check_free(directory: Path) -> None:
    """Raises RunExists for a directory that is not empty; files of a killed export are ignored."""
    if not directory.exists():
        return
    visible = not directory.is_dir() or any(not path.name.startswith(".") for path in directory.iterdir())
    unfinished = any(path.is_dir() and any(path.iterdir()) for path in directory.glob(f"{_MOVING}*"))
    if visible and not unfinished:
        raise RunExists(f"expected a new folder for the export, {directory} is already there. Give another --out.")


@contextlib.contextmanager
def _beside(directory: Path) -> Iterator[Path]:
    """A temporary folder beside the directory, or in it if it exists already; it is removed at the end."""
    around = directory if directory.exists() else directory.parent
    scratch = around / f"{_SCRATCH}{directory.name}-{os.getpid()}"
    with naming(directory):
        around.mkdir(parents=True, exist_ok=True)
        _remove(around, f"{_SCRATCH}{directory.name}-*")
        scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _remove(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        shutil.rmtree(path, ignore_errors=True)


def _publish(scratch: Path, directory: Path) -> None:
    """Moves a complete export to its place: in one step, or file by file if the directory exists already."""
    if directory.exists():
        check_free(directory)
    with naming(directory):
        if scratch.parent != directory:
            scratch.rename(directory)
            return
        _remove(directory, f"{_MOVING}*")
        moving = scratch.rename(directory / f"{_MOVING}{directory.name}-{os.getpid()}")
        for path in sorted(moving.iterdir(), reverse=True):  # weights before the recipe that describes them
            path.replace(directory / path.name)
        moving.rmdir()
