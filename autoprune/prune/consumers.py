"""What multiplies positions of units: the modules that call a consumer's weight, and what statistics of it would take.

Everything here follows from shapes and settings; nothing runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from autoprune.core.unit import Unit
from autoprune.prune.copying import named_tensors
from autoprune.prune.design import Design, design_of
from autoprune.prune.structure import Structure

MAX_COLUMNS = 2304  # 256 inputs of a 3 x 3 convolution; 42 MB

Form = Literal["columns", "channels"]


@dataclass(frozen=True)
class Caller:
    """A module that multiplies its input with a weight; `constant` names what takes up a constant beside the product.

    That is its bias, or a batch norm that will be re-estimated; empty where nothing does.
    """

    module: str
    constant: str


@dataclass(frozen=True)
class Consumer:
    """A weight that contracts positions of units, with all of its callers, which share the design.

    `form` says over what second moments are taken: over all k columns of a row, or, where these are too many, over
    the inputs alone, added up over kernel positions.
    """

    design: Design
    callers: tuple[Caller, ...]
    form: Form

    @property
    def size(self) -> int:
        """d, rows and columns of a group's second moments."""
        return self.design.columns if self.form == "columns" else self.design.columns // self.design.kernel

    @property
    def nbytes(self) -> int:
        """Bytes that the moments take."""
        return 8 * self.design.groups * (self.size**2 + self.design.columns)


def consumers_of(units: Sequence[Unit]) -> tuple[str, ...]:
    """Names of the weights that contract positions of the units, each once."""
    return tuple(dict.fromkeys(slot.tensor for unit in units for slot in unit.with_role("in")))


def find_consumers(
    model: nn.Module, structure: Structure, weights: Sequence[str], max_columns: int = MAX_COLUMNS
) -> tuple[dict[str, Consumer], dict[str, str]]:
    """Consumers by weight name, and for every weight without a regression the reason.

    Beyond `max_columns` columns a group, moments are those of channels; beyond `max_columns` channels there are none.
    """
    found: dict[str, Consumer] = {}
    reasons: dict[str, str] = {}
    for name in weights:
        consumer = _consumer(model, structure, name, max_columns)
        if isinstance(consumer, str):
            reasons[name] = consumer
        else:
            found[name] = consumer
    return found, reasons


def statistics_bytes(
    model: nn.Module, structure: Structure, units: Sequence[str], max_columns: int = MAX_COLUMNS
) -> int:
    """Memory that the second moments of the named units' consumers take, from shapes alone."""
    weights = consumers_of([structure.unit(name) for name in units])
    consumers, _ = find_consumers(model, structure, weights, max_columns)
    return sum(consumer.nbytes for consumer in consumers.values())


def _consumer(model: nn.Module, structure: Structure, weight: str, max_columns: int) -> Consumer | str:
    tensors = named_tensors(model)
    names = {id(tensor): name for name, tensor in tensors.items()}
    designs: dict[str, Design] = {}
    callers = []
    for owner, attribute, module in _owners(model, id(tensors[weight])):
        design = _design(module, attribute)
        if isinstance(design, str):
            return design
        designs[owner] = design
        callers.append(Caller(owner, _constant(owner, attribute, module, structure, names)))
    if len(set(designs.values())) > 1:
        return f"{' and '.join(designs)} share it and multiply it in different ways"
    design = next(iter(designs.values()))
    if design.columns <= max_columns:
        return Consumer(design, tuple(callers), "columns")
    channels = design.columns // design.kernel
    if channels > max_columns:
        return f"{channels} inputs are more than the limit of {max_columns}"
    return Consumer(design, tuple(callers), "channels")


def _owners(model: nn.Module, tensor: int) -> Iterator[tuple[str, str, nn.Module]]:
    """Modules that hold a parameter, by name, with the attribute it has there."""
    for name, module in model.named_modules():
        for attribute, parameter in module._parameters.items():
            if id(parameter) == tensor:
                yield name, attribute, module


def _design(module: nn.Module, attribute: str) -> Design | str:
    if isinstance(module, nn.MultiheadAttention) and attribute == "in_proj_weight":
        return Design(1, module.embed_dim)
    return design_of(module) if attribute == "weight" else f"no least squares for {attribute} of {_kind(module)}"


def _kind(module: nn.Module) -> str:
    return "MultiheadAttention" if isinstance(module, nn.MultiheadAttention) else type(module).__name__


def _constant(owner: str, attribute: str, module: nn.Module, structure: Structure, names: Mapping[int, str]) -> str:
    bias = module._parameters.get(attribute.removesuffix("weight") + "bias")
    return structure.batch_norms.get(owner, "") if bias is None else names[id(bias)]
