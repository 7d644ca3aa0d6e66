"""The code of exported checkpoints: a modelling file that builds a class of transformers and gives it other sizes.

The file is made of the sources of the functions that pruning uses, so that it needs torch and transformers alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from autoprune.prune.modules import attributes
from autoprune.prune.modules.attributes import put
from autoprune.prune.modules.skip import Skip, skip, within

SECTION = "autoprune"  # the key of the configuration that holds the sizes
PREFIX = "Pruned"  # of the class's name

_HEADER = '''"""A pruned {base}: the class of transformers with the sizes that config.json has under "{section}".

Written by autoprune, which is not needed to run it.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import Any

import torch
import transformers
from torch import nn

_STEP = re.compile({step!r})
_PLAIN = (bool, int, float, str, NoneType)
'''

_CLASS = """class {prefix}Config(transformers.{config}):
    model_type = "{model_type}"


class {prefix}{base}(transformers.{base}):
    config_class = {prefix}Config

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        self._saved_config = copy.deepcopy(config)  # resizing changes numbers of the other one
        super().__init__(config, *args, **kwargs)
        resize(self, config.{section})
        self.tie_weights()

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        config, self.config = self.config, self._saved_config
        try:
            super().save_pretrained(*args, **kwargs)
        finally:
            self.config = config
"""


def resize(network: nn.Module, sizes: Mapping[str, Any]) -> None:
    """Gives a network other sizes, in place.

    Args:
        network: the network, with larger tensors.
        sizes: the shape of each tensor ("shapes"), attributes by module ("attributes"), and the modules that compute
            nothing ("skipped"), with the length of what they return.
    """
    for name, values in sizes["attributes"].items():
        for path, number in values.items():
            put(network.get_submodule(name), path, number)
    skip(network, sizes["skipped"])
    for name, shape in sizes["shapes"].items():
        parent, _, own = name.rpartition(".")
        module = network.get_submodule(parent)
        old = getattr(module, own)
        if old is None:  # a bias that the class does not have
            setattr(module, own, nn.Parameter(module.get_parameter("weight").new_zeros(shape)))
            continue
        if list(old.shape) == list(shape):
            continue
        new = old.detach()[tuple(map(slice, shape))].clone()
        if isinstance(old, nn.Parameter):
            setattr(module, own, nn.Parameter(new, requires_grad=old.requires_grad))
        else:
            module.register_buffer(own, new)
            keep_buffers(module)
    keep_computed_buffers(network)


def keep_computed_buffers(network: nn.Module) -> None:
    """Keeps the buffers of modules that compute them from a configuration, whose numbers pruning changes."""
    for module in network.modules():
        if hasattr(module, "config") and next(module.buffers(recurse=False), None) is not None:
            keep_buffers(module)


def keep_buffers(module: nn.Module) -> None:
    """Makes all buffers of a module part of checkpoints; transformers then does not compute them anew from sizes."""
    for name, buffer in module.named_buffers(recurse=False):
        module.register_buffer(name, buffer)
    module._is_hf_initialized = True  # type: ignore[assignment]  # read by transformers


def modelling_file(base: type[nn.Module], config: type, model_type: str) -> str:
    """The source of a module with a class `Pruned...` and its configuration, subclasses of those of transformers."""
    header = _HEADER.format(base=base.__name__, section=SECTION, step=attributes._STEP.pattern)
    names = {"base": base.__name__, "config": config.__name__, "model_type": model_type}
    numbers = (attributes.steps_of, attributes._at, attributes._changed, put)
    pieces = (*numbers, within, Skip, skip, resize, keep_computed_buffers, keep_buffers)
    sources = [inspect.getsource(piece) for piece in pieces]
    return "\n\n".join([header, *sources, _CLASS.format(prefix=PREFIX, section=SECTION, **names)])


def sizes_of(network: nn.Module, attributes: Mapping[str, Any], skipped: Mapping[str, int]) -> dict[str, Any]:
    """The sizes of a pruned network, as `resize` takes them."""
    tensors: dict[str, torch.Tensor] = dict(network.named_parameters(remove_duplicate=False))
    tensors |= dict(network.named_buffers(remove_duplicate=False))
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    return {"shapes": shapes, "attributes": {k: dict(v) for k, v in attributes.items()}, "skipped": dict(skipped)}
