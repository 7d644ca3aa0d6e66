"""Removes whole blocks in an order that is known before the first of them is removed.

"loss": Kim et al., Shortened LLaMA: A Simple Depth Pruning for Large Language Models, 2024,
https://arxiv.org/abs/2402.02834, section 3: the loss of the network without each block alone. "influence": Men et al.,
ShortGPT: Layers in Large Language Models are More Redundant Than You Expect, 2024, https://arxiv.org/abs/2403.03853,
section 3.2: 1 minus the cosine of a block's input and output. "angle": Gromov et al., The Unreasonable Ineffectiveness
of the Deeper Layers, ICLR 2025, https://arxiv.org/abs/2403.17887, section 3.2: for every number of blocks the
consecutive ones around which the hidden state turns least. Departures: networks of all depths are measured; nothing is
trained afterwards, while weights are compensated unless the job says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import numpy as np

from autoprune.core.options import at_least
from autoprune.core.problem import BlockDistances, Problem
from autoprune.core.space import Levels
from autoprune.core.unit import blocks_of
from autoprune.errors import ConfigError
from autoprune.searchers.rules.stepwise import StepwiseSearch

BlockOrder = Literal["loss", "influence", "angle"]


class DepthSearch(StepwiseSearch):
    """Proposes dense, the networks without one block if these give the order, and those of all depths; then it ends.

    A block consists of the branches whose names agree up to their last number; other units stay dense. In a space
    without branches every unit counts as a block, which is removed by its smallest level. Networks outside the bounds
    are left out, and a block that cannot be removed alone within them comes last; if none is left, the smallest network
    of the space is proposed.

    Args:
        problem: the problem to search.
        seed: unused; the search is deterministic.
        order: "loss", "influence" or "angle".
        first: the number of blocks at the beginning that stay.
        last: the number of blocks at the end that stay.

    Raises:
        ConfigError: an option is out of range, or the problem does not know the distances between hidden states that
            the order needs.
    """

    def __init__(
        self, problem: Problem, *, seed: int = 0, order: BlockOrder = "loss", first: int = 0, last: int = 0
    ) -> None:
        if order not in get_args(BlockOrder):
            raise ConfigError(f"expected order to be one of {list(get_args(BlockOrder))}, got {order!r}")
        super().__init__(problem)
        self._order: BlockOrder = order
        blocks = _blocks(problem)
        first, last = at_least("first", first, 0), at_least("last", last, 0)
        self._offset, self._blocks = first, blocks[first : len(blocks) - last]

    def _steps(self) -> Iterator[list[Levels]]:
        yield [self._without(())]
        yield from self._depths()
        if not self._proposals.losses:
            yield [self._problem.space.smallest.levels]

    def _depths(self) -> Iterator[list[Levels]]:
        """The networks that give the order, then those of all depths."""
        count = len(self._blocks)
        if self._order == "angle":
            angles = self._distances().angles
            yield [self._without(self._least_turned(angles, n)) for n in range(1, count + 1)]
            return
        if self._order == "loss":
            yield [self._without([block]) for block in range(count)]
            scores = [self._loss(self._without([block])) for block in range(count)]
        else:
            scores = self._distances().influence[self._offset : self._offset + count].tolist()
        ranked = sorted(range(count), key=scores.__getitem__)
        yield [self._without(ranked[:n]) for n in range(1, count + 1)]

    def _least_turned(self, angles: np.ndarray, n: int) -> range:
        """The n consecutive blocks with the least angle between what enters the first and what leaves the last."""
        turned = [angles[self._offset + s, self._offset + s + n] for s in range(len(self._blocks) - n + 1)]
        start = int(np.argmin(turned))
        return range(start, start + n)

    def _without(self, blocks: Iterable[int]) -> Levels:
        levels = np.zeros(len(self._problem.space.units), dtype=np.int64)
        for block in blocks:
            levels[self._blocks[block]] = self._problem.space.sizes[self._blocks[block]] - 1
        return tuple(levels.tolist())

    def _distances(self) -> BlockDistances:
        if self._problem.block_distances is None:
            raise ConfigError(
                f"expected a problem that measures distances between hidden states for the order {self._order!r}, got "
                "one that does not. Order blocks by `loss`."
            )
        return self._problem.block_distances()


def _blocks(problem: Problem) -> list[list[int]]:
    """The positions of each block's branches, from the first block to the last."""
    names = [unit for unit, counts in zip(problem.space.units, problem.space.levels, strict=True) if counts == (1, 0)]
    place = {unit: position for position, unit in enumerate(problem.space.units)}
    if not names:
        return [[position] for position in place.values()]
    return [[place[name] for name in own] for own in blocks_of(names).values()]
