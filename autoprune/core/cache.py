"""A cache that holds a limited number of bytes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def oldest(keys: Iterable[Key]) -> Key:
    """The first of the keys, which are in the order in which they were put."""
    return next(iter(keys))


class ByteCache(Generic[Key, Value]):
    """Values by key with at most `limit` bytes in all.

    `put` drops values above the limit. The cache is not informed of later changes of a value's size.

    Attributes:
        limit: the largest number of bytes.
        least: the number of values that stay even if they exceed the limit.
        held: the number of bytes now.
        first: chooses the key that is dropped next.
    """

    def __init__(self, limit: int, least: int = 0, first: Callable[[Iterable[Key]], Key] = oldest) -> None:
        self.limit, self.least, self.first = limit, least, first
        self.held = 0
        self._values: dict[Key, Value] = {}
        self._sizes: dict[Key, int] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[Key]:
        return iter(self._values)

    def __getitem__(self, key: Key) -> Value:
        return self._values[key]

    def get(self, key: Key, default: Value) -> Value:
        return self._values.get(key, default)

    def size(self, key: Key) -> int:
        """The number of bytes of a value; 0 if the cache does not have it."""
        return self._sizes.get(key, 0)

    def put(self, key: Key, value: Value, size: int) -> list[Key]:
        """Adds a value as the newest one, in place of an earlier one of its key. Returns the keys that are dropped."""
        if key in self:
            self.pop(key)
        self._values[key], self._sizes[key] = value, size
        self.held += size
        dropped = []
        while self.held > self.limit and len(self._values) > self.least:
            dropped.append(self.first(self._values))
            self.pop(dropped[-1])
        return dropped

    def pop(self, key: Key) -> Value:
        """Removes a value and returns it. KeyError if the cache does not have it."""
        value = self._values.pop(key)
        self.held -= self._sizes.pop(key)
        return value
