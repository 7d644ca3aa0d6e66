"""Contract tests for the authors of plug-ins, one for each extension point, and a synthetic problem for searchers.

>>> check_searcher(MySearcher)             # returns None, or raises an AssertionError
>>> check_fitness(my_fitness, model, batches)
>>> check_cost(my_cost)

The message of the AssertionError says what was expected, what came and what to do. Exceptions of the plug-in itself are
reported in the same way. A check that needs a network and is given none uses a small network of its own. torch is
imported only when a check needs it.
"""

from autoprune.testing.costs import check_cost
from autoprune.testing.criteria import check_criterion, check_masks
from autoprune.testing.data import check_data
from autoprune.testing.evaluators import answers, check_evaluator
from autoprune.testing.exporters import check_exporter
from autoprune.testing.fitness import check_fitness
from autoprune.testing.losses import check_loss
from autoprune.testing.rules import check_adapter, check_fix, check_rule
from autoprune.testing.searchers import check_searcher, trace
from autoprune.testing.synthetic import Synthetic, synthetic_problem
from autoprune.testing.trackers import check_tracker

__all__ = [
    "Synthetic",
    "answers",
    "check_adapter",
    "check_cost",
    "check_criterion",
    "check_data",
    "check_evaluator",
    "check_exporter",
    "check_fitness",
    "check_fix",
    "check_loss",
    "check_masks",
    "check_rule",
    "check_searcher",
    "check_tracker",
    "synthetic_problem",
    "trace",
]
