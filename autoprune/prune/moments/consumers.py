"""Consumers: weights that multiply positions of units, with the modules that call them and the size of their moments.

Everything in this file follows from shapes and settings; no network runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import nn

from autoprune.core.unit import Unit
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.moments.design import Design, design_of
from autoprune.prune.structure.structure import Structure

MAX_COLUMNS = 2304  # 256 inputs of a 3 x 3 convolution; 42 MB

MomentsForm = Literal["columns", "channels"]


@dataclass(frozen=True)
class Caller:
    """A module that multiplies its input with a weight.

    `constant` names the parameter that can absorb a constant: its bias, or a batch norm that will be re-estimated;
    empty if there is none.
    """

    module: str
    constant: str


@dataclass(frozen=True)
class Consumer:
    """A weight that contracts positions of units, with all of its callers, which share the design.

    Attributes:
        design: how the weight multiplies its input.
        callers: the modules that call it.
        form: "columns" if second moments are taken over all k columns of a row; "channels" if these are too many, and
            second moments are taken over the inputs, summed over kernel positions.
    """

    design: Design
    callers: tuple[Caller, ...]
    form: MomentsForm

    @property
    def size(self) -> int:
        """d, the number of rows and columns of a group's second moments."""
        return self.design.columns if self.form == "columns" else self.design.columns // self.design.kernel

    @property
    def nbytes(self) -> int:
        """The number of bytes of the moments."""
        return 8 * self.design.groups * (self.size**2 + self.design.columns)


def consumers_of(units: Sequence[Unit]) -> tuple[str, ...]:
    """The names of the weights that contract positions of the units, each once."""
    return tuple(dict.fromkeys(slot.tensor for unit in units for slot in unit.with_role("in")))


def find_consumers(
    model: nn.Module, structure: Structure, weights: Sequence[str], max_columns: int = MAX_COLUMNS
) -> tuple[dict[str, Consumer], dict[str, str]]:
    """Finds the consumers among weights.

    Args:
        model: the network.
        structure: its structure.
        weights: names of weights.
        max_columns: the largest number of columns per group for which moments are those of columns. Beyond it they are
            those of channels, and beyond as many channels there are none.

    Returns:
        Consumers by weight name, and the reason for every weight without a regression.
    """
    names = {id(tensor): name for name, tensor in named_tensors(model).items()}
    owners: dict[str, list[Owner]] = {}
    for owner, module in model.named_modules():
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                constant = _constant(owner, attribute, module, structure, names)
                owners.setdefault(names[id(parameter)], []).append(Owner(Caller(owner, constant), attribute, module))
    found: dict[str, Consumer] = {}
    reasons: dict[str, str] = {}
    for name in weights:
        consumer = _consumer(owners.get(name, []), max_columns)
        if isinstance(consumer, str):
            reasons[name] = consumer
        else:
            found[name] = consumer
    return found, reasons


def statistics_bytes(
    model: nn.Module, structure: Structure, units: Sequence[str], max_columns: int = MAX_COLUMNS
) -> int:
    """The memory of the second moments of the named units' consumers, in bytes, computed from shapes alone."""
    return moments_bytes(model, structure, consumers_of([structure.unit(name) for name in units]), max_columns)


def moments_bytes(
    model: nn.Module, structure: Structure, weights: Sequence[str], max_columns: int = MAX_COLUMNS
) -> int:
    """The memory of the second moments of the named weights' inputs, in bytes, computed from shapes alone."""
    consumers, _ = find_consumers(model, structure, weights, max_columns)
    return sum(consumer.nbytes for consumer in consumers.values())


class Owner(NamedTuple):
    """A module that holds a parameter, and the attribute's name."""

    caller: Caller
    attribute: str
    module: nn.Module


def _consumer(owners: Sequence[Owner], max_columns: int) -> Consumer | str:
    if not owners:
        return "it is a buffer, which stays as it is"
    designs = [_design(owner.module, owner.attribute) for owner in owners]
    reason = next((design for design in designs if isinstance(design, str)), "")
    if reason:
        return reason
    shared = {design for design in designs if isinstance(design, Design)}
    if len(shared) > 1:
        return f"{' and '.join(owner.caller.module for owner in owners)} share it and multiply it in different ways"
    design = shared.pop()
    callers = tuple(owner.caller for owner in owners)
    if design.columns <= max_columns:
        return Consumer(design, callers, "columns")
    channels = design.columns // design.kernel
    if channels > max_columns:
        return f"{channels} inputs are more than the limit of {max_columns}"
    return Consumer(design, callers, "channels")


def _design(module: nn.Module, attribute: str) -> Design | str:
    if isinstance(module, nn.MultiheadAttention) and attribute == "in_proj_weight":
        return Design(1, module.embed_dim)
    return design_of(module) if attribute == "weight" else f"no least squares for {attribute} of {_kind(module)}"


def _kind(module: nn.Module) -> str:
    return "MultiheadAttention" if isinstance(module, nn.MultiheadAttention) else type(module).__name__


def _constant(owner: str, attribute: str, module: nn.Module, structure: Structure, names: Mapping[int, str]) -> str:
    bias = module._parameters.get(attribute.removesuffix("weight") + "bias")
    return structure.batch_norms.get(owner, "") if bias is None else names[id(bias)]
