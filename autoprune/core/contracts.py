"""The two contracts: a searcher proposes candidates, an evaluator measures them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate


@runtime_checkable
class Searcher(Protocol):
    """Proposes candidates and learns from evaluations; never evaluates, never touches disk, clock or global state.

    >>> searcher.ask(2)          # at most 2 candidates, none proposed before
    [A, B]
    >>> searcher.ask(2)          # no proposal until an answer arrives
    []
    >>> searcher.tell([of_B])    # answers come in any order, failed ones too
    >>> searcher.ask(2)
    [C]

    `[]` while nothing is pending means the searcher has ended. Two searchers built with the same problem and seed and
    given the same calls propose the same candidates: that is how a run resumes.

    A searcher that asks for fidelities below 1 lists all of them in an attribute `fidelities`, ascending and ending
    with 1. A searcher that reads the `parts` of evaluations between these fidelities sets `in_parts = True`.
    """

    def ask(self, n: int) -> list[Candidate]:
        """Returns up to n candidates to evaluate next."""
        ...

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Receives answers to earlier candidates, in any order, whether ok or failed."""
        ...


@runtime_checkable
class Remarking(Protocol):
    """Optional: a searcher that reports its state in a few words."""

    @property
    def remark(self) -> str:
        """A few words for the progress line; empty while there is nothing to report."""
        ...


@runtime_checkable
class Evaluator(Protocol):
    """Turns candidates into evaluations; a failure is an Evaluation, never an exception.

    The same candidate gives the same values whatever was evaluated before.
    """

    @property
    def slots(self) -> int:
        """The number of candidates that can be in flight at once."""
        ...

    def submit(self, candidate: Candidate) -> None:
        """Starts one candidate; at most `slots` may be uncollected."""
        ...

    def collect(self) -> Evaluation:
        """Waits for and returns the next finished evaluation."""
        ...
