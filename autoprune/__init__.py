"""Search-based structural pruning: turns a trained network into a Pareto front of smaller networks.

The public names are resolved when they are first used, so that `import autoprune` imports only numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoprune.api.front import PrunedFront as PrunedFront
    from autoprune.api.opening import open_run as open_run
    from autoprune.api.recovering import recover as recover
    from autoprune.api.rounds import prune_in_rounds as prune_in_rounds
    from autoprune.api.searching import search as search
    from autoprune.core.cost import Formula as Formula
    from autoprune.core.cost import Polynomial as Polynomial
    from autoprune.core.cost import cost_factory as cost_factory
    from autoprune.core.cost import vectorised as vectorised
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
    from autoprune.measure.batch_norms.recalibrate import recalibrate as recalibrate
    from autoprune.measure.form import Form as Form
    from autoprune.measure.settings import Scoring as Scoring
    from autoprune.prune.criteria.contract import needs as needs
    from autoprune.prune.find import find_structure as find_structure
    from autoprune.prune.modules.adapting import adapter as adapter
    from autoprune.prune.modules.adapting import fix as fix
    from autoprune.prune.passes.examples import call as call
    from autoprune.prune.shrink import shrink as shrink
    from autoprune.prune.shrink import verify as verify
    from autoprune.prune.structure.rules import rule as rule
    from autoprune.prune.structure.structure import Structure as Structure
    from autoprune.prune.surgery.verify import VerifyReport as VerifyReport
    from autoprune.run.results.export import load as load
    from autoprune.run.results.front_file import LeftOut as LeftOut
    from autoprune.run.results.member import Member as Member
    from autoprune.run.session.job import Executor as Executor
    from autoprune.run.session.job import Progress as Progress
    from autoprune.train.finetune import FineTune as FineTune
    from autoprune.train.recovery.options import Recovery as Recovery
    from autoprune.train.rounds.options import Rounds as Rounds
    from autoprune.train.rounds.rounds import RoundsOutcome as RoundsOutcome

_HOMES = {
    "AutopruneError": "autoprune.errors",
    "Batch": "autoprune.measure.batch",
    "Bound": "autoprune.core.objective",
    "Candidate": "autoprune.core.space",
    "Data": "autoprune.data",
    "Evaluation": "autoprune.core.evaluation",
    "Executor": "autoprune.run.session.job",
    "FineTune": "autoprune.train.finetune",
    "Formula": "autoprune.core.cost",
    "Form": "autoprune.measure.form",
    "Front": "autoprune.core.front",
    "LeftOut": "autoprune.run.results.front_file",
    "LevelRule": "autoprune.core.levels",
    "Member": "autoprune.run.results.member",
    "Objective": "autoprune.core.objective",
    "Polynomial": "autoprune.core.cost",
    "Problem": "autoprune.core.problem",
    "Progress": "autoprune.run.session.job",
    "PrunedFront": "autoprune.api.front",
    "Recovery": "autoprune.train.recovery.options",
    "Rounds": "autoprune.train.rounds.options",
    "RoundsOutcome": "autoprune.train.rounds.rounds",
    "Scoring": "autoprune.measure.settings",
    "SearchSpace": "autoprune.core.space",
    "Structure": "autoprune.prune.structure.structure",
    "Unit": "autoprune.core.unit",
    "cost_factory": "autoprune.core.cost",
    "vectorised": "autoprune.core.cost",
    "call": "autoprune.prune.passes.examples",
    "find_structure": "autoprune.prune.find",
    "adapter": "autoprune.prune.modules.adapting",
    "fix": "autoprune.prune.modules.adapting",
    "rule": "autoprune.prune.structure.rules",
    "VerifyReport": "autoprune.prune.surgery.verify",
    "load": "autoprune.run.results.export",
    "needs": "autoprune.prune.criteria.contract",
    "recalibrate": "autoprune.measure.batch_norms.recalibrate",
    "open_run": "autoprune.api.opening",
    "prune_in_rounds": "autoprune.api.rounds",
    "recover": "autoprune.api.recovering",
    "search": "autoprune.api.searching",
    "shrink": "autoprune.prune.shrink",
    "verify": "autoprune.prune.shrink",
}

__version__ = "0.1.0"
__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'autoprune' has no attribute {name!r}; it has {__all__}")


def __dir__() -> list[str]:
    return __all__
