"""The options of scoring, declared once, and the settings that are passed unchanged to the code that uses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from autoprune.core.options import Option, option_problems, raise_problems
from autoprune.measure.batch_norms.contract import PolicyName
from autoprune.measure.form import DEFAULT_FORM, Form

GIB = 1 << 30
MOST_GIB = 1_000_000.0


@dataclass(frozen=True)
class Scoring:
    """The options of scoring. Job files have each of them as a key of the section that its annotation names.

    Attributes:
        batch_norms: statistics of batch norms while a candidate is scored: anchored, reestimated, eagleeye or batch.
        batch_norm_examples: number of calibration examples (the first ones) for statistics and batch norms of
            candidates.
        reuse_gib: memory of one machine for outputs of the dense network that candidates share or, with finetune, for
            networks in training, in GiB; 0 for none.

    Raises:
        ConfigError: an option is out of bounds.
    """

    batch_norms: Annotated[PolicyName, Option("search")] = "anchored"
    batch_norm_examples: Annotated[int, Option("search", least=1)] = 500
    reuse_gib: Annotated[float, Option("run", most=MOST_GIB, changes_scores=False)] = 2.0

    def __post_init__(self) -> None:
        raise_problems(option_problems(self))

    @property
    def reuse_bytes(self) -> int:
        return round(self.reuse_gib * GIB)


DEFAULT_SCORING = Scoring()


@dataclass(frozen=True)
class ScorerSettings(Scoring):
    """The settings of a scorer: the options of scoring, and what the session chooses.

    Attributes:
        form: layout, precision, batch size and threads of the passes.
        fidelities: shares of the selection examples that a search has announced; a batch ends at each of them. The
            session takes them, as it does `in_parts`, from the searcher.
        in_parts: whether values of a fitness that averages over examples are also given for each part of the selection
            set between two consecutive fidelities.
    """

    form: Form = DEFAULT_FORM
    fidelities: tuple[float, ...] = ()
    in_parts: bool = False
