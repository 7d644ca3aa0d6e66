"""The run folder: the paths of its files, and functions that write them atomically."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import yaml
from safetensors import SafetensorError

from autoprune.errors import ConfigError, RunExists, RunNotFound, did_you_mean

LOCK = ".begin.lock"  # held by the process that begins a run in a folder


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
    def forecast(self) -> Path:
        return self.path / "forecast.json"

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
    def built(self) -> Path:
        return self.path / "built.json"

    @property
    def additivity(self) -> Path:
        return self.path / "additivity.csv"

    @property
    def audit_records(self) -> Path:
        return self.path / "audit.jsonl"

    @property
    def audit_json(self) -> Path:
        return self.path / "audit.json"

    @property
    def audit_csv(self) -> Path:
        return self.path / "audit.csv"

    @property
    def harm(self) -> Path:
        return self.path / "harm.json"

    @property
    def recovered(self) -> Path:
        return self.path / "recovered"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @staticmethod
    def check_free(path: Path) -> None:
        """Raises RunExists if the path is taken; hidden files, as a killed process leaves them, are ignored."""
        if path.exists() and (not path.is_dir() or any(not file.name.startswith(".") for file in path.iterdir())):
            raise RunExists(
                f"expected a new folder for the run, {path} is already there. "
                f"Give another --out, or continue it with: autoprune resume {path}"
            )
        check_place(path)

    @staticmethod
    def open(path: Path) -> RunFolder:
        """The folder of an existing run. RunNotFound if there is none."""
        folder = RunFolder(path)
        if not folder.job.is_file():
            runs = [other.parent.name for other in path.parent.glob("*/job.yaml")]
            hint = did_you_mean(path.name, runs)
            raise RunNotFound(f"expected a run folder with a job.yaml, found none at {path}{hint}")
        return folder


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[RunFolder]:
    """Makes and locks the folder of a new run, so that no other process can begin a run in it inside the context.

    When the context ends, the lock is released, and folders that were made here and are still empty are removed: a run
    that could not begin leaves nothing behind.

    Raises:
        RunExists: another process was first.
    """
    path = path.absolute()  # the job's own code may change the current directory
    owner = os.getpid()  # a process that user code forks inside must not clean up
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    lock = filelock.FileLock(path / LOCK, timeout=0)
    try:
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise RunExists(f"expected a new folder for the run, another process begins one in {path}.") from None
        try:
            RunFolder.check_free(path)
            yield RunFolder(path)
        finally:
            if os.getpid() == owner:
                (path / LOCK).unlink(missing_ok=True)
                lock.release()
    finally:
        for folder in made if os.getpid() == owner else ():
            with contextlib.suppress(OSError):  # it is not empty, or was removed
                folder.rmdir()


def as_path(name: str, given: object) -> Path:
    """The argument `name` as a path. ConfigError if it is neither a path nor its text."""
    if not isinstance(given, str | Path):
        raise ConfigError(f"{name}: expected a path, got {given!r}")
    return Path(given)


def check_new(path: Path, what: str) -> None:
    """Raises RunExists if the path of a new folder for `what` is a file or a folder that is not empty."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunExists(f"expected a new folder for {what}, {path} is already there. Give another --out.")
    check_place(path)


def check_place(path: Path) -> None:
    """Raises ConfigError if no file or folder can be made at a path, or if it is a folder that cannot be written to."""
    if not path.name:
        raise ConfigError(f"expected the path of a new folder, got {str(path)!r}. Give another --out.")
    above = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if above != path.absolute() and not above.is_dir():
        raise ConfigError(f"{path} cannot be made: {above} is a file. Give another --out.")
    if above.is_dir() and not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"{path} cannot be made: no right to write in {above}. Give another --out.")


def short(path: Path) -> Path:
    """The path for messages: relative to the current directory if it is below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def next_free(path: Path) -> Path:
    """The path if it is free, else the first free one with -2, -3, ... appended."""
    candidate, number = path, 2
    while candidate.exists():
        candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
    return candidate


def write_text(path: Path, text: str) -> None:
    """Writes a file atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically, even if the machine loses power. Errors are OSErrors with the file's name."""
    with replacing(path) as scratch, scratch.open("wb") as file:
        file.write(content)


def write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def write_yaml(path: Path, data: Any) -> None:
    write_text(path, yaml.safe_dump(data, sort_keys=False))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the path of a temporary file that replaces the target when it is on the disk; it is removed on failure.

    Raises:
        OSError: the file cannot be written. The error has the target's name, also for a full disk and for safetensors.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with naming(path):
        try:
            yield scratch
            _sync(scratch)
            scratch.replace(path)
            _sync(path.parent)  # syncs the new name
        finally:
            with contextlib.suppress(OSError):  # the earlier error is the one that the user needs
                scratch.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds the name of the file to every error of reading or writing it."""
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
