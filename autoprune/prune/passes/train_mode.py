"""Train mode as different code only: without randomness, and without statistics of the current batch.

In train mode a forward may run further heads, return losses, or skip blocks. To compare two networks in it, their
passes must be deterministic and must not need large batches. So modules whose train mode only adds randomness or other
statistics stay in eval mode, functional dropout does nothing, and all other random operators return a constant.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.errors import UnsupportedModel
from autoprune.prune.modules.borrowed import modes_put_back, seeded
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.passes.watch import named_arguments

_QUIET = (_DropoutNd, _NormBase, nn.RReLU, nn.RNNBase)  # and their subclasses
_QUIET_NAMES = ("DropPath", "StochasticDepth")  # libraries' names for modules that drop whole branches at random
_DROPOUTS = frozenset(
    (
        *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout"),
        *("feature_alpha_dropout", "native_dropout", "rrelu"),
    )
)


@contextlib.contextmanager
def copy_in_train_mode(model: nn.Module) -> Iterator[nn.Module]:
    """A copy of the model, with its own buffers, that runs the deterministic train mode inside."""
    copy = copy_model(model, share=True)
    with deterministic_training(copy):
        yield copy


@contextlib.contextmanager
def deterministic_training(model: nn.Module) -> Iterator[None]:
    """Puts the model itself into deterministic train mode inside, and restores its modes."""
    with modes_put_back(model), seeded(0), _Constants(), _NoDropout():  # type: ignore[no-untyped-call]  # torch leaves it untyped
        try:
            model.train()
        except Exception as error:  # some models refuse train mode
            raise UnsupportedModel(f"{type(model).__name__}.train() raises {type(error).__name__}: {error}") from error
        for module in model.modules():
            if isinstance(module, _QUIET) or type(module).__name__.endswith(_QUIET_NAMES):
                module.training = False
        yield


class _NoDropout(TorchFunctionMode):
    """Makes functional dropout, including that of attention, the identity."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), dict(kwargs or {})
        if name.rstrip("_") in _DROPOUTS and isinstance(args[0] if args else kwargs.get("input"), torch.Tensor):
            return _without_dropout(name, func, args, kwargs)
        if name == "scaled_dot_product_attention":
            args = (*args[:4], 0.0, *args[5:]) if len(args) > 4 else args
            kwargs = {name: value for name, value in kwargs.items() if name != "dropout_p"}
        if name == "multi_head_attention_forward":  # functions called inside are not intercepted
            kwargs["training"] = False
        return func(*args, **kwargs)


def _without_dropout(name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a dropout function as in eval mode, in whatever way the mode is passed."""
    place = {"training": 3 if "rrelu" in name else 2, "train": 2}
    for flag, index in place.items():
        if flag in kwargs:
            return func(*args, **{**kwargs, flag: False})
        if len(args) > index and isinstance(args[index], bool):
            return func(*args[:index], False, *args[index + 1 :], **kwargs)
    return func(*args, **{**kwargs, "training": False})


class _Constants(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Makes random operators return one likely number, with which nothing is dropped."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags and isinstance(output, torch.Tensor):
            name = func._schema.name.removeprefix("aten::").rstrip("_").removesuffix("_like")
            fill = _FILLS.get(name)
            return output if fill is None else fill(output, named_arguments(func, args, kwargs or {}))
        return output


Arguments = Mapping[str, Any]
Fill = Callable[[torch.Tensor, Arguments], torch.Tensor]


def _all(value: float) -> Fill:
    return lambda output, given: output.fill_(value)


def _mean(output: torch.Tensor, given: Arguments) -> torch.Tensor:
    mean = given.get("mean", 0.0)
    return output.copy_(mean) if isinstance(mean, torch.Tensor) else output.fill_(mean)


def _integer(output: torch.Tensor, given: Arguments) -> torch.Tensor:
    return output.fill_(((given.get("low") or 0) + given["high"]) // 2)


def _chosen(output: torch.Tensor, given: Arguments) -> torch.Tensor:
    """For each row the required number of categories, the first ones with a positive probability."""
    order = (given["self"] > 0).to(torch.uint8).sort(stable=True, dim=-1, descending=True).indices
    places = torch.arange(output.shape[-1], device=output.device) % order.shape[-1]
    return output.copy_(order[..., places])


_FILLS: Mapping[str, Fill] = {
    **dict.fromkeys(("rand", "exponential"), _all(0.5)),
    **dict.fromkeys(("bernoulli", "geometric", "log_normal"), _all(1.0)),
    **dict.fromkeys(("randn", "cauchy", "random"), _all(0.0)),
    **dict.fromkeys(("poisson", "_standard_gamma"), lambda output, given: output.copy_(given["self"])),
    "normal": _mean,
    "binomial": lambda output, given: output.copy_(given["count"]),
    "uniform": lambda output, given: output.fill_((given["from"] + given["to"]) / 2),
    "randint": _integer,
    "randperm": lambda output, given: output.copy_(torch.arange(len(output), device=output.device)),
    "multinomial": _chosen,
}
