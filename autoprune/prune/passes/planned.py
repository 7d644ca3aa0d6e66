"""Selects the forward passes that a structure covers: each call in eval mode, and in train mode if that differs.

Each call runs once in each mode before anything is traced. A pass that runs the same operators as an earlier one, on
the same tensors in the same order, adds nothing; one that does not run in train mode is reported in a note.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from autoprune.errors import UnsupportedModel
from autoprune.prune.modules.adapting import adapt
from autoprune.prune.modules.borrowed import evaluating, without_attention_fast_path, without_tf32
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.modules.wrappers import uncompiled
from autoprune.prune.passes.by_tensor import ByTensor, by_tensor
from autoprune.prune.passes.containers import tensors_of
from autoprune.prune.passes.examples import Example
from autoprune.prune.passes.site import Pass
from autoprune.prune.passes.train_mode import copy_in_train_mode
from autoprune.prune.passes.watch import Execute, OperatorWatch

COMPARED_ENTRIES = 1 << 20  # entries of outputs that are compared at once

OperatorStep = tuple[object, ...]


@contextlib.contextmanager
def running(model: nn.Module, *, train: bool) -> Iterator[nn.Module]:
    """The network for a pass without gradients, in full float32; for train mode a copy of the model."""
    with (
        copy_in_train_mode(model) if train else _in_eval_mode(model) as network,
        torch.no_grad(),
        without_tf32(),
        without_attention_fast_path(),
        uncompiled(),
    ):
        yield network


@contextlib.contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[nn.Module]:
    with evaluating(model):
        yield model


def comparable(model: nn.Module, example: Example, output: Any) -> list[torch.Tensor]:
    """The tensors that a call returned.

    Raises:
        UnsupportedModel: it returned none.
    """
    if found := tensors_of(output):
        return found
    raise UnsupportedModel(
        f"expected {type(model).__name__}.{example.method} to return tensors, alone or in lists, dictionaries, "
        f"dataclasses or attributes of an object, got {type(output).__name__}, in which nothing can be compared. "
        "Return the tensors from which this is computed"
    )


def plan_passes(model: nn.Module, examples: Sequence[Example]) -> tuple[tuple[Pass, ...], tuple[str, ...]]:
    """The passes in which the model runs, eval mode first, and a note about each in which it does not.

    Raises:
        UnsupportedModel: the first call does not run in eval mode, or another one in neither mode.
    """
    probe = copy_model(model, share=True)
    adapt(probe)
    planner = _Planner(probe)
    for train in (False, True):
        for example in examples:
            planner.add(example, train=train)
    planner.check_all_run(examples)
    return tuple(planner.passes), tuple(planner.notes)


class _Planner:
    """Runs calls one after the other and compares their operators with those of earlier ones."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.passes: list[Pass] = []
        self.notes: list[str] = []
        self._steps: list[list[OperatorStep]] = []
        self._failures: dict[str, UnsupportedModel] = {}

    def add(self, example: Example, *, train: bool) -> None:
        try:
            steps = _steps(self.model, example, train=train)
        except UnsupportedModel as error:
            if not self.passes:
                raise
            self._failures[example.name] = error
            self.notes.append(_note(example, error, train=train))
            return
        earlier = next((i for i, known in enumerate(self._steps) if known == steps), len(self.passes))
        self.passes.append(Pass(example.name, train, earlier))
        self._steps.append(steps)

    def check_all_run(self, examples: Sequence[Example]) -> None:
        running = {each.example for each in self.passes}
        for example in examples:
            if example.name not in running:
                raise self._failures[example.name]


def _note(example: Example, error: UnsupportedModel, *, train: bool) -> str:
    mode, other = ("train", "eval") if train else ("eval", "train")
    return (
        f"In {mode} mode call {example.name!r} was not looked at: {error}. It was traced and compared in {other} mode "
        f"alone, and what {mode} mode alone runs stays as it is. To have both, give a call that runs in {mode} mode, "
        "for example one with targets."
    )


def _steps(model: nn.Module, example: Example, *, train: bool) -> list[OperatorStep]:
    """The operators of a call; in train mode it must compute the same result twice."""
    steps, first = _watched(model, example, train=train)
    if train and not _equal(first, _watched(model, example, train=train)[1]):
        raise UnsupportedModel(
            "its forward computes something else when it runs twice on the same inputs: it is random or keeps a state"
        )
    return steps


def _watched(model: nn.Module, example: Example, *, train: bool) -> tuple[list[OperatorStep], list[torch.Tensor]]:
    with running(model, train=train) as network:
        watch = _Steps(network)
        with watch.watching(network):
            output = example.run(network, watch=watch)
        return watch.steps, comparable(model, example, output)


def _equal(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> bool:
    if [tensor.shape for tensor in first] != [tensor.shape for tensor in second]:
        return False
    outputs = zip(first, second, strict=True)
    pairs = (pair for a, b in outputs if not a.is_meta for pair in zip(pieces(a), pieces(b), strict=True))
    return all(torch.allclose(a, b, 1e-3, 1e-5, equal_nan=True) for a, b in pairs)


def pieces(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    """The entries of a tensor, as many at a time as are compared at once."""
    return torch.split(tensor.reshape(-1), COMPARED_ENTRIES)


class _Steps(OperatorWatch):
    """Records every operator with its module, its tensors by their origin, and its other arguments."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.steps: list[OperatorStep] = []
        self._origins: ByTensor[object] = by_tensor()
        for name, tensor in named_tensors(model).items():
            self._origins[tensor] = name

    def operator(self, name: str, overload: Any, arguments: dict[str, Any], execute: Execute) -> Any:
        told = {name: value for name, value in arguments.items() if name != "dropout_p"}  # which has no effect here
        given = [self._described(leaf) for leaf in tree_leaves(told)]
        output = execute(arguments)
        self.steps.append((name, self.modules[-1], *given))
        for index, tensor in enumerate(tensors_of(output)):
            self._origins.setdefault(tensor, (len(self.steps), index))
        return output

    def _described(self, argument: object) -> object:
        if not isinstance(argument, torch.Tensor):
            return argument if isinstance(argument, bool | int | float | str) else type(argument).__name__
        return self._origins.get(argument, "input"), tuple(argument.shape)
