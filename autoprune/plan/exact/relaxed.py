"""A cost that is nowhere above a given one and couples units along a forest only, so that it can be eliminated.

Interactions along the heaviest forest of units stay as they are. Any other table T over units a, b, ... is replaced by
f(a) + g(b) + ..., where g(b) is what b adds to T at reference options of the others, and f(a) the least remainder over
all b, ...: a reparameterisation as in Werner, A linear programming approach to max-sum problem, IEEE TPAMI 29, 2007,
https://doi.org/10.1109/TPAMI.2007.1036. For a product of two numbers and the widest or the narrowest options as
reference these are the two lower envelopes of McCormick (Mathematical Programming 10, 1976); with a plan as reference a
pair loses nothing at that plan. The least damage within a budget on such a cost is at most that on the true one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.plan.exact.terms import Scope, Terms


def relaxed(terms: Terms, reference: Sequence[int], *, forest: bool = True) -> Terms:
    """Terms nowhere above the given ones, coupled along a forest, or uncoupled without `forest`.

    Tables of at most two units are equal to the given ones at the (u,) reference options.
    """
    pairs = _forest(terms) if forest else set()
    tables: dict[Scope, np.ndarray] = {}
    for scope, table in terms.tables.items():
        parts = {scope: table} if len(scope) == 1 or scope in pairs else _separated(scope, table, reference)
        for part, values in parts.items():
            tables[part] = tables.get(part, 0.0) + values
    return Terms(terms.sizes, tables, terms.constant)


def _separated(scope: Scope, table: np.ndarray, reference: Sequence[int]) -> dict[Scope, np.ndarray]:
    """One (l,) array for each unit of a scope, whose sums are nowhere above the table."""
    parts: dict[Scope, np.ndarray] = {}
    rest = table
    for axis, unit in list(enumerate(scope))[1:]:
        line = table[tuple(slice(None) if a == axis else reference[u] for a, u in enumerate(scope))]
        parts[unit,] = line - line[reference[unit]]
        rest = rest - parts[unit,].reshape([-1 if a == axis else 1 for a in range(len(scope))])
    parts[scope[0],] = rest.min(axis=tuple(range(1, len(scope))))
    return parts


def _forest(terms: Terms) -> set[Scope]:
    """The pairs of units of a spanning forest with the greatest ranges (Kruskal 1956)."""
    root = list(range(len(terms.sizes)))

    def find(unit: int) -> int:
        while root[unit] != unit:
            unit = root[unit]
        return unit

    chosen: set[Scope] = set()
    pairs = [scope for scope in terms.tables if len(scope) == 2]
    for a, b in sorted(pairs, key=lambda scope: (-np.ptp(terms.tables[scope]), scope)):
        if find(a) != find(b):
            root[find(a)] = find(b)
            chosen.add((a, b))
    return chosen
