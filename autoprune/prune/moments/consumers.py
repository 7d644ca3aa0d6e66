"""Consumers: weights that multiply positions of units, with the modules that call them and the size of their moments.

Everything in this file follows from shapes and settings; no network runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import nn

from autoprune.core.unit import Unit
from autoprune.prune.devices.memory import device_of, machine_bytes, total_bytes
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.moments.design import Design, design_of
from autoprune.prune.structure.structure import Structure

WIDE = 1024  # columns above which moments are in float32, whose rounding errors are far below the ridge
SCARCE = 8  # rows a column below which the ridge of regressions is chosen on examples that are held out
MEMORY_SHARE = 0.25  # share of the memory, of the machine and of the device, that all moments may take by default

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
        form: "columns" if second moments are taken over all k columns of a row; "channels" if these take too much
            memory, and second moments are taken over the inputs, summed over kernel positions.
        blocks: the number of blocks of adjacent inputs between which second moments are taken to be 0; 1 unless those
            of all inputs take too much memory.
    """

    design: Design
    callers: tuple[Caller, ...]
    form: MomentsForm = "columns"
    blocks: int = 1

    @property
    def size(self) -> int:
        """d, the number of rows and columns of a group's second moments."""
        return self.design.columns if self.form == "columns" else self.design.columns // self.design.kernel

    @property
    def nbytes(self) -> int:
        """The number of bytes of the moments."""
        second = self.size**2 // self.blocks * self.dtype.itemsize
        return self.design.groups * (second + 8 * self.design.columns)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the second moments."""
        return torch.float32 if self.design.columns > WIDE else torch.float64

    def lacks_rows(self, rows: int) -> bool:
        """Whether so many rows are so few that a ridge is chosen, which takes moments of those held out as well."""
        return self.form == "columns" and self.blocks == 1 and rows < SCARCE * self.design.columns

    def smaller(self) -> Consumer | None:
        """The same consumer with the next smaller second moments; None if there are none."""
        inputs = self.design.columns // self.design.kernel
        if self.form == "columns" and self.design.kernel > 1:
            return replace(self, form="channels")
        more = next((blocks for blocks in range(self.blocks + 1, inputs + 1) if inputs % blocks == 0), None)
        return None if more is None else replace(self, blocks=more)


def consumers_of(units: Sequence[Unit]) -> tuple[str, ...]:
    """The names of the weights that contract positions of the units, each once."""
    return tuple(dict.fromkeys(slot.tensor for unit in units for slot in unit.with_role("in")))


def measured_weights(units: Sequence[Unit]) -> tuple[str, ...]:
    """The weights whose inputs' second moments orders and refits need, each once.

    They are the consumers and, for head dimensions, also the producers, which say how much a position has in the scores
    of the attention.
    """
    made = (slot.tensor for unit in units if unit.kind == "head_dim" for slot in unit.with_role("out"))
    return tuple(dict.fromkeys([*consumers_of(units), *made]))


def find_consumers(
    model: nn.Module, structure: Structure, weights: Sequence[str], limit: int | None = None
) -> tuple[dict[str, Consumer], dict[str, str]]:
    """Finds the consumers among weights.

    Args:
        model: the network.
        structure: its structure.
        weights: names of weights.
        limit: the number of bytes that all moments may take together; by default a quarter of the memory of the
            machine, or of the model's device if that has less. The largest moments are made smaller until they fit:
            those of columns become those of channels, and then those of blocks of inputs.

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
        consumer = _consumer(owners.get(name, []))
        if isinstance(consumer, str):
            reasons[name] = consumer
        else:
            found[name] = consumer
    return _fitting(found, default_limit(device_of(model)) if limit is None else limit), reasons


def default_limit(device: torch.device) -> int:
    """The number of bytes that all moments of a network may take together, on its device and then on the machine.

    It follows from all memory, not from what is free now, so that a run that is continued has the same moments.
    """
    return int(MEMORY_SHARE * min(machine_bytes(), total_bytes(device) or machine_bytes()))


def _fitting(consumers: Mapping[str, Consumer], limit: int) -> dict[str, Consumer]:
    """The consumers, with the largest moments made smaller until all fit, or until none can be smaller."""
    fitting = dict(consumers)
    total = sum(consumer.nbytes for consumer in fitting.values())
    shrinking = {name: consumer for name, consumer in fitting.items() if consumer.smaller() is not None}
    while total > limit and shrinking:
        name = max(shrinking, key=lambda name: shrinking[name].nbytes)
        smaller = shrinking.pop(name).smaller()
        assert smaller is not None, "only consumers that can be smaller are kept"
        total += smaller.nbytes - fitting[name].nbytes
        fitting[name] = smaller
        if smaller.smaller() is not None:
            shrinking[name] = smaller
    return fitting


def statistics_bytes(model: nn.Module, structure: Structure, units: Sequence[str], limit: int | None = None) -> int:
    """The memory of the second moments of the weights that the named units need, in bytes, computed from shapes alone.

    Weights that turn out to read the same tensor share their moments and take less.
    """
    return moments_bytes(model, structure, measured_weights([structure.unit(name) for name in units]), limit)


def moments_bytes(model: nn.Module, structure: Structure, weights: Sequence[str], limit: int | None = None) -> int:
    """The memory of the second moments of the named weights' inputs, in bytes, computed from shapes alone."""
    consumers, _ = find_consumers(model, structure, weights, limit)
    return sum(consumer.nbytes for consumer in consumers.values())


class Owner(NamedTuple):
    """A module that holds a parameter, and the attribute's name."""

    caller: Caller
    attribute: str
    module: nn.Module


def _consumer(owners: Sequence[Owner]) -> Consumer | str:
    if not owners:
        return "it is a buffer, which stays as it is"
    designs = [_design(owner.module, owner.attribute) for owner in owners]
    reason = next((design for design in designs if isinstance(design, str)), "")
    if reason:
        return reason
    shared = {design for design in designs if isinstance(design, Design)}
    if len(shared) > 1:
        return f"{' and '.join(owner.caller.module for owner in owners)} share it and multiply it in different ways"
    return Consumer(shared.pop(), tuple(owner.caller for owner in owners))


def _design(module: nn.Module, attribute: str) -> Design | str:
    if isinstance(module, nn.MultiheadAttention) and attribute == "in_proj_weight":
        return Design(1, module.embed_dim)
    return design_of(module) if attribute == "weight" else f"no least squares for {attribute} of {_kind(module)}"


def _kind(module: nn.Module) -> str:
    return "MultiheadAttention" if isinstance(module, nn.MultiheadAttention) else type(module).__name__


def _constant(owner: str, attribute: str, module: nn.Module, structure: Structure, names: Mapping[int, str]) -> str:
    bias = module._parameters.get(attribute.removesuffix("weight") + "bias")
    return structure.batch_norms.get(owner, "") if bias is None else names[id(bias)]
