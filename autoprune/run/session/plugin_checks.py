"""Checks that plug-ins keep their contracts, with messages in place of errors from the code that uses them."""

from __future__ import annotations

import contextlib
import itertools
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from autoprune.core.contracts import MultiFidelity, Searcher
from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem
from autoprune.core.process import ending_forks
from autoprune.core.space import Candidate, SearchSpace
from autoprune.data import Data
from autoprune.errors import AutopruneError, DataError, PluginError, SpaceError

_TEST = "autoprune.testing.check_searcher tests a searcher."


def expect_data(data: object) -> None:
    """Raises DataError if the object is not Data; the message says how to make Data from it."""
    if isinstance(data, Data):
        return
    if hasattr(data, "__iter__") and hasattr(data, "dataset"):
        advice = "Make three loaders of different examples and pass Data.from_loaders(calibrate, select, report)."
    elif isinstance(data, tuple | list | Mapping) or hasattr(data, "shape"):
        advice = (
            "Pass Data.from_arrays(calibrate=(x,), select=(x2, y2), report=(x3, y3)) with different examples in each."
        )
    else:
        advice = "See Data.from_arrays for arrays and tensors, and Data.from_loaders for loaders."
    raise DataError(f"data: expected an autoprune.data.Data of three disjoint sets, got {kind_of(data)}. {advice}")


def expect_searcher(searcher: object) -> None:
    """Raises PluginError if the object is not a searcher, or announces invalid fidelities."""
    missing = [name for name in ("ask", "tell") if not callable(getattr(searcher, name, None))]
    if isinstance(searcher, type) or missing:
        lack = "is not made yet" if isinstance(searcher, type) else f"has no {' and no '.join(missing)}"
        raise PluginError(
            f"expected the searcher to be an object with ask(n) and tell(evaluations), got {kind_of(searcher)}, which "
            f"{lack}. {_TEST}"
        )
    given: Any = (searcher.fidelities if isinstance(searcher, MultiFidelity) else ()) or (1.0,)
    shares = [share for share in given if isinstance(share, int | float) and 0 < share <= 1]
    rising = all(a < b for a, b in itertools.pairwise(shares))
    if len(shares) < len(given) or not rising or shares[-1] != 1:
        raise PluginError(f"expected the searcher's fidelities to rise to 1 from above 0, got {given!r}. {_TEST}")


def made_searcher(make: Callable[[Problem, int], Searcher], problem: Problem, seed: int) -> Searcher:
    """Makes a searcher. PluginError if what makes it raises, or makes no searcher."""
    with _searching("making the searcher"):
        searcher = make(problem, seed)
    expect_searcher(searcher)
    return searcher


def tell(searcher: Searcher, evaluation: Evaluation) -> None:
    """Tells a searcher an evaluation. PluginError if it raises."""
    with _searching("tell of the searcher"):
        searcher.tell([evaluation])


@contextlib.contextmanager
def _searching(what: str) -> Iterator[None]:
    """Turns what a searcher raises into a PluginError; errors that autoprune raises on purpose pass."""
    try:
        with ending_forks():
            yield
    except AutopruneError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise PluginError(
            f"{what} raised {type(error).__name__}: {error} in {frame.name} ({frame.filename}:{frame.lineno}). {_TEST}"
        ) from error


def proposals_of(searcher: Searcher, n: int, space: SearchSpace) -> list[Candidate]:
    """Asks a searcher for up to n candidates and checks them. PluginError or SpaceError if they are invalid."""
    with _searching(f"ask({n}) of the searcher"):
        asked: Any = searcher.ask(n)
    if not isinstance(asked, list | tuple):
        raise PluginError(f"expected ask({n}) to return a list of candidates, got {kind_of(asked)}. {_TEST}")
    if len(asked) > n:
        raise PluginError(f"expected at most {n} candidates of ask({n}), got {len(asked)}. {_TEST}")
    for candidate in asked:
        if not isinstance(candidate, Candidate):
            raise PluginError(
                f"expected ask({n}) to return autoprune.Candidate objects, got {kind_of(candidate)} among them. Return "
                f"Candidate(levels) with a tuple of {len(space.units)} level indices. {_TEST}"
            )
        try:
            space.check(candidate)
        except SpaceError as error:
            raise SpaceError(f"the searcher proposed {candidate}: {error}. {_TEST}") from error
        if candidate.since:
            raise PluginError(f"expected candidates whose `since` the searcher leaves at 0, got {candidate}. {_TEST}")
    return list(asked)


def kind_of(value: object) -> str:
    """The kind of a value, for a message."""
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
