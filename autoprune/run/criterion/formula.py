"""Formulas over arrays: expression trees of a few safe operators, evaluated, simplified and written as Python.

The operators are those of prune.criteria.symbolic, here on numpy arrays: the scores of a formula during its search and
of its Python form in a job agree, up to the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEAST_DIVISOR = 1e-12  # keeps arguments of logarithms and divisors away from zero

Arrays = Mapping[str, np.ndarray]
Table = Mapping[str, Sequence[Arrays]]  # unit -> the terminals of each consumer; "weight" in full shape

SIGNED = ("weight",)  # terminals that may be below zero


@dataclass(frozen=True)
class SymbolicFormula:
    """An expression: an operator with its inputs, or a terminal by its name."""

    name: str
    inputs: tuple[SymbolicFormula, ...] = ()

    def __str__(self) -> str:
        return written(self)

    @property
    def size(self) -> int:
        """The number of operators and terminals."""
        return 1 + sum(part.size for part in self.inputs)

    @property
    def terminals(self) -> frozenset[str]:
        """The terminals that it reads."""
        return frozenset((self.name,)).union(*(part.terminals for part in self.inputs)) - OPERATORS.keys()


def of(name: str, *inputs: SymbolicFormula | str) -> SymbolicFormula:
    """Makes a formula; strings are names of terminals."""
    return SymbolicFormula(name, tuple(SymbolicFormula(part) if isinstance(part, str) else part for part in inputs))


def _minmax(x: np.ndarray) -> np.ndarray:
    spread = x.max() - x.min()
    return (x - x.min()) / spread if spread > 0 else np.zeros_like(x)


def _zscore(x: np.ndarray) -> np.ndarray:
    spread = x.std()
    return (x - x.mean()) / spread if spread > 0 else np.zeros_like(x)


def _divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    safe = np.abs(y) > LEAST_DIVISOR
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
    "log": (1, lambda x: np.log(np.abs(x) + LEAST_DIVISOR)),
    "minmax": (1, _minmax),
    "zscore": (1, _zscore),
}


def value_of(formula: SymbolicFormula, arrays: Arrays) -> np.ndarray:
    """The value for arrays of terminals, which broadcast; NaN or infinite where it is out of range."""
    if not formula.inputs:
        return arrays[formula.name]
    operator = OPERATORS[formula.name][1]
    with np.errstate(all="ignore"):
        return np.asarray(operator(*(value_of(part, arrays) for part in formula.inputs)))


def scores(formula: SymbolicFormula, consumers: Sequence[Arrays]) -> np.ndarray:
    """The (n,) sums of the value over outputs, columns and consumers, whose array "weight" is (o, n, m)."""
    values = (np.broadcast_to(value_of(formula, own), own["weight"].shape) for own in consumers)
    with np.errstate(all="ignore"):
        return np.asarray(sum(value.sum(axis=(0, 2)) for value in values))


def orders(formula: SymbolicFormula, table: Table) -> dict[str, np.ndarray] | None:
    """The (n,) positions of each unit, the highest score first, ties by the lower position.

    None if a score is not finite, or if the scores are all equal in every unit, as the formula is then no criterion.
    """
    found = {unit: scores(formula, consumers) for unit, consumers in table.items()}
    if not all(np.isfinite(own).all() for own in found.values()) or all(np.ptp(own) == 0 for own in found.values()):
        return None
    return {unit: np.argsort(-own, kind="stable") for unit, own in found.items()}


def simplified(formula: SymbolicFormula) -> SymbolicFormula:
    """An equal formula, up to rounding, with fewer operators by algebraic identities and with terms in a fixed order.

    The identities include Pruner-Zero's "opposing operation simplification", such as roots of squares.
    """
    return _rewritten(SymbolicFormula(formula.name, tuple(simplified(part) for part in formula.inputs)))


EVEN = ("abs", "square", "root", "log")  # operators whose value does not depend on the sign


def _rewritten(formula: SymbolicFormula) -> SymbolicFormula:
    """Simplifies one node whose inputs are simplified already."""
    name, inputs = formula.name, formula.inputs
    if name in ("add", "mul"):
        inputs = tuple(sorted(inputs, key=str))
        return of("square", inputs[0]) if name == "mul" and inputs[0] == inputs[1] else SymbolicFormula(name, inputs)
    if len(inputs) != 1:
        return formula
    (part,) = inputs
    if name in EVEN and part.name in ("neg", "abs"):
        return _rewritten(SymbolicFormula(name, part.inputs))
    if name == "neg" and part.name == "neg":
        return part.inputs[0]
    if (name, part.name) in (("root", "square"), ("square", "root")):
        return _rewritten(SymbolicFormula("abs", part.inputs))
    if name in ("minmax", "zscore") and part.name in ("minmax", "zscore"):
        return _rewritten(SymbolicFormula(name, part.inputs))
    return part if name == "abs" and _nonnegative(part) else formula


def _nonnegative(formula: SymbolicFormula) -> bool:
    """Whether the value of a formula is known to be at least zero."""
    if formula.name in ("abs", "square", "root", "minmax"):
        return True
    if formula.name in ("add", "mul", "divide"):
        return all(map(_nonnegative, formula.inputs))
    return not formula.inputs and formula.name not in SIGNED


INFIX = {"add": ("+", 1), "sub": ("-", 1), "mul": ("*", 2)}  # (sign, precedence); that of calls is 3


def written(formula: SymbolicFormula, prefix: str = "") -> str:
    """The formula as Python code with the same order of evaluation and a prefix before each terminal."""
    return _written(formula, prefix)[0]


def _written(formula: SymbolicFormula, prefix: str) -> tuple[str, int]:
    """The text, and the precedence of its outermost operator."""
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
