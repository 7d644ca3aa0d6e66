"""Watches a forward pass operator by operator, with the running module and the line of the model's own code."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.prune.modules.borrowed import without_attention_fast_path
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.passes.site import CallSite

# functions treated as one operator, whatever a device splits them into: name -> arguments in order
WHOLE = {
    "scaled_dot_product_attention": (
        *("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa"),
    ),
    "pad_sequence": ("sequences", "batch_first", "padding_value", "padding_side"),
    "_pad_packed_sequence": ("data", "batch_sizes", "batch_first", "padding_value", "total_length"),
}
_RUN = (
    str(Path(__file__).parent / "examples.py"),
    "run",
)  # the frame that calls the model: outer frames are not the model's
ORIGINAL = "_autoprune_original"  # attribute of a converted tensor: the one that it was converted from
Execute = Callable[[Mapping[str, Any]], Any]
_OWN = (
    f"{Path(torch.__file__).parent}{os.sep}",
    f"{Path(__file__).parents[1]}{os.sep}",
    "<",
)  # files that are not the model's code


class OperatorWatch(ABC):
    """Passes every operator of a forward pass to `operator`; `visits` counts the calls at each site so far."""

    def __init__(self) -> None:
        self.visits: Counter[CallSite] = Counter()
        self.tensor_names: dict[int, str] = {}  # names of the model's tensors, by id
        self.modules = [""]
        self.inside = False  # inside a function that is treated as one operator

    @abstractmethod
    def operator(self, name: str, overload: Any, arguments: dict[str, Any], execute: Execute) -> Any:
        """Runs one operator by `execute(arguments)` and returns its output; `overload` is None for a function."""

    def function(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs a call of torch's Python interface and returns its output."""
        return function(*args, **kwargs)

    def entered(self, name: str, inputs: Any) -> None:
        """Called when a module starts to run, with its tree of arguments."""
        self.modules.append(name)

    def left(self, output: Any) -> None:
        """Called when the innermost running module has ended; the output is None if it raised."""
        self.modules.pop()

    @contextlib.contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Watches the model's forward inside; its hooks are removed afterwards."""
        self.tensor_names = {id(tensor): name for name, tensor in named_tensors(model).items()}
        with _running_module(model, self), without_fast_paths(model), FunctionCalls(self.called), _Operators(self):
            yield

    def check_complete(self) -> None:  # noqa: B027  # most watches have nothing to miss
        """Raises UnsupportedModel if a finished pass missed anything that this watch expects."""

    def visit(self, operator: str, arguments: Mapping[str, Any]) -> CallSite:
        """The site of an operator's call that is about to run, which is counted."""
        given = [argument for argument in arguments.values() if isinstance(argument, torch.Tensor)]
        bases = [_base(tensor) for tensor in given]
        parameters = tuple(self.tensor_names[id(tensor)] for tensor in bases if id(tensor) in self.tensor_names)
        site = CallSite(self.modules[-1], operator, line_of_model(), parameters)
        self.visits[site] += 1
        return site

    def dispatched(self, overload: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.inside:
            return overload(*args, **kwargs)
        arguments = named_arguments(overload, args, kwargs)
        name = overload._schema.name.removeprefix("aten::")
        return self.operator(name, overload, arguments, lambda given: overload(**given))

    def called(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = getattr(function, "__name__", "")
        if name not in WHOLE or self.inside:
            return self.function(function, args, kwargs)
        arguments = dict(zip(WHOLE[name], args, strict=False)) | kwargs
        self.inside = True
        try:
            return self.operator(name, None, arguments, lambda given: function(**given))
        finally:
            self.inside = False


class Route(OperatorWatch):
    """Records the operators of a run with their modules, and how many indices each data-dependent search returns."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[str, str, int]] = []

    def operator(self, name: str, overload: Any, arguments: dict[str, Any], execute: Execute) -> Any:
        self.visit(name, arguments)
        return self.noted(name, execute(arguments))

    def noted(self, name: str, output: Any) -> Any:
        """Records an operator that has run, and returns its output."""
        self.steps.append((self.modules[-1], name, len(output) if name == "nonzero" else 0))
        return output


def named_arguments(overload: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of an operator call by the names in its schema, including defaults."""
    schema = overload._schema
    defaults = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    return defaults | dict(zip((a.name for a in schema.arguments), args, strict=False)) | kwargs


def _base(tensor: torch.Tensor) -> torch.Tensor:
    """The weight itself for a transposed or converted one."""
    base = tensor if tensor._base is None else tensor._base
    original: torch.Tensor = getattr(base, ORIGINAL, base)
    return original if original is base else _base(original)


def line_of_model() -> str:
    """The innermost running line, as file:line, that belongs neither to torch nor to this package; else empty."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OWN):
        called = (frame.f_code.co_filename, frame.f_code.co_name) == _RUN
        frame = None if called else frame.f_back  # type: ignore[assignment]  # None past the outermost one
    return f"{_short(frame.f_code.co_filename)}:{frame.f_lineno}" if frame is not None else ""


def line_of_error(error: BaseException) -> str:
    """The innermost line of a traceback, as file:line, that belongs neither to torch nor to this package."""
    lines = [(f.f_code.co_filename, n) for f, n in traceback.walk_tb(error.__traceback__)]
    own = [(name, number) for name, number in lines if not name.startswith(_OWN)]
    return f"{_short(own[-1][0])}:{own[-1][1]}" if own else "an unknown line"


@functools.cache
def _short(filename: str) -> str:
    return "/".join(Path(filename).parts[-3:])


@contextlib.contextmanager
def _running_module(model: nn.Module, watch: OperatorWatch) -> Iterator[None]:
    """Tells the watch when a module starts and ends."""
    hooks = []

    def enter(name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        watch.entered(name, (args, kwargs))

    def leave(module: nn.Module, args: Any, output: Any) -> None:  # a hook's return value would replace the output
        watch.left(output)

    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):  # does not support these hooks
            continue
        entering = functools.partial(enter, name)
        hooks.append(module.register_forward_pre_hook(entering, prepend=True, with_kwargs=True))
        hooks.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def without_fast_paths(model: nn.Module) -> Iterator[None]:
    """Disables fused kernels for whole layers of a model, which would hide their operators.

    Those of oneDNN are for recurrent layers. In low precision other products are many times slower without it.
    """
    recurrent = torch._C._get_mkldnn_enabled()
    low = any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in model.parameters())
    kept = low and not any(isinstance(module, nn.RNNBase) for module in model.modules())
    torch._C._set_mkldnn_enabled(recurrent and kept)  # mkldnn.flags would set (and warn about) more than this
    try:
        with without_attention_fast_path(), torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        torch._C._set_mkldnn_enabled(recurrent)


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    def __init__(self, watch: OperatorWatch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():
            return self.watch.dispatched(func, args, kwargs or {})


class FunctionCalls(TorchFunctionMode):
    """Passes every call of torch's Python interface inside the context to `run(function, args, kwargs)`."""

    def __init__(self, run: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]) -> None:
        super().__init__()
        self.run = run

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})
