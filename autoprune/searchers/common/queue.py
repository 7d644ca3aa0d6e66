"""A queue that hands out each item once and knows which of them lack an answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class OnceQueue(Generic[Item]):
    """Items that wait, are pending (handed out without an answer), or were answered.

    >>> queue.add("a")     # True: new
    >>> queue.take(1)      # ["a"], pending now
    >>> queue.answer("a")  # True: the first answer
    >>> queue.take(1)      # []; the queue has ended, and takes nothing more
    """

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._known: set[Item] = set()  # queued, handed out or answered
        self._answered: set[Item] = set()
        self._pending: set[Item] = set()
        self._ended = False  # the queue was empty while nothing was pending

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item, *, first: bool = False) -> bool:
        """Queues an item, with `first` at the front; False if it is known already, or the queue has ended."""
        if item in self._known or self._ended:
            return False
        self._known.add(item)
        if first:
            self._items.appendleft(item)
        else:
            self._items.append(item)
        return True

    def take(self, n: int) -> list[Item]:
        """Up to n items without an answer, now pending; an empty queue with nothing pending ends."""
        taken: list[Item] = []
        while self._items and len(taken) < n:
            item = self._items.popleft()
            if item not in self._answered:
                self._pending.add(item)
                taken.append(item)
        self._ended |= n > 0 and not self._pending
        return taken

    def answer(self, item: Item) -> bool:
        """Takes in an answer, also to an item that was never queued; False if there was one before."""
        self._pending.discard(item)
        if item in self._answered:
            return False
        self._answered.add(item)
        self._known.add(item)
        return True

    def knows(self, item: Item) -> bool:
        """Whether an item was queued, handed out or answered before."""
        return item in self._known

    def awaits(self, item: Item) -> bool:
        """Whether an item was handed out and lacks an answer."""
        return item in self._pending

    @property
    def waiting(self) -> bool:
        """Whether any item that was handed out lacks an answer."""
        return bool(self._pending)
