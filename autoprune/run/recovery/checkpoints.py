"""Checkpoints of a recovery: one file, replaced in one step, from which the training continues to the same bits."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from autoprune.errors import RunDamaged
from autoprune.run.records.tensor_file import write_tensors
from autoprune.run.recovery.written import check_same
from autoprune.train.recovery.loop import Recovering
from autoprune.train.recovery.state import Saved

CHECKPOINT = "checkpoint.safetensors"
SECONDS = 60.0  # the longest time between two checkpoints, apart from that of a step


@dataclass(eq=False)
class Checkpoints:
    """The checkpoint of a recovery in its folder, or none without a folder.

    Attributes:
        folder: the folder; None keeps nothing.
        identity: what the training depends on. A checkpoint of another identity is refused.
        writes: whether this process writes checkpoints; one of several that train together does.
    """

    folder: Path | None
    identity: Mapping[str, Any]
    writes: bool = True
    _last: float = field(default_factory=time.monotonic, init=False)

    def load_into(self, loop: Recovering) -> None:
        """Continues the training of a checkpoint, if there is one.

        Raises:
            ConfigError: it was started with other options.
            RunDamaged: the file cannot be read.
        """
        if self.folder is None or not (self.folder / CHECKPOINT).is_file():
            return
        path = self.folder / CHECKPOINT
        try:
            with safe_open(path, "pt") as file:
                written = json.loads(file.metadata()["state"])
                check_same(self.folder, written["identity"], dict(self.identity))
                loop.load(Saved({name: file.get_tensor(name) for name in file.keys()}, written["facts"]))  # noqa: SIM118
        except (SafetensorError, LookupError, TypeError, json.JSONDecodeError, RuntimeError) as error:
            raise RunDamaged(
                f"{path} cannot be read: {type(error).__name__}: {error}. Remove {self.folder} to start again."
            ) from error

    def keep(self, loop: Recovering) -> None:
        """Writes a checkpoint after a measurement, and if the last one is too old.

        Raises:
            OSError: it cannot be written, as on a full disk. The last one stays.
        """
        if self.folder is None or not self.writes:
            return
        measured = bool(loop.history) and loop.history[-1].step == loop.done
        if not measured and time.monotonic() - self._last < SECONDS:
            return
        saved = loop.state()
        state = json.dumps({"identity": self.identity, "facts": saved.facts})
        tensors = {name: x.detach().cpu().contiguous() for name, x in saved.tensors.items()}
        try:
            write_tensors(self.folder / CHECKPOINT, tensors, {"state": state})
        except OSError as error:
            error.add_note(_advice(self.folder / CHECKPOINT, loop.done))
            raise
        self._last = time.monotonic()

    def remove(self) -> None:
        """Removes the file, once the result is written."""
        if self.folder is not None:
            (self.folder / CHECKPOINT).unlink(missing_ok=True)


def _advice(path: Path, step: int) -> str:
    kept = "The last checkpoint stays" if path.exists() else "There is no checkpoint yet"
    return f"The training stopped after step {step:,}. {kept}; the same command goes on from it."
