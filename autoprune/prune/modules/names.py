"""Names that several things share, made unique."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def numbered(names: Sequence[str]) -> list[str]:
    """The names, those that several share with a number behind."""
    count, seen = Counter(names), Counter[str]()
    result = []
    for name in names:
        seen[name] += 1
        result.append(f"{name}/{seen[name]}" if count[name] > 1 else name)
    return result
