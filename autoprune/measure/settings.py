"""The options of scoring, in one value that is passed unchanged from the job to the code that uses them."""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.errors import ConfigError
from autoprune.measure.batch_norms.contract import PolicyName
from autoprune.measure.form import DEFAULT_FORM, Form
from autoprune.measure.prefix import REUSE_BYTES


@dataclass(frozen=True)
class Scoring:
    """How candidates are scored.

    Attributes:
        batch_norms: name of the policy that sets batch norm statistics (measure.batch_norms).
        batch_norm_examples: the number of calibration examples, the first ones, that batch norm statistics are
            estimated on.
        reuse_bytes: the number of bytes kept at most, of the dense network's outputs for candidates that share them
            (measure.prefix) or of networks in training; 0 keeps nothing.
        form: layout, precision, batch size and threads of the passes. The session chooses it.
        fidelities: shares of the selection examples that a search has announced; a batch ends at each of them. The
            session takes them, as it does `in_parts`, from the searcher.
        in_parts: whether values of a fitness that averages over examples are also given for each part of the selection
            set between two consecutive fidelities.

    Raises:
        ConfigError: a number is out of bounds.
    """

    batch_norms: PolicyName = "anchored"
    batch_norm_examples: int = 500
    reuse_bytes: int = REUSE_BYTES
    form: Form = DEFAULT_FORM
    fidelities: tuple[float, ...] = ()
    in_parts: bool = False

    def __post_init__(self) -> None:
        whole = isinstance(self.batch_norm_examples, int) and not isinstance(self.batch_norm_examples, bool)
        if not (whole and self.batch_norm_examples >= 1):
            raise ConfigError(
                [f"batch_norm_examples: expected a whole number from 1, got {self.batch_norm_examples!r}"]
            )
