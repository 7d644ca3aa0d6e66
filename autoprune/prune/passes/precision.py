"""Computes a pass in higher precision than that of the network's tensors, without a copy of the network.

Every operator gets its low-precision arguments converted, one operator at a time, and returns results of high
precision. So what a forward makes in low precision of its own accord, such as a mask, fits the rest. Operators that
only select or rearrange keep their precision, so that watches still know a weight that was transposed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from autoprune.prune.passes.watch import ORIGINAL, WHOLE

LOWER = {
    torch.float32: (torch.float16, torch.bfloat16),
    torch.float64: (torch.float16, torch.bfloat16, torch.float32),
}  # the dtypes of lower precision
# functions that check the dtypes of their arguments before they call any operator
CHECKING = frozenset(
    (
        *(f"conv{form}{dims}d" for form in ("", "_transpose") for dims in (1, 2, 3)),
        *("prelu", "lstm", "gru", "rnn_tanh", "rnn_relu", "embedding_bag", "bilinear", *WHOLE),
    )
)
CONVERTED_ENTRIES = 1 << 22  # entries of a matrix that are converted at once
_EXACT = ("aten::embedding", "aten::index", "aten::index_select", "aten::index_fill", "aten::clone", "aten::detach")


def is_lower(network: nn.Module, dtype: torch.dtype) -> bool:
    """Whether a network has parameters or buffers of lower precision than a dtype."""
    return any(tensor.dtype in LOWER[dtype] for tensor in (*network.parameters(), *network.buffers()))


@contextlib.contextmanager
def computing_in(dtype: torch.dtype, network: nn.Module) -> Iterator[None]:
    """Computes passes of a network at least in the precision of a dtype inside."""
    if not is_lower(network, dtype):
        yield
        return
    with _Functions(dtype), _Operators(dtype):
        yield


class _Functions(TorchFunctionMode):
    """Converts the arguments of functions in CHECKING."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = args, kwargs or {}
        if getattr(func, "__name__", "") in CHECKING:
            with _disable_current_modes():
                given = _converted(given, self.dtype)
        return func(*given[0], **given[1])


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtype = dtype

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.is_view or func._schema.name in _EXACT:
            return func(*args, **kwargs)
        if func._schema.is_mutable:
            return self._writing(func, args, kwargs)
        if func in _PRODUCTS and args[-1].dtype in LOWER[self.dtype] and args[-1].numel() > CONVERTED_ENTRIES:
            return _product(func, args, kwargs, self.dtype)
        there, named = _converted((args, kwargs), self.dtype)
        return func(*there, **named)

    def _writing(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Arguments get the precision of the tensor that the operator writes to, which keeps its own."""
        names = [argument.name for argument in func._schema.arguments]
        given = dict(zip(names, args, strict=False)) | dict(kwargs)
        written = {a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write}
        target = next((x for name in names if name in written for x in tree_leaves(given.get(name))), None)
        if not isinstance(target, torch.Tensor) or not target.is_floating_point():
            return func(*args, **kwargs)
        return func(**{name: value if name in written else _cast(value, target.dtype) for name, value in given.items()})


def _converted(tree: Any, dtype: torch.dtype) -> Any:
    def convert(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor) and leaf.dtype in LOWER[dtype]:
            high = leaf.to(dtype)
            setattr(high, ORIGINAL, leaf)
            return high
        return dtype if isinstance(leaf, torch.dtype) and leaf in LOWER[dtype] else leaf

    return tree_map(convert, tree)


def _cast(tree: Any, dtype: torch.dtype) -> Any:
    return tree_map(lambda x: x.to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x, tree)


_PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)


def _product(func: Any, args: Any, kwargs: Mapping[str, Any], dtype: torch.dtype) -> torch.Tensor:
    """A product with a large matrix, of which some columns at a time are converted."""
    *others, matrix = args
    *biases, rows = _converted(others, dtype)
    step = max(1, CONVERTED_ENTRIES // len(matrix))
    output: torch.Tensor = rows.new_empty(len(rows), matrix.shape[1])
    for start in range(0, matrix.shape[1], step):
        columns = slice(start, start + step)
        own = [bias if bias.shape[-1] == 1 else bias[..., columns] for bias in biases]
        output[:, columns] = func(*own, rows, matrix[:, columns].to(dtype), **kwargs)
    return output
