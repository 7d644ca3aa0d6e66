"""What models are given and return: looked into whatever holds it, copied for every run."""

from __future__ import annotations

import argparse
from collections import OrderedDict, UserDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.utils import _pytree

import autoprune
from autoprune.errors import UnsupportedModel
from autoprune.prune.compensation.reference import make_reference
from autoprune.prune.criteria.loss import collect_gradients
from autoprune.prune.moments.moments import collect_moments
from autoprune.prune.passes.containers import copied, main_output, tensors_of


@dataclass
class Output:
    logits: Any
    hidden: Any = None
    note: str = "no tensor"


class Pair(NamedTuple):
    first: Any
    second: Any


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Node:
    """Known to torch alone."""

    def __init__(self, hidden: Any) -> None:
        self._held = {"x": hidden}


_pytree.register_pytree_node(Node, lambda node: ([node._held["x"]], None), lambda parts, context: Node(parts[0]))


@dataclass
class KeyCache:
    keys: list[torch.Tensor] = field(default_factory=list)


WRAPPINGS: dict[str, Callable[[Any], Any]] = {
    "dataclass": Output,
    "dataclass in a list": lambda y: [Output(None, {"all": (y,)})],
    "named tuple": lambda y: Pair(None, Output(y)),
    "namespace": lambda y: SimpleNamespace(y=y),
    "arguments": lambda y: argparse.Namespace(y=[y], n=3),
    "slots": Slotted,
    "registered node": Node,
    "mapping": lambda y: UserDict(y=y),
    "ordered": lambda y: OrderedDict(a={"b": [y]}),
    "deque": lambda y: deque([y]),
}


class Net(nn.Module):
    def __init__(self, wrap: Callable[[Any], Any] = lambda y: y) -> None:
        super().__init__()
        self.first, self.second, self.wrap = nn.Linear(4, 9), nn.Linear(9, 3), wrap

    def forward(self, x: torch.Tensor) -> Any:
        return self.wrap(self.second(torch.relu(self.first(x))))


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_an_output_is_found_whatever_holds_it(wrap: Callable[[Any], Any]) -> None:
    model, x = Net(wrap), torch.randn(2, 4)
    structure = autoprune.find_structure(model, x)
    assert [(unit.name, unit.width) for unit in structure.units] == [("first", 9)]
    small = autoprune.shrink(model, structure, 0.5)
    assert autoprune.verify(model, small, structure, x).ok
    nn.init.zeros_(small.second.bias)
    assert not autoprune.verify(model, small, structure, x).ok


@pytest.mark.parametrize(
    ("wrap", "got"),
    [
        (lambda y: None, "NoneType"),
        (lambda y: "a cat", "str"),
        (lambda y: y.sum().item(), "float"),
        (lambda y: Output(None), "Output"),
        (lambda y: {"kind": [1, 2]}, "dict"),
    ],
)
def test_a_result_without_tensors_is_refused_in_words(wrap: Callable[[Any], Any], got: str) -> None:
    with pytest.raises(UnsupportedModel, match=f"got {got}, in which nothing can be compared"):
        autoprune.find_structure(Net(wrap), torch.randn(2, 4))


def test_tensors_come_in_the_order_in_which_they_are_held() -> None:
    a, b, c, d = (torch.tensor(float(i)) for i in range(4))
    tree = [a, Output(Pair(b, Slotted(c)), {"x": d}), nn.Linear(1, 1), torch.float32, 3, None]
    assert [tensor.item() for tensor in tensors_of(tree)] == [0, 1, 2, 3]


def test_objects_that_hold_each_other_end() -> None:
    one, other = SimpleNamespace(x=torch.ones(1)), SimpleNamespace(y=torch.zeros(1))
    one.other, other.one = other, one
    assert len(tensors_of(one)) == 2


def test_a_cache_for_further_calls_is_no_output_but_is_copied() -> None:
    cache = KeyCache([torch.ones(2, requires_grad=True) * 2])
    assert tensors_of((torch.zeros(1), cache)) == [torch.zeros(1)]
    assert copied(cache).keys[0] is not cache.keys[0]


def test_a_copy_keeps_what_is_one_tensor_one_and_its_flags() -> None:
    x = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    (args, (again,)), made = copied(((x,), (x,))), copied(Output([x * 2]))
    assert args[0] is again
    assert again is not x
    assert again.requires_grad
    assert again.is_contiguous(memory_format=torch.channels_last)
    assert made.logits[0].is_leaf


def test_the_main_output_is_the_first_tensor() -> None:
    x = torch.ones(2)
    assert main_output(x) is main_output((x, 2 * x)) is main_output({"out": x, "aux": 2 * x}) is x
    assert main_output("nothing") == "nothing"


# inputs that a forward changes


class InPlace(nn.Module):
    """Normalises what it is given, where it is; a list gets its entries replaced, a dict loses them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 9), nn.Linear(9, 3)

    def forward(self, x: Any) -> Any:
        holder = x
        while not isinstance(x, torch.Tensor):
            x = x[0] if isinstance(x, list) else x.pop("x") if isinstance(x, dict) else x.logits
        y = self.second(torch.relu(self.first(x.sub_(0.5).div_(0.2))))
        if isinstance(holder, list):
            holder[0] = y
        if isinstance(holder, Output):
            holder.logits = y
        return y


@pytest.mark.parametrize("hold", [lambda x: x, lambda x: [x], lambda x: {"x": x}, Output])
def test_a_forward_may_change_its_inputs_and_the_example_stays_as_it_is(hold: Callable[[Any], Any]) -> None:
    model, x = InPlace(), torch.rand(2, 4)
    before, example = x.clone(), (hold(x),)
    structure = autoprune.find_structure(model, example)
    assert [unit.name for unit in structure.units] == ["first"]
    assert autoprune.verify(model, autoprune.shrink(model, structure, 0.5), structure, example).ok
    assert torch.equal(x, before)
    assert tensors_of(example)[0] is x


def test_statistics_targets_and_gradients_leave_batches_as_they_are() -> None:
    model, batches = InPlace().eval(), [(torch.rand(6, 4),), (torch.rand(6, 4),)]
    before = [batch[0].clone() for batch in batches]
    structure = autoprune.find_structure(model, batches[0])
    made, _ = collect_moments(model, structure, ["second.weight"], batches)
    assert make_reference(model, structure, batches).examples == 12
    collect_gradients(model, structure, structure.units, batches, ["gradients", "sample_gradients", "curvature"])
    assert all(torch.equal(batch[0], old) for batch, old in zip(batches, before, strict=True))
    hidden = torch.relu(model.first((torch.cat(before) - 0.5) / 0.2)).double()
    torch.testing.assert_close(made["second.weight"].mean[0], hidden.mean(0), atol=1e-5, rtol=1e-5)
