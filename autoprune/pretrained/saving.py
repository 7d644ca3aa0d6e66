"""What `save_pretrained` does on a pruned network that was not read from a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from torch import nn

from autoprune.errors import ExportError


@dataclass(frozen=True)
class NotSaved:
    """Stands in for `save_pretrained` of a pruned network, which would write the sizes of the dense one."""

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ExportError(
            "expected a network that its config describes, got a pruned one, whose config has the sizes of the dense "
            "network. Export it with format 'transformers' (front.pick(...).export(folder, format='transformers')); "
            "the network that is loaded from that folder can be trained and saved."
        )


def without_saving(network: nn.Module) -> nn.Module:
    """The network, whose `save_pretrained` raises an ExportError if it has one."""
    if hasattr(network, "save_pretrained"):
        vars(network)["save_pretrained"] = NotSaved()
    return network
