"""What people hand over instead of the network itself: wrappers are taken off, what cannot be pruned is refused.

Wrappers keep the network whole and add what pruning has no use for: replicas, the exchange of gradients, compilation.
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
_QUANTISED = (  # packages that have modules with quantised weights and hardly any others
    *("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.ao.nn.sparse.quantized"),
    *("torch.nn.quantized", "torch.nn.intrinsic.quantized"),
    *("bitsandbytes.", "torchao.", "auto_gptq.", "gptqmodel.", "awq.", "hqq.", "quanto.", "optimum.quanto."),
)
FIRST = "Prune the float network first and {} the small one."


def unwrapped(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """The network inside of DataParallel, DistributedDataParallel and torch.compile, and a note about each of them.

    Raises UnsupportedModel, with what to do instead, for what is no network of float tensors in Python.
    """
    notes = []
    while (kind := type(model).__name__) in _WRAPPERS and type(model).__module__.startswith("torch."):
        attribute = _WRAPPERS[kind]
        model = getattr(model, attribute)
        notes.append(
            f"{_SPOKEN.get(kind, kind)} was taken off: names of units and tensors have no {attribute!r} in front, and "
            "small networks are not wrapped. Wrap or compile them again where that is needed."
        )
    _check_kind(model)
    for name, module in model.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):  # a part that is scripted stays as it is
            _check_module(f"module {name!r}" if name else "the model", module)
    return model, tuple(notes)


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Compiled modules run as they were written inside: nothing is compiled for networks that run once or twice."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _check_kind(model: object) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        what = "a TorchScript module, whose code and sizes are compiled. " + FIRST.format("script or trace")
    elif isinstance(model, torch.export.ExportedProgram) or (
        isinstance(model, torch.fx.GraphModule) and "eval" in vars(model)
    ):
        what = "an exported program, whose sizes are written into its graph. " + FIRST.format("export")
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
            + FIRST.format("prepare")
        )
    if name.startswith(_QUANTISED) or _is_packed(module):
        raise UnsupportedModel(
            f"expected a float network, got one with quantised weights: {where} is a {name}. "
            + FIRST.format("quantise")
        )
    for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        _check_tensor(f"{name!r} of {where}", tensor)


def _is_packed(module: nn.Module) -> bool:
    """Whether parameters are integers of a class of their own, or a linear layer has more weights than entries."""
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
