"""The run folder: which files are in it, and writing them so that a crash never leaves half of one."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError

from autoprune.errors import RunExists, RunNotFound


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    path: Path

    @property
    def job(self) -> Path:
        return self.path / "job.yaml"

    @property
    def space(self) -> Path:
        return self.path / "space.json"

    @property
    def structure(self) -> Path:
        return self.path / "structure.json"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def bank(self) -> Path:
        return self.path / "bank.safetensors"

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def front_csv(self) -> Path:
        return self.path / "front.csv"

    @property
    def front_json(self) -> Path:
        return self.path / "front.json"

    @property
    def additivity(self) -> Path:
        return self.path / "additivity.csv"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @staticmethod
    def create(path: Path) -> RunFolder:
        """A new folder. RunExists when there is anything at the path already."""
        RunFolder.check_free(path)
        path.mkdir(parents=True, exist_ok=True)
        return RunFolder(path)

    @staticmethod
    def check_free(path: Path) -> None:
        """Raises RunExists for a path that is taken; hidden files, as a killed process leaves them, do not count."""
        if path.exists() and (not path.is_dir() or any(not file.name.startswith(".") for file in path.iterdir())):
            raise RunExists(
                f"expected a new folder for the run, {path} is already there. "
                f"Give another --out, or continue it with: autoprune resume {path}"
            )

    @staticmethod
    def open(path: Path) -> RunFolder:
        """The folder of a run started before. RunNotFound when there is none."""
        folder = RunFolder(path)
        if not folder.job.is_file():
            raise RunNotFound(f"expected a run folder with a job.yaml, found none at {path}")
        return folder


def next_free(path: Path) -> Path:
    """The path, or with -2, -3, ... appended the first that is free."""
    candidate, number = path, 2
    while candidate.exists():
        candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
    return candidate


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, also when the machine loses its power. OSError with the file's name."""
    with replacing(path) as scratch, scratch.open("wb") as file:
        file.write(content)


def write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def write_yaml(path: Path, data: Any) -> None:
    write_text(path, yaml.safe_dump(data, sort_keys=False))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside the target, which it replaces when all of it is on the disk. It is gone when that fails.

    Raises OSError with the target's name, which the errors of a full disk and of safetensors lack.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with naming(path):
        try:
            yield scratch
            _sync(scratch)
            scratch.replace(path)
            _sync(path.parent)  # the new name is in the folder
        finally:
            with contextlib.suppress(OSError):  # what went wrong before is what the user has to know
                scratch.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Gives every error of reading or writing the name of the file that is meant."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise OSError(f"{path}: {error}") from error
        raise OSError(error.errno, error.strerror, str(path)) from error
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise OSError(f"{path}: {error}") from error
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
