"""Values that are known on the meta device: those that follow from integer inputs and constants alone.

Forwards read some of them, for example to leave out a mask that hides nothing. So every operator whose inputs are known
also runs on their values, on the CPU, and a reading gets the value that it would get in the network with weights. What
depends on a weight or on an input with fractions stays unknown, and reading it stays an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from autoprune.prune.passes.by_tensor import ByTensor, by_tensor

MOST_ENTRIES = 1 << 24  # larger tensors stay unknown
_READING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}  # operators that meta tensors refuse


def assumed(tensor: torch.Tensor) -> torch.Tensor | None:
    """The values that an input without values counts for: ones if it has integers or booleans, else None."""
    if tensor.is_floating_point() or tensor.is_complex():
        return None
    return torch.ones(tensor.shape, dtype=tensor.dtype, device="cpu")


class KnownValues(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Follows known values through passes on the meta device.

    Args:
        given: inputs with their values.
        assuming: whether unknown integers and booleans count as ones, which is enough where only shapes matter.
    """

    def __init__(
        self, given: Iterable[tuple[torch.Tensor, torch.Tensor | None]] = (), *, assuming: bool = False
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._assuming = assuming
        self._values: ByTensor[torch.Tensor] = by_tensor()
        self._note([(tensor, value.clone()) for tensor, value in given if value is not None])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = args, kwargs or {}
        if not self._follows(func, given):
            if func._schema.is_mutable and any(leaf in self._values for leaf in _tensors(given)):
                self._values.clear()  # a view of what is written may be among them
            return func(*given[0], **given[1])
        there, named = tree_map(self._value, given)
        if _READING.intersection(func.tags):
            values = func(*there, **named)  # for watches the reading is one of the network's operators
            output = tree_map(_without_values, values)
        else:
            output = func(*given[0], **given[1])
            if any(tensor.numel() > MOST_ENTRIES for tensor in _tensors(output)):
                return output
            with _disable_current_modes():
                values = func(*there, **named)
        self._note(zip(_tensors(output), _tensors(values), strict=True))
        return output

    def _follows(self, func: Any, given: Any) -> bool:
        """Whether an operator on the meta device gives what known values decide."""
        tensors = _tensors(given)
        on_meta = any(tensor.is_meta for tensor in tensors) or torch.device("meta") in tree_leaves(given)
        known = all(self._known(tensor) for tensor in tensors)
        certain = "empty" not in func._schema.name and torch.Tag.nondeterministic_seeded not in func.tags
        return on_meta and known and certain

    def _known(self, tensor: torch.Tensor) -> bool:
        small = tensor.numel() <= MOST_ENTRIES and not tensor.is_floating_point() and not tensor.is_complex()
        return tensor in self._values or not tensor.is_meta or (self._assuming and small)

    def _value(self, leaf: Any) -> Any:
        if isinstance(leaf, torch.device):
            return torch.device("cpu")
        if not isinstance(leaf, torch.Tensor) or not leaf.is_meta:
            return leaf
        return self._values[leaf] if leaf in self._values else assumed(leaf)

    def _note(self, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
        for tensor, value in pairs:
            if value.numel() <= MOST_ENTRIES:
                self._values[tensor] = value


def _tensors(tree: object) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _without_values(leaf: Any) -> Any:
    return torch.empty_like(leaf, device="meta") if isinstance(leaf, torch.Tensor) else leaf
