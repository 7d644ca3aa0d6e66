"""The contracts of a run: a searcher proposes candidates, an evaluator measures them, a tracker observes both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

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

    A searcher that asks for fidelities below 1 is also `MultiFidelity`, one that reads the `parts` of evaluations also
    `Comparing`, one that reports how it is doing also `Remarking`.
    """

    def ask(self, n: int) -> list[Candidate]:
        """Returns up to n candidates to evaluate next."""
        ...

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Receives answers to earlier candidates, in any order, whether ok or failed, and changes nothing of them."""
        ...


@runtime_checkable
class MultiFidelity(Protocol):
    """A searcher that scores networks on parts of the selection set, or of a fine-tune; optional."""

    @property
    def fidelities(self) -> tuple[float, ...]:
        """All shares that it may ask for, ascending and ending with 1."""
        ...


@runtime_checkable
class Comparing(Protocol):
    """A searcher that compares networks part by part; optional."""

    @property
    def in_parts(self) -> bool:
        """Whether it needs `parts`: the means between each fidelity and the next."""
        ...


def fidelities_of(searcher: object) -> tuple[float, ...]:
    """The fidelities that a searcher announces; empty if it scores networks on the whole selection set only."""
    return tuple(searcher.fidelities) if isinstance(searcher, MultiFidelity) else ()


def reads_parts(searcher: object) -> bool:
    """Whether a searcher needs the `parts` of evaluations."""
    return isinstance(searcher, Comparing) and bool(searcher.in_parts)


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


@runtime_checkable
class Tracker(Protocol):
    """Observes a run from the driver's process, for dashboards, logs and databases.

    >>> tracker.started(facts)                 # once a start: a run that is resumed starts again
    >>> tracker.evaluated(evaluation, 1, 300)  # every new evaluation, failed ones too
    >>> tracker.finished(rows)                 # the front; not called for a run that ends with an error

    A tracker changes nothing: it gets copies, and one that raises is dropped with a warning. The search waits for each
    call.
    """

    def started(self, facts: Mapping[str, Any]) -> None:
        """A run starts or is resumed.

        Args:
            facts: plain data: `name`, `folder` (None in memory), `done` and `evaluations` (numbers of earlier and of
                all evaluations), `seed`, `objectives` (names and directions), `dense` (costs of the dense network),
                `units` (names) and `document` (the job, without secrets).
        """
        ...

    def evaluated(self, evaluation: Evaluation, n: int, total: int) -> None:
        """A candidate was evaluated; evaluations that a resumed run reads from its journal are not reported again.

        Args:
            evaluation: the candidate with its values and costs, or with the cause of its failure.
            n: the number of evaluations spent; an evaluation on a part of the selection set counts as that part.
            total: the largest number of evaluations.
        """
        ...

    def finished(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The front is built and written; one row for each of its members, as in front.csv."""
        ...
