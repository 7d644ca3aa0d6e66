"""The scorer, and the builder of the front's networks, as one file: written by the driver, mapped by every worker.

Workers on a machine share the pages that they only read; a page that a user's code writes to is copied for its worker.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import cloudpickle
import torch

from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.errors import PluginError
from autoprune.measure.scorer import Scorer
from autoprune.measure.settings import GIB
from autoprune.plugins import FILE_MODULES
from autoprune.run.executors.computing import apply_settings, torch_settings


class Builder(Protocol):
    """Builds and measures networks of the front; it is picklable (run.results.building)."""

    def with_scorer(self, scorer: Scorer) -> Builder:
        """Returns the builder with another scorer of the same values."""
        ...

    def build(self, candidate: Candidate) -> Evaluation:
        """Builds and measures one network; a failure is recorded in the answer."""
        ...


class Parcel(NamedTuple):
    """The content of a parcel. The builder, which comes after the search, uses this scorer."""

    scorer: Scorer
    builder: Builder | None


def pack(scorer: Scorer, file: IO[bytes], sharing: int, builder: Builder | None = None) -> None:
    """Writes a scorer without its caches; its form gets the current number of threads.

    Functions and classes of `__main__` and of plug-ins named by file are pickled by value; workers import the others.

    Args:
        scorer: the scorer.
        file: the file to write to.
        sharing: the number of workers on a machine, which share the limit on kept outputs of the dense network.
        builder: if given, it is written with this scorer.

    Raises:
        PluginError: an object that the scorer needs cannot be pickled; the message names it.
    """
    scoring = scorer.scoring
    form = replace(scoring.form, threads=scoring.form.threads or torch.get_num_threads())
    fresh = scorer.with_scoring(form=form, reuse_gib=scoring.reuse_bytes // sharing / GIB)
    content = Parcel(fresh, builder and builder.with_scorer(fresh))
    with _files_by_value():
        try:
            torch.save({"settings": torch_settings(), "content": content}, file, pickle_module=cloudpickle)
        except (pickle.PicklingError, TypeError, AttributeError, RuntimeError, NotImplementedError) as error:
            culprit = _culprit(fresh) or _culprit_of_building(content.builder)
            if culprit is None:  # the file cannot be written
                raise
            raise PluginError(
                f"expected everything a worker needs to be picklable, but {culprit} is not: {error}. Leave open files, "
                "locks, generators and connections out of it and make them in the function that uses them, or write "
                "`executor: serial`."
            ) from error


def unpack(path: Path) -> Parcel:
    """Reads a parcel. Its tensors are mapped from the file and copied when written to.

    The settings of torch in the process that packed it are applied here.
    """
    written = torch.load(path, mmap=True, weights_only=False)
    apply_settings(written["settings"])
    content: Parcel = written["content"]
    return content


@contextlib.contextmanager
def _files_by_value() -> Iterator[None]:
    modules = [module for name, module in sys.modules.items() if name.startswith(FILE_MODULES)]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def _culprit(scorer: Scorer) -> str | None:
    """The part of a scorer that cannot be pickled."""
    if _fails(scorer.bank.model):
        return "the model"
    if _fails(scorer.bank.weights):
        return "the masks"
    return _failing_field(scorer)


def _culprit_of_building(builder: Builder | None) -> str | None:
    return None if builder is None else _failing_field(builder)


def _failing_field(part: Any) -> str | None:
    return next((f"the {field.name}" for field in fields(part) if _fails(getattr(part, field.name))), None)


def _fails(part: object) -> bool:
    try:
        cloudpickle.dumps(part)
    except Exception:  # a user's __reduce__ may raise anything
        return True
    return False
