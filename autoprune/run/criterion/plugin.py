"""Writes a found criterion as a plug-in file, with its formula as code and scores next to the built-in criteria."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autoprune.run.criterion.formula import SymbolicFormula, written

IMPORTED = frozenset(("divide", "square", "root", "log", "minmax", "zscore"))  # operators for which Python has no sign


@dataclass(frozen=True)
class CriterionScore:
    """The means over networks ordered by a criterion: the loss of the search, and all values on the report set."""

    name: str
    selected: float
    reported: Mapping[str, float]


@dataclass(frozen=True)
class FoundCriterion:
    """The best formula of a search.

    Attributes:
        formula: the formula.
        scores: its score, then those of built-in criteria.
        measured: the number of measured formulas.
        kept: the shares of all positions that the networks keep.
        guide: the name of the loss.
    """

    formula: SymbolicFormula
    measured: int
    guide: str
    kept: tuple[float, ...]
    scores: tuple[CriterionScore, ...]


def source_of(found: FoundCriterion, file: str, seed: int) -> str:
    """The code of the plug-in: scores next to built-in criteria, the formula, and the function that jobs name."""
    names = sorted({"summed", *(IMPORTED & _operators(found.formula))})
    wanted = ("moments", "gradients") if "gradient" in found.formula.terminals else ("moments",)
    needs = ", ".join(f'"{name}"' for name in wanted)
    kept = ", ".join(f"{100 * share:.0f} %" for share in found.kept)
    return f'''"""A criterion found by genetic programming over formulas: {found.formula}

After Pruner-Zero (Dong et al. 2024, https://arxiv.org/abs/2406.02924); {found.measured} formulas measured, seed {seed}.
Means over networks that keep {kept} of all positions. It was chosen by the {found.guide} on the selection
set; the other columns are of the report set:

{table_of(found)}

Use it with `criterion: {{call: "{file}:scores"}}`.
"""

from autoprune import needs
from autoprune.prune.criteria.symbolic import {", ".join(names)}


def formula(t):
    """The value for each weight (outputs, positions, columns) of a consumer; t is a symbolic.FormulaTerms."""
    return {written(found.formula, "t.")}


@needs({needs})
def scores(weights, statistics):
    """(n,) scores of a unit's positions; higher ones stay longer."""
    return summed(formula, weights, statistics)
'''


def table_of(found: FoundCriterion) -> str:
    """The scores as aligned text, the found criterion first."""
    names = list(found.scores[0].reported)
    lines = [("criterion", f"{found.guide} (selection)", *names)]
    lines += [
        (row.name, f"{row.selected:.4f}", *(f"{row.reported[name]:.4f}" for name in names)) for row in found.scores
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rows = ("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(row.rstrip() for row in rows)


def _operators(formula: SymbolicFormula) -> set[str]:
    return {formula.name}.union(*(_operators(part) for part in formula.inputs))
