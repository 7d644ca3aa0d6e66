"""Search-based pruning: from a trained network to a Pareto front of really smaller ones.

The public names are resolved when they are first used, so that `import autoprune` needs numpy alone.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoprune.core.evaluation import Evaluation as Evaluation
    from autoprune.core.front import Front as Front
    from autoprune.core.levels import LevelRule as LevelRule
    from autoprune.core.objective import Bound as Bound
    from autoprune.core.objective import Objective as Objective
    from autoprune.core.problem import Problem as Problem
    from autoprune.core.space import Candidate as Candidate
    from autoprune.core.space import SearchSpace as SearchSpace
    from autoprune.core.unit import Unit as Unit
    from autoprune.data import Data as Data
    from autoprune.errors import AutopruneError as AutopruneError
    from autoprune.measure.batch import Batch as Batch
    from autoprune.measure.finetune import FineTune as FineTune
    from autoprune.measure.recalibrate import recalibrate as recalibrate
    from autoprune.prune.adapting import adapter as adapter
    from autoprune.prune.adapting import fix as fix
    from autoprune.prune.criteria.contract import needs as needs
    from autoprune.prune.examples import call as call
    from autoprune.prune.find import find_structure as find_structure
    from autoprune.prune.rules import rule as rule
    from autoprune.prune.shrink import shrink as shrink
    from autoprune.prune.shrink import verify as verify
    from autoprune.prune.structure import Structure as Structure
    from autoprune.prune.verify import VerifyReport as VerifyReport
    from autoprune.run.api import search as search
    from autoprune.run.export import load as load
    from autoprune.run.job import Executor as Executor

_HOMES = {
    "AutopruneError": "autoprune.errors",
    "Batch": "autoprune.measure.batch",
    "Bound": "autoprune.core.objective",
    "Candidate": "autoprune.core.space",
    "Data": "autoprune.data",
    "Evaluation": "autoprune.core.evaluation",
    "Executor": "autoprune.run.job",
    "FineTune": "autoprune.measure.finetune",
    "Front": "autoprune.core.front",
    "LevelRule": "autoprune.core.levels",
    "Objective": "autoprune.core.objective",
    "Problem": "autoprune.core.problem",
    "SearchSpace": "autoprune.core.space",
    "Structure": "autoprune.prune.structure",
    "Unit": "autoprune.core.unit",
    "call": "autoprune.prune.examples",
    "find_structure": "autoprune.prune.find",
    "adapter": "autoprune.prune.adapting",
    "fix": "autoprune.prune.adapting",
    "rule": "autoprune.prune.rules",
    "VerifyReport": "autoprune.prune.verify",
    "load": "autoprune.run.export",
    "needs": "autoprune.prune.criteria.contract",
    "recalibrate": "autoprune.measure.recalibrate",
    "shrink": "autoprune.prune.shrink",
    "verify": "autoprune.prune.shrink",
}

__version__ = "0.1.0"
__all__ = [*sorted([*_HOMES, "search"]), "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'autoprune' has no attribute {name!r}; it has {__all__}")


def __dir__() -> list[str]:
    return __all__


class _SearchRoom(ModuleType):
    """The room autoprune.search, which is also the function: `autoprune.search(model, data)` runs a search."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return importlib.import_module("autoprune.run.api").search(*args, **kwargs)


# once the room is imported, Python binds it to the name the function has
importlib.import_module("autoprune.search").__class__ = _SearchRoom
