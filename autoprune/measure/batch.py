"""One batch of examples, as fitness functions get it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from autoprune.errors import DataError


class Batch(NamedTuple):
    """Inputs of the model, and what is known about them.

    `inputs` are the model's positional arguments, (b, ...) each; `target` is (b,) class labels or whatever the
    fitness expects, None where unlabelled; `dense` is the dense network's output for the inputs, filled in by the
    scorer so that a fitness can compare with it.
    """

    inputs: tuple[torch.Tensor, ...]
    target: torch.Tensor | None = None
    dense: Any = None  # a tensor, or whatever nest of tensors the network returns

    def placed(self, place: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """The same batch with every tensor moved by `place`, to another device for example."""
        target = None if self.target is None else place(self.target)
        return Batch(tuple(map(place, self.inputs)), target, tree_map_only(torch.Tensor, place, self.dense))

    @property
    def examples(self) -> int:
        """How many there are."""
        return len(self.inputs[0])


def rebatched(batches: Sequence[Batch], size: int) -> list[Batch]:
    """The same examples in the same order, `size` at once. DataError for batches that are not alike."""
    if not batches:
        return []
    whole = gathered(batches)
    return [whole.placed(_rows(start, start + size)) for start in range(0, whole.examples, size)]


def shuffled(batches: Sequence[Batch], seed: int = 0) -> list[Batch]:
    """The same examples in a random order, in batches as large as these; one order for a seed.

    DataError for batches that are not alike.
    """
    whole = gathered(batches)
    order = torch.randperm(whole.examples, generator=torch.Generator().manual_seed(seed))
    mixed = whole.placed(lambda x: x[order.to(x.device)])
    ends = itertools.accumulate((batch.examples for batch in batches), initial=0)
    return [mixed.placed(_rows(start, end)) for start, end in itertools.pairwise(ends)]


def divided(batches: Sequence[Batch], ends: Iterable[int]) -> list[Batch]:
    """The same examples in the same order, in batches about as large as these, of which one ends at each of the `ends`,
    counts of examples. What lies between two is divided evenly, as small rests would have poor statistics of their own.

    DataError for batches that are not alike.
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
    """All examples at once, without what the dense network says where it was not asked yet."""
    first = batches[0]
    shapes = {tuple(x.shape[1:] for x in batch.inputs) for batch in batches}
    if len(shapes) > 1 or any((b.target is None) != (first.target is None) for b in batches):
        raise DataError(
            "expected batches that can be joined, with inputs of one shape and all or none of them labelled, got "
            f"inputs of {sorted(shapes)}. Give batches of one shape, or leave out what joins them: the size in "
            "run.tune, a searcher that scores on parts of the selection set, finetune."
        )
    inputs = tuple(torch.cat([batch.inputs[i] for batch in batches]) for i in range(len(first.inputs)))
    target = _joined([batch.target for batch in batches])
    return Batch(inputs, target, _joined_outputs([batch.dense for batch in batches]))


def _joined(tensors: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(present) if len(present) == len(tensors) else None


def _joined_outputs(outputs: Sequence[Any]) -> Any:
    """The dense network's outputs of all examples, whatever nest of tensors they are; None where some are missing."""
    if any(output is None for output in outputs):
        return None
    leaves, specs = zip(*map(tree_flatten, outputs), strict=True)
    return tree_unflatten([_whole(parts) for parts in zip(*leaves, strict=True)], specs[0])


def _whole(parts: Sequence[Any]) -> Any:
    """Tensors of examples as one; what is no tensor, or has no dimension for them, is the same in all batches."""
    return torch.cat(list(parts)) if isinstance(parts[0], torch.Tensor) and parts[0].dim() else parts[0]


def _rows(start: int, end: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: x[start:end]
