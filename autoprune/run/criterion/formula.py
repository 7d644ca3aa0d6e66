"""Formulas over arrays: expression trees of a few safe operators, evaluated, simplified and written out.

The operators are those of prune.criteria.symbolic, here on numpy arrays: what a formula scores while it is searched for
and what its written form scores in a job agree, up to the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

EPSILON = 1e-12  # what logarithms and divisors are kept away from zero by

Arrays = Mapping[str, np.ndarray]
Table = Mapping[str, Sequence[Arrays]]  # by unit: the terminals of each consumer, that of the weight in full shape

SIGNED = ("weight",)  # terminals that may be below zero


@dataclass(frozen=True)
class Formula:
    """An operator with its inputs, or a terminal by its name."""

    name: str
    inputs: tuple[Formula, ...] = ()

    def __str__(self) -> str:
        return written(self)

    @property
    def size(self) -> int:
        """How many operators and terminals it has."""
        return 1 + sum(part.size for part in self.inputs)

    @property
    def terminals(self) -> frozenset[str]:
        """The terminals it reads."""
        return frozenset((self.name,)).union(*(part.terminals for part in self.inputs)) - OPERATORS.keys()


def of(name: str, *inputs: Formula | str) -> Formula:
    """A formula; words stand for terminals."""
    return Formula(name, tuple(Formula(part) if isinstance(part, str) else part for part in inputs))


def _minmax(x: np.ndarray) -> np.ndarray:
    spread = x.max() - x.min()
    return (x - x.min()) / spread if spread > 0 else np.zeros_like(x)


def _zscore(x: np.ndarray) -> np.ndarray:
    spread = x.std()
    return (x - x.mean()) / spread if spread > 0 else np.zeros_like(x)


def _divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    safe = np.abs(y) > EPSILON
    return np.where(safe, x / np.where(safe, y, 1.0), 0.0)


OPERATORS: Mapping[str, tuple[int, Callable[..., np.ndarray]]] = {
    "add": (2, np.add),
    "sub": (2, np.subtract),
    "mul": (2, np.multiply),
    "divide": (2, _divide),
    "neg": (1, np.negative),
    "abs": (1, np.abs),
    "square": (1, np.square),
    "root": (1, lambda x: np.sqrt(np.abs(x))),
    "log": (1, lambda x: np.log(np.abs(x) + EPSILON)),
    "minmax": (1, _minmax),
    "zscore": (1, _zscore),
}


def evaluated(formula: Formula, arrays: Arrays) -> np.ndarray:
    """The value for terminals by name, which broadcast; where it leaves the range of numbers, NaN or infinite."""
    if not formula.inputs:
        return arrays[formula.name]
    operator = OPERATORS[formula.name][1]
    with np.errstate(all="ignore"):
        return np.asarray(operator(*(evaluated(part, arrays) for part in formula.inputs)))


def scores(formula: Formula, consumers: Sequence[Arrays]) -> np.ndarray:
    """(n,) sums of the value over outputs, columns and consumers; the array "weight" of each has (o, n, m)."""
    values = (np.broadcast_to(evaluated(formula, own), own["weight"].shape) for own in consumers)
    with np.errstate(all="ignore"):
        return np.asarray(sum(value.sum(axis=(0, 2)) for value in values))


def orders(formula: Formula, table: Table) -> dict[str, np.ndarray] | None:
    """(n,) positions of each unit, the highest score first, ties by the lower position.

    None for a formula that is no criterion: a score that is not finite, or all alike in every unit.
    """
    found = {unit: scores(formula, consumers) for unit, consumers in table.items()}
    if not all(np.isfinite(own).all() for own in found.values()) or all(np.ptp(own) == 0 for own in found.values()):
        return None
    return {unit: np.argsort(-own, kind="stable") for unit, own in found.items()}


def simplified(formula: Formula) -> Formula:
    """The same up to rounding, with fewer operators where identities of the operators allow it, and one order of terms.

    Pruner-Zero's "opposing operation simplification" is among them: roots of squares and the like.
    """
    return _rewritten(Formula(formula.name, tuple(simplified(part) for part in formula.inputs)))


EVEN = ("abs", "square", "root", "log")  # operators that do not see a sign


def _rewritten(formula: Formula) -> Formula:
    """One node whose inputs are simplified."""
    name, inputs = formula.name, formula.inputs
    if name in ("add", "mul"):
        inputs = tuple(sorted(inputs, key=str))
        return of("square", inputs[0]) if name == "mul" and inputs[0] == inputs[1] else Formula(name, inputs)
    if len(inputs) != 1:
        return formula
    (part,) = inputs
    if name in EVEN and part.name in ("neg", "abs"):
        return _rewritten(Formula(name, part.inputs))
    if name == "neg" and part.name == "neg":
        return part.inputs[0]
    if (name, part.name) in (("root", "square"), ("square", "root")):
        return _rewritten(Formula("abs", part.inputs))
    if name in ("minmax", "zscore") and part.name in ("minmax", "zscore"):
        return _rewritten(Formula(name, part.inputs))
    return part if name == "abs" and _nonnegative(part) else formula


def _nonnegative(formula: Formula) -> bool:
    """Whether a value is known to be at least zero."""
    if formula.name in ("abs", "square", "root", "minmax"):
        return True
    if formula.name in ("add", "mul", "divide"):
        return all(map(_nonnegative, formula.inputs))
    return not formula.inputs and formula.name not in SIGNED


INFIX = {"add": ("+", 1), "sub": ("-", 1), "mul": ("*", 2)}  # sign, and how tightly it binds; calls bind with 3


def written(formula: Formula, prefix: str = "") -> str:
    """The formula as Python, evaluated in the same order, with a prefix before each terminal."""
    return _written(formula, prefix)[0]


def _written(formula: Formula, prefix: str) -> tuple[str, int]:
    """Text, and how tightly its outermost operator binds."""
    if not formula.inputs:
        return prefix + formula.name, 3
    parts = [_written(part, prefix) for part in formula.inputs]
    if formula.name == "neg":
        return "-" + _within(parts[0], 3), 2
    if formula.name in INFIX:
        sign, binding = INFIX[formula.name]
        return f"{_within(parts[0], binding)} {sign} {_within(parts[1], binding + 1)}", binding
    return f"{formula.name}({', '.join(text for text, _ in parts)})", 3


def _within(part: tuple[str, int], binding: int) -> str:
    text, own = part
    return text if own >= binding else f"({text})"
