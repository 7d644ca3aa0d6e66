"""Unwraps networks from wrappers, and rejects networks that cannot be pruned.

Wrappers keep the network whole and add what pruning does not need: replicas, the exchange of gradients, compilation.
Scripted, exported, sharded and quantised networks have no float tensors of their own that could be sliced.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from autoprune.errors import UnsupportedModel

_WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}
_SPOKEN = {"OptimizedModule": "torch.compile"}
_OBSERVERS = ("FakeQuantizeBase", "ObserverBase")
_PREPARED = ("torch.ao.nn.qat", "torch.ao.nn.intrinsic.qat", "torch.nn.qat", "torch.nn.intrinsic.qat")
_QUANTISED = (  # packages whose modules have quantised weights
    *("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.ao.nn.sparse.quantized"),
    *("torch.nn.quantized", "torch.nn.intrinsic.quantized"),
    *("bitsandbytes.", "torchao.", "auto_gptq.", "gptqmodel.", "awq.", "hqq.", "quanto.", "optimum.quanto."),
)
QUANTISE_LATER = "Prune the float network first and {} the small one."


def unwrapped(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """The network inside DataParallel, DistributedDataParallel and torch.compile, and a note about each wrapper.

    Raises:
        UnsupportedModel: the object is no network of float tensors in Python; the message says what to do instead.
    """
    notes = []
    while (kind := type(model).__name__) in _WRAPPERS and type(model).__module__.startswith("torch."):
        attribute = _WRAPPERS[kind]
        model = getattr(model, attribute)
        notes.append(
            f"{_SPOKEN.get(kind, kind)} was removed: names of units and tensors have no {attribute!r} in front, and "
            "small networks are not wrapped. Wrap or compile them again where that is needed."
        )
    _check_kind(model)
    for name, module in model.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):  # scripted parts stay as they are
            _check_module(f"module {name!r}" if name else "the model", module)
    return model, tuple(notes)


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Runs compiled modules as plain ones inside, since compiling does not pay for one or two runs."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _check_kind(model: object) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        what = "a TorchScript module, whose code and sizes are compiled. " + QUANTISE_LATER.format("script or trace")
    elif isinstance(model, torch.export.ExportedProgram) or (
        isinstance(model, torch.fx.GraphModule) and "eval" in vars(model)
    ):
        what = "an exported program, whose sizes are written into its graph. " + QUANTISE_LATER.format("export")
    elif not isinstance(model, nn.Module):
        named = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise UnsupportedModel(
            f"expected a torch.nn.Module, got {named}. Pass the network itself, built and with its weights loaded."
        )
    elif type(model).__name__ == "FullyShardedDataParallel":
        what = (
            "a FullyShardedDataParallel, which keeps its parameters in shards. Gather its full state dict, load it "
            "into the network without the wrapper, and prune that one."
        )
    else:
        return
    raise UnsupportedModel(f"expected a network in Python with whole float tensors, got {what}")


def _check_module(where: str, module: nn.Module) -> None:
    """Raises UnsupportedModel for a module that is quantised, prepared for it, sharded, or not initialised yet."""
    kind = type(module)
    name = f"{kind.__module__}.{kind.__name__}"
    if name.startswith(_PREPARED) or any(base.__name__ in _OBSERVERS for base in kind.__mro__):
        raise UnsupportedModel(
            f"expected a float network, got one that was prepared for quantisation: {where} is a {name}. "
            + QUANTISE_LATER.format("prepare")
        )
    if name.startswith(_QUANTISED) or _is_packed(module):
        raise UnsupportedModel(
            f"expected a float network, got one with quantised weights: {where} is a {name}. "
            + QUANTISE_LATER.format("quantise")
        )
    for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        _check_tensor(f"{name!r} of {where}", tensor)


def _is_packed(module: nn.Module) -> bool:
    """Whether parameters have an integer type of their own, or a linear layer has more weights than entries."""
    for parameter in module.parameters(recurse=False):
        if type(parameter) is not nn.Parameter and not (parameter.is_floating_point() or parameter.is_complex()):
            return True
    if not isinstance(module, nn.Linear) or is_lazy(module.weight) or module.weight.is_floating_point():
        return False
    return module.weight.numel() != module.in_features * module.out_features


def _check_tensor(where: str, tensor: torch.Tensor) -> None:
    if is_lazy(tensor):
        raise UnsupportedModel(
            f"expected a network whose tensors have their shapes, {where} has none yet. Run the network once first."
        )
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        raise UnsupportedModel(
            f"expected a network of plain tensors, {where} is a {type(tensor).__name__}, which is sharded, quantised "
            "or otherwise kept in a form of its own. Pass the network with whole float tensors, and shard or quantise "
            "the small one."
        )
