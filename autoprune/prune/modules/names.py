"""Makes shared names unique."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def numbered(names: Sequence[str]) -> list[str]:
    """The names, with a number appended to those that occur more than once."""
    count, seen = Counter(names), Counter[str]()
    result = []
    for name in names:
        seen[name] += 1
        result.append(f"{name}/{seen[name]}" if count[name] > 1 else name)
    return result
