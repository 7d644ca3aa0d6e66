"""Batches that user code may write to: every network meets the same bits, whatever was measured before it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence

import torch
from torch.utils._pytree import tree_map

from autoprune.measure.batch import Batch
from autoprune.prune.passes.containers import tensors_of

Named = dict[str, torch.Tensor]


class Intact:
    """Lends batches and puts them back as they were, from copies that are made when a batch is lent first.

    Tensors are lent themselves, as a batch is known by them (measure.following), and compared with their copies
    afterwards: writes through `.data` or a numpy view are found too. Containers are lent as copies. `remark` says what
    was changed, empty while nothing was.
    """

    def __init__(self) -> None:
        self.remark = ""
        self._copies: dict[int, tuple[Batch, Named]] = {}  # by identity, with the batch so that it is not reused

    @contextlib.contextmanager
    def lending(self, batches: Sequence[Batch]) -> Iterator[list[Batch]]:
        """The batches for a user's code to read, or write, inside."""
        for batch in batches:
            if id(batch) not in self._copies:
                self._copies[id(batch)] = batch, {name: x.clone() for name, x in _named(batch).items()}
        try:
            yield [_lent(batch) for batch in batches]
        finally:
            changed = dict.fromkeys(name for batch in batches for name in self._put_back(batch))
            if changed:
                self.remark = (
                    f"the fitness changes {', '.join(changed)} of its batches in place; the changes are undone after "
                    "each network, so that all are measured on the same data. Work on a copy: x.clone()"
                )

    @torch.no_grad()
    def _put_back(self, batch: Batch) -> list[str]:
        """Undoes what was done to the tensors of a batch, and names those it was done to."""
        changed = []
        for name, tensor in _named(batch).items():
            was = self._copies[id(batch)][1][name]
            if tensor.requires_grad:
                tensor.requires_grad_(False)
                tensor.grad = None
            if tensor.shape != was.shape or tensor.dtype != was.dtype:
                tensor.data = was.clone()  # it was given other memory
            elif not same_bits(tensor, was):
                tensor.copy_(was)
            else:
                continue
            changed.append(name)
        return changed


def same_bits(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Whether two tensors of one shape and dtype are equal; NaN is equal to NaN, and 0 is not to -0."""
    if x.is_complex():
        x, y = torch.view_as_real(x), torch.view_as_real(y)
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(x.element_size())
    return torch.equal(x, y) if whole is None or x.dtype is torch.bool else torch.equal(x.view(whole), y.view(whole))


def _named(batch: Batch) -> Named:
    """Every tensor of a batch under a name for people."""
    inputs = {f"input {index}": x for index, x in enumerate(batch.inputs)}
    target = {} if batch.target is None else {"the target": batch.target}
    dense = tensors_of(batch.dense)
    outputs = {
        f"the dense output {index}" if len(dense) > 1 else "the dense output": x for index, x in enumerate(dense)
    }
    return {**inputs, **target, **outputs}


def _lent(batch: Batch) -> Batch:
    """A batch whose dense output is in containers of its own, with the same tensors in it."""
    if batch.dense is None or isinstance(batch.dense, torch.Tensor):
        return batch
    return batch._replace(dense=tree_map(_own, batch.dense))


def _own(leaf: object) -> object:
    return leaf if isinstance(leaf, torch.Tensor) else copy.deepcopy(leaf)
