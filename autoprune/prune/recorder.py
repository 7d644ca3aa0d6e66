"""What the rules of operators read and write while a network runs: the axes of tensors, roles, MACs, module sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from autoprune.core.unit import Role
from autoprune.prune.axes import Atom, Axis, freeze, fresh, one

Axes = tuple[Axis, ...]


@dataclass(frozen=True)
class Call:
    """One operator call: its name, arguments by schema name, its output, and where it happened."""

    operator: str
    arguments: Mapping[str, Any]
    output: Any
    module: str

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def where(self) -> str:
        return f"operator {self.operator} in {self.module or 'the top module'!r}"

    @property
    def shape(self) -> torch.Size:
        """Shape of the (first) output."""
        first = self.output[0] if isinstance(self.output, tuple) else self.output
        return torch.Size(first.shape)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All tensors among the arguments."""
        return [leaf for leaf in tree_leaves(dict(self.arguments)) if isinstance(leaf, torch.Tensor)]


@dataclass(frozen=True)
class Contraction:
    """Multiply-accumulates of one operator: a constant times the sizes of the axes."""

    module: str
    constant: int
    axes: Axes


@dataclass
class Recorder:
    """The axes of every tensor seen so far, and what the rules noted on the way."""

    contractions: list[Contraction] = field(default_factory=list)
    sizes: list[tuple[str, str, Axis]] = field(default_factory=list)  # (module, attribute, axis)
    batch_norms: dict[str, str] = field(default_factory=dict)  # of a module: the batch norm its output goes into
    uses: Counter[str] = field(default_factory=Counter)  # of a module: how many operators read its output
    uncounted: dict[str, None] = field(default_factory=dict)
    roots: dict[str, Axes] = field(default_factory=dict)  # of parameters and buffers, each tensor by its first name
    _axes: dict[int, tuple[torch.Tensor, Axes]] = field(default_factory=dict)  # tensors are held so that ids last
    _names: dict[int, list[str]] = field(default_factory=dict)  # of parameters, also when transposed; several when tied
    _producers: dict[int, str] = field(default_factory=dict)  # of a tensor: the module whose weight made it
    _roles: dict[int, Role] = field(default_factory=dict)

    def register(self, model: nn.Module) -> None:
        """Gives every parameter and buffer new axes that nothing is known about yet."""
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self._names.setdefault(id(parameter), []).append(name)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            self._names.setdefault(id(tensor), [name])
            self.roots[name] = tuple(Atom(n) if n > 1 else one() for n in tensor.shape)
            self.record(tensor, self.roots[name])

    def knows(self, tensor: torch.Tensor) -> bool:
        return id(tensor) in self._axes

    def axes(self, tensor: torch.Tensor) -> Axes:
        """The axes of a tensor; one never seen before is a constant and frozen."""
        if not self.knows(tensor):
            self.record(tensor, fresh(tensor.shape, "constant tensor"))
        return self._axes[id(tensor)][1]

    def record(self, tensor: torch.Tensor, axes: Axes) -> None:
        self._axes[id(tensor)] = (tensor, axes)

    def freeze(self, tree: object, reason: str) -> None:
        """Freezes every axis of every tensor in a tree of arguments or outputs."""
        for leaf in tree_leaves(tree):
            if isinstance(leaf, torch.Tensor):
                for axis in self.axes(leaf):
                    freeze(axis, reason)

    def alias(self, tensor: torch.Tensor, source: torch.Tensor) -> None:
        """A rearranged parameter is still that parameter."""
        if id(source) in self._names:
            self._names[id(tensor)] = self._names[id(source)]

    def owner(self, weight: torch.Tensor | None) -> str | None:
        """The (first) module that a parameter or its transpose belongs to; None for any other tensor."""
        return next(iter(self._owners(weight)), None)

    def _owners(self, weight: torch.Tensor | None) -> list[str]:
        return [name.rpartition(".")[0] for name in self._names.get(id(weight), ())]

    def mark(self, weight: torch.Tensor | None, role: Role, dim: int) -> None:
        """Notes that a parameter produces ("out") or contracts ("in") the positions along one of its dimensions."""
        if weight is not None and self.owner(weight) is not None:
            self._roles[id(self.axes(weight)[dim])] = role

    def role(self, root: Axis) -> Role:
        return self._roles.get(id(root), "along")

    def keep_sizes(self, weight: torch.Tensor | None, **axes: Axis) -> None:
        """Notes which attributes of the modules owning a weight hold the size of which axis."""
        for module in self._owners(weight):
            self.sizes += [(module, attribute, axis) for attribute, axis in axes.items()]

    def made_by(self, tensor: torch.Tensor, weight: torch.Tensor) -> None:
        module = self.owner(weight)
        if module is not None:
            self._producers[id(tensor)] = module

    def note_uses(self, call: Call) -> None:
        """Counts readers of what weights made; an output written in place is no longer what the weight made."""
        for tensor in call.tensors:
            if id(tensor) in self._producers:
                self.uses[self._producers[id(tensor)]] += 1
        for leaf in tree_leaves(call.output):
            self._producers.pop(id(leaf), None)

    def note_outputs(self, tree: object) -> None:
        """Freezes what the model returns; its caller is one more reader of it."""
        self.freeze(tree, "model output")
        for leaf in tree_leaves(tree):
            if id(leaf) in self._producers:
                self.uses[self._producers[id(leaf)]] += 1

    def maker(self, tensor: torch.Tensor) -> str | None:
        """The module whose weight made exactly this tensor, if one did."""
        return self._producers.get(id(tensor))
