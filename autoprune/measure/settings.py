"""The options of scoring, in one value that passes whole from the job to where they are used."""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.errors import ConfigError
from autoprune.measure.batch_norms.contract import Name
from autoprune.measure.form import PLAIN, Form
from autoprune.measure.prefix import REUSE_BYTES


@dataclass(frozen=True)
class Scoring:
    """How candidates are scored.

    Attributes:
        batch_norms: name of the policy by which batch norms are settled (measure.batch_norms).
        batch_norm_examples: how many calibration examples statistics and batch norms are estimated on, the first ones.
        reuse_bytes: limit of what is kept of the dense network's outputs for candidates that share them
            (measure.prefix), or of networks in training; 0 keeps nothing.
        form: layout, precision, batch and threads of the passes. The session chooses it.
        fidelities: shares of the selection examples that a search has announced; a batch ends at each of them. The
            session takes them from the searcher, as it does the next.
        in_parts: whether values of a fitness that averages over examples are also given for what is between one of the
            fidelities and the next.

    Raises:
        ConfigError: a number is out of bounds.
    """

    batch_norms: Name = "anchored"
    batch_norm_examples: int = 500
    reuse_bytes: int = REUSE_BYTES
    form: Form = PLAIN
    fidelities: tuple[float, ...] = ()
    in_parts: bool = False

    def __post_init__(self) -> None:
        whole = isinstance(self.batch_norm_examples, int) and not isinstance(self.batch_norm_examples, bool)
        if not (whole and self.batch_norm_examples >= 1):
            raise ConfigError(
                [f"batch_norm_examples: expected a whole number from 1, got {self.batch_norm_examples!r}"]
            )
