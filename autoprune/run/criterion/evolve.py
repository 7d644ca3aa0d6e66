"""Genetic programming over formulas of weights, inputs and gradients that order positions.

Source: Dong et al., Pruner-Zero: Evolving Symbolic Pruning Metric from Scratch for Large Language Models, ICML 2024,
https://arxiv.org/abs/2406.02924: trees of a few operators over weight, gradient and activation, bred by tournaments,
crossover and mutation, simplified, and evaluated by the pruned network. Departures: formulas order positions of a unit,
not single weights; terminals include the spread of inputs and the norm of producers besides the paper's three, and
gradients are those of positions; the population begins with known criteria, never loses its best, and takes one child
at a time; formulas that order all positions alike count as one; their length is limited so that they are readable.
Trees grow, cross and mutate by DEAP's operators (https://deap.readthedocs.io); nothing is compiled, and no class is
created.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from deap import gp

from autoprune.core.options import at_least
from autoprune.run.criterion.formula import OPERATORS, SymbolicFormula, Table, of, orders, simplified

SIZE = 15  # largest number of operators and terminals; trees stay far below the height of 17 that DEAP warns of
START = (2, 5)  # heights of random trees
CHILD_ATTEMPTS = 500  # the search ends after this many children in a row that are not new
TOURNAMENT = 3

KNOWN: Mapping[str, SymbolicFormula] = {
    "magnitude of producers": of("abs", "producer"),
    "magnitude of consumers": of("abs", "weight"),
    "squared magnitude of consumers": of("square", "weight"),
    "Wanda": of("mul", of("abs", "weight"), "inputs"),
    "FLAP": of("mul", of("square", "weight"), of("square", "spread")),
    "gradient times weight": of("abs", "gradient"),
    "Pruner-Zero": of("mul", of("abs", of("mul", "weight", "weight")), of("minmax", "gradient")),
}

Orders = Mapping[str, np.ndarray]
Measure = Callable[[Orders], float]  # lower is better; NaN and infinite count as failed


@dataclass(frozen=True)
class Judged:
    """A formula with the loss of networks whose positions are ordered by it."""

    formula: SymbolicFormula
    fitness: float

    @property
    def rank(self) -> tuple[float, int]:
        """The sort key; lower is better, and of equally good formulas the shorter one is better."""
        return self.fitness, self.formula.size


def evolve(
    table: Table,
    measure: Measure,
    *,
    evaluations: int = 200,
    population: int = 32,
    seed: int = 0,
    report: Callable[[int, Judged], None] = lambda done, best: None,
) -> list[Judged]:
    """Evolves formulas and returns all that were measured, the best first.

    Args:
        table: the terminals of each unit's consumers; all have the same names.
        measure: returns the loss of networks whose units keep positions in the given orders.
        evaluations: the number of its calls at most.
        population: the number of formulas that are bred from.
        seed: the seed of all random choices.
        report: called after each measurement with the number of measurements and the best formula so far.
    """
    search = FormulaSearch(table, population=population, seed=seed)
    for done in range(1, at_least("evaluations", evaluations, 1) + 1):
        asked = search.ask()
        if asked is None:
            break
        search.tell(measure(asked))
        report(done, min(search.judged, key=lambda judged: judged.rank))
    return sorted(search.judged, key=lambda judged: judged.rank)


class FormulaSearch:
    """Proposes orders of positions, one formula at a time, determined by its seed and the losses that it is told.

    The known criteria come first, then random trees up to `population`, then children of the best.
    """

    def __init__(self, table: Table, *, population: int = 32, seed: int = 0) -> None:
        self.judged: list[Judged] = []
        self._table = table
        self._size = at_least("population", population, 2)
        self._set = _primitives(table)
        self._rng = random.Random(seed)
        self._known = iter([f for f in KNOWN.values() if f.terminals <= {t.name for t in self._set.terminals[object]}])
        self._formulas: set[SymbolicFormula] = set()
        self._rankings: set[bytes] = set()
        self._asked: SymbolicFormula | None = None

    def ask(self) -> Orders | None:
        """Returns orders that differ from all earlier ones; None if none is found."""
        for _ in range(CHILD_ATTEMPTS):
            formula = simplified(next(self._known, None) or self._bred())
            if formula in self._formulas or formula.size > SIZE:
                continue
            self._formulas.add(formula)
            found = orders(formula, self._table)
            if found is not None and self._is_new(found):
                self._asked = formula
                return found
        return None

    def tell(self, fitness: float) -> None:
        """Receives the loss of the last orders that were asked for."""
        assert self._asked is not None, "told before anything was asked"
        self.judged.append(Judged(self._asked, math.inf if math.isnan(fitness) else fitness))

    def _is_new(self, found: Orders) -> bool:
        ranking = b"".join(order.astype(np.int32).tobytes() for order in found.values())
        new = ranking not in self._rankings
        self._rankings.add(ranking)
        return new

    def _bred(self) -> SymbolicFormula:
        """A random tree, or a child of the best."""
        with self._drawing():
            if len(self.judged) < self._size:
                return _formula(gp.genHalfAndHalf(self._set, *START))
            parents = sorted(self.judged, key=lambda judged: judged.rank)[: self._size]
            first, second = (self._tree(_tournament(parents)) for _ in range(2))
            return _formula(self._varied(first, second))

    def _varied(self, first: gp.PrimitiveTree, second: gp.PrimitiveTree) -> gp.PrimitiveTree:
        """The first tree after a crossover with the second, or after one of three mutations."""
        chance = random.random()
        if chance < 0.6:
            return gp.cxOnePoint(first, second)[0]
        if chance < 0.8:
            return gp.mutUniform(first, functools.partial(gp.genFull, min_=0, max_=2), self._set)[0]
        if chance < 0.95:
            return gp.mutNodeReplacement(first, self._set)[0]
        return gp.mutShrink(first)[0]

    def _tree(self, formula: SymbolicFormula) -> gp.PrimitiveTree:
        return gp.PrimitiveTree([self._set.mapping[name] for name in _prefix(formula)])

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Puts this search's generator in place of the global one, which DEAP draws from, and restores that."""
        before = random.getstate()
        random.setstate(self._rng.getstate())
        try:
            yield
        finally:
            self._rng.setstate(random.getstate())
            random.setstate(before)


def _primitives(table: Table) -> gp.PrimitiveSet:
    primitives = gp.PrimitiveSet("criterion", 0)
    for name, (arity, function) in OPERATORS.items():
        primitives.addPrimitive(function, arity, name)
    for name in sorted({name for consumers in table.values() for arrays in consumers for name in arrays}):
        primitives.addTerminal(None, name)
    return primitives


def _tournament(parents: list[Judged]) -> SymbolicFormula:
    return min((random.choice(parents) for _ in range(TOURNAMENT)), key=lambda judged: judged.rank).formula


def _prefix(formula: SymbolicFormula) -> Iterator[str]:
    yield formula.name
    for part in formula.inputs:
        yield from _prefix(part)


def _formula(tree: list[gp.Primitive | gp.Terminal]) -> SymbolicFormula:
    """The formula of a tree in prefix order."""
    stack: list[SymbolicFormula] = []
    for node in reversed(tree):
        stack.append(SymbolicFormula(node.name, tuple(stack.pop() for _ in range(node.arity))))
    return stack.pop()
