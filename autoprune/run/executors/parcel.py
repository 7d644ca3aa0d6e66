"""The scorer as one file: written once by the driver, mapped into the memory of every worker that opens it.

Pages that workers only read exist once on a machine; one that a user's code writes to becomes that worker's own.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import IO

import cloudpickle
import torch

from autoprune.errors import PluginError
from autoprune.measure.scorer import Scorer
from autoprune.plugins import FILE_MODULES
from autoprune.run.executors.computing import apply_settings, settings


def pack(scorer: Scorer, file: IO[bytes], sharing: int) -> None:
    """Writes a scorer without what it has cached, its form with the number of threads that is now in force.

    So many workers share what the scorer may keep of the dense network's outputs on a machine.

    Functions and classes of `__main__` and of plug-ins named by file travel by value; the rest is imported again.

    Raises:
        PluginError: something the scorer needs cannot be sent, by name.
    """
    scoring = scorer.scoring
    form = replace(scoring.form, threads=scoring.form.threads or torch.get_num_threads())
    fresh = scorer.with_scoring(form=form, reuse_bytes=scoring.reuse_bytes // sharing)
    with _files_by_value():
        try:
            torch.save({"settings": settings(), "scorer": fresh}, file, pickle_module=cloudpickle)
        except (pickle.PicklingError, TypeError, AttributeError, RuntimeError, NotImplementedError) as error:
            culprit = _culprit(fresh)
            if culprit is None:  # it is the file that cannot be written
                raise
            raise PluginError(
                f"expected everything a worker needs to be picklable, but {culprit} is not: {error}. Leave open files, "
                "locks, generators and connections out of it and make them in the function that uses them, or write "
                "`executor: serial`."
            ) from error


def unpack(path: Path) -> Scorer:
    """The scorer of a file; its tensors are mapped from it, copied where they are written to.

    What was set in torch where it was packed is set here.
    """
    parcel = torch.load(path, mmap=True, weights_only=False)
    apply_settings(parcel["settings"])
    scorer: Scorer = parcel["scorer"]
    return scorer


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
    return next((f"the {field.name}" for field in fields(scorer) if _fails(getattr(scorer, field.name))), None)


def _fails(part: object) -> bool:
    try:
        cloudpickle.dumps(part)
    except Exception:  # whatever a user's __reduce__ raises; the question is only whether it does
        return True
    return False
