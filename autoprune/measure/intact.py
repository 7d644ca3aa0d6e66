"""Protects batches from writes of user code, so that every network is measured on the same bits."""

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
    """Lends batches and restores them afterwards, from copies that are made when a batch is first lent.

    The tensors themselves are lent, as they identify a batch (measure.following), and compared with their copies
    afterwards, so writes through `.data` or a numpy view are found too. Containers are lent as copies. `remark` names
    the tensors that were changed; it is empty if there are none.
    """

    def __init__(self) -> None:
        self.remark = ""
        self._copies: dict[int, tuple[Batch, Named]] = {}  # by id(batch); holding the batch keeps its id taken

    @contextlib.contextmanager
    def lending(self, batches: Sequence[Batch]) -> Iterator[list[Batch]]:
        """Lends the batches to a user's code inside the context, and undoes its writes afterwards."""
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
        """Undoes all writes to the tensors of a batch and returns the names of the changed ones."""
        changed = []
        for name, tensor in _named(batch).items():
            was = self._copies[id(batch)][1][name]
            if tensor.requires_grad:
                tensor.requires_grad_(False)
                tensor.grad = None
            if tensor.shape != was.shape or tensor.dtype != was.dtype:
                tensor.data = was.clone()  # its storage was replaced
            elif not same_bits(tensor, was):
                tensor.copy_(was)
            else:
                continue
            changed.append(name)
        return changed


def same_bits(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Whether two tensors of one shape and dtype have equal bits: NaN equals NaN, and 0 differs from -0."""
    if x.is_complex():
        x, y = torch.view_as_real(x), torch.view_as_real(y)
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(x.element_size())
    return torch.equal(x, y) if whole is None or x.dtype is torch.bool else torch.equal(x.view(whole), y.view(whole))


def _named(batch: Batch) -> Named:
    """Every tensor of a batch, by a name for messages."""
    inputs = {f"input {index}": x for index, x in enumerate(batch.inputs)}
    target = {} if batch.target is None else {"the target": batch.target}
    group = {} if batch.group is None else {"the group": batch.group}
    dense = tensors_of(batch.dense)
    outputs = {
        f"the dense output {index}" if len(dense) > 1 else "the dense output": x for index, x in enumerate(dense)
    }
    return {**inputs, **target, **group, **outputs}


def _lent(batch: Batch) -> Batch:
    """A batch with the same tensors whose dense output is in new containers."""
    if batch.dense is None or isinstance(batch.dense, torch.Tensor):
        return batch
    return batch._replace(dense=tree_map(_own, batch.dense))


def _own(leaf: object) -> object:
    return leaf if isinstance(leaf, torch.Tensor) else copy.deepcopy(leaf)
