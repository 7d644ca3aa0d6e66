"""Batches of examples, as fitness functions receive them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from autoprune.errors import DataError


class Batch(NamedTuple):
    """A batch of examples: inputs, targets, the dense network's outputs and the groups of the examples.

    Attributes:
        inputs: the model's positional arguments, (b, ...) each.
        target: (b,) class labels, or any other targets that the fitness expects; None if unlabelled.
        dense: the dense network's output for the inputs. The scorer fills it in, so that a fitness can compare with it.
        group: (b,) the group of each example, a whole number from 0; None if the data have no groups.
    """

    inputs: tuple[torch.Tensor, ...]
    target: torch.Tensor | None = None
    dense: Any = None  # a tensor, or whatever nest of tensors the network returns
    group: torch.Tensor | None = None

    def placed(self, place: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """Returns the batch with `place` applied to every tensor, for example to move it to another device."""
        target, group = (None if x is None else place(x) for x in (self.target, self.group))
        return Batch(tuple(map(place, self.inputs)), target, tree_map_only(torch.Tensor, place, self.dense), group)

    @property
    def examples(self) -> int:
        """The number of examples."""
        return len(self.inputs[0])


def rebatched(batches: Sequence[Batch], size: int) -> list[Batch]:
    """Returns the same examples in the same order in batches of `size`; DataError if they cannot be joined."""
    if not batches:
        return []
    whole = gathered(batches)
    return [whole.placed(_rows(start, start + size)) for start in range(0, whole.examples, size)]


def shuffled(batches: Sequence[Batch], seed: int = 0) -> list[Batch]:
    """Returns the same examples in the random order of `seed`, in batches of the same sizes.

    Raises:
        DataError: the batches cannot be joined.
    """
    whole = gathered(batches)
    order = torch.randperm(whole.examples, generator=torch.Generator().manual_seed(seed))
    mixed = whole.placed(lambda x: x[order.to(x.device)])
    ends = itertools.accumulate((batch.examples for batch in batches), initial=0)
    return [mixed.placed(_rows(start, end)) for start, end in itertools.pairwise(ends)]


def divided(batches: Sequence[Batch], ends: Iterable[int]) -> list[Batch]:
    """Returns the same examples in the same order, in batches of about the same size that end at the given counts.

    Examples between two ends are divided evenly, as statistics of a small remainder would be poor.

    Args:
        batches: the batches to divide.
        ends: numbers of examples after which a batch ends.

    Raises:
        DataError: the batches cannot be joined.
    """
    whole = gathered(batches)
    size = max(batch.examples for batch in batches)
    parts: list[Batch] = []
    for start, end in itertools.pairwise(sorted({0, whole.examples, *ends})):
        count = max(1, round((end - start) / size))
        edges = [start + (end - start) * part // count for part in range(count + 1)]
        parts += [whole.placed(_rows(*pair)) for pair in itertools.pairwise(edges)]
    return parts


def gathered(batches: Sequence[Batch]) -> Batch:
    """Joins all batches into one; `dense` is None unless all batches have it. DataError if they cannot be joined."""
    first = batches[0]
    shapes = {tuple(x.shape[1:] for x in batch.inputs) for batch in batches}
    if len(shapes) > 1 or any((b.target is None) != (first.target is None) for b in batches):
        raise DataError(
            "expected batches that can be joined, with inputs of one shape and all or none of them labelled, got "
            f"inputs of {sorted(shapes)}. Give batches of one shape, or leave out the settings that join them: the "
            "batch size in run.tune, a searcher that scores on parts of the selection set, finetune."
        )
    inputs = tuple(torch.cat([batch.inputs[i] for batch in batches]) for i in range(len(first.inputs)))
    target, group = (_joined([getattr(batch, name) for batch in batches]) for name in ("target", "group"))
    return Batch(inputs, target, joined_outputs([batch.dense for batch in batches]), group)


def _joined(tensors: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(present) if len(present) == len(tensors) else None


def joined_outputs(outputs: Sequence[Any]) -> Any:
    """The dense network's outputs for all examples, in any nesting of containers; None if some are missing."""
    if any(output is None for output in outputs):
        return None
    leaves, specs = zip(*map(tree_flatten, outputs), strict=True)
    return tree_unflatten([_whole(parts) for parts in zip(*leaves, strict=True)], specs[0])


def _whole(parts: Sequence[Any]) -> Any:
    """Tensors joined along the examples; other values and scalar tensors are the same in all batches."""
    return torch.cat(list(parts)) if isinstance(parts[0], torch.Tensor) and parts[0].dim() else parts[0]


def _rows(start: int, end: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: x[start:end]
