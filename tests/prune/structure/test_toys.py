"""Every toy: what must be found is found, and whatever is removed, the small network computes what it must."""

from __future__ import annotations

import copy
import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from networks import counted_params, fingerprint, same
from torch import nn
from toys import TOYS, Toy, outputs

import autoprune
from autoprune import Structure, Unit

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

every_toy = pytest.mark.parametrize("name", TOYS)


@dataclass(frozen=True)
class Traced:
    toy: Toy
    model: nn.Module
    example: Any
    structure: Structure
    before: Any


@functools.cache
def traced(name: str) -> Traced:
    model, example = TOYS[name].make()
    before = fingerprint(model)
    return Traced(TOYS[name], model, example, autoprune.find_structure(model, example), before)


def some(unit: Unit, seed: int) -> int | list[int]:
    """A random number of random positions, at least as many as must stay; a count where none may."""
    rng = np.random.default_rng([seed, *unit.name.encode()])
    count = int(rng.integers(unit.least, unit.width + 1))
    return np.sort(rng.permutation(unit.width)[:count]).tolist() if unit.least else count


WAYS: dict[str, Callable[[Unit], int | list[int]]] = {
    "half": lambda unit: math.ceil(unit.width / 2),
    "least": lambda unit: unit.least,
    "random 1": lambda unit: some(unit, 1),
    "random 2": lambda unit: some(unit, 2),
}
every_way = pytest.mark.parametrize("way", WAYS)


def amounts(structure: Structure, way: str) -> dict[str, int | list[int]]:
    return {unit.name: WAYS[way](unit) for unit in structure.units}


@functools.cache
def shrunk(name: str, way: str) -> nn.Module:
    this = traced(name)
    return autoprune.shrink(this.model, this.structure, amounts(this.structure, way))


def counted_macs(model: nn.Module, example: Any) -> int:
    """Multiply-accumulates of all convolution and linear modules, from the sizes of tensors while the model runs."""
    total = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
        total += (inputs[0] if transposed else output).numel() * module.weight[0].numel()

    layers = [m for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    outputs(model, example)
    for hook in hooks:
        hook.remove()
    return total


@every_toy
def test_what_can_go_is_found(name: str) -> None:
    toy, units = traced(name).toy, traced(name).structure.units
    wanted = Counter((kind, width) for kind, widths in toy.units.items() for width in widths if kind != "any")
    found = Counter((unit.kind, unit.width) for unit in units)
    assert not wanted - found
    rest = Counter(width for _, width in (found - wanted).elements())
    assert not Counter(toy.units.get("any", ())) - rest


@every_toy
def test_what_stays_is_small_and_has_its_reason(name: str) -> None:
    toy, frozen = traced(name).toy, traced(name).structure.frozen
    assert sum(part.share for part in frozen) <= toy.largest_frozen + 1e-9, frozen
    assert not toy.frozen or any(re.search(toy.frozen, part.reason) for part in frozen), frozen


@every_toy
def test_no_part_is_frozen_without_a_reason(name: str) -> None:
    frozen = traced(name).structure.frozen
    assert all(part.reason and not re.search(r"(^|; )(;|$)", part.reason) for part in frozen), frozen


@every_way
@every_toy
def test_the_small_network_computes_what_the_masked_one_does(name: str, way: str) -> None:
    this = traced(name)
    small = shrunk(name, way)
    report = autoprune.verify(this.model, small, this.structure, this.example)
    assert report.ok, report
    shapes = [tensor.shape for tensor in outputs(this.model, this.example)]
    assert [tensor.shape for tensor in outputs(small, this.example)] == shapes
    assert same(this.before, fingerprint(this.model))


@every_way
@every_toy
def test_costs_equal_counting(name: str, way: str) -> None:
    this = traced(name)
    kept = amounts(this.structure, way)
    counts = [len(amount) if isinstance(amount, list) else amount for amount in kept.values()]
    costs = this.structure.cost.evaluate(list(kept), np.array([counts], dtype=np.int64))
    small = shrunk(name, way)
    assert costs["params"].tolist() == [counted_params(small)]
    if this.toy.layers_only:
        assert costs["macs"].tolist() == [counted_macs(small, this.example)]


@every_toy
def test_names_stay_and_nothing_shrinks_at_full_width(name: str) -> None:
    this = traced(name)
    state = this.model.state_dict()
    assert list(autoprune.shrink(this.model, this.structure, 0.5).state_dict()) == list(state)
    whole = autoprune.shrink(this.model, this.structure, 1.0).state_dict()
    assert whole.keys() == state.keys()
    assert all(torch.equal(whole[key], tensor) for key, tensor in state.items())


@pytest.mark.parametrize(
    ("name", "width", "normalised"),
    [
        ("plain", 12, False),
        ("layer_norm", 12, True),
        ("layer_norm", 24, False),
        ("rms_norm", 12, True),
        ("rms_norm_by_hand", 12, True),
        ("rms_norm_by_hand", 24, False),
        ("group_norm", 4, True),
        ("instance_norm", 12, False),
        ("class_token", 24, True),
        ("class_token", 32, False),
        ("fused_qkv", 4, False),
        ("split_attention", 12, False),
        ("experts_packed", 3, True),
        ("experts_packed", 24, False),
    ],
)
def test_units_whose_removal_changes_a_mean_or_a_sum_are_marked(name: str, width: int, normalised: bool) -> None:
    assert unit_of(traced(name).structure, width).normalised is normalised


@pytest.mark.parametrize(
    ("name", "width", "reader"),
    [
        ("plain", 8, "0.1.0"),
        ("plain", 24, "3"),
        ("layer_norm", 24, "4"),
        ("weight_norm", 12, "2"),
        ("standardised_conv", 12, "0.2"),
        ("standardised_conv", 8, "0.4"),
        ("spectral_norm", 8, "0.2"),
        ("spectral_norm", 12, "0.4"),
        ("spectral_norm", 24, "1.0"),
        ("orthogonal", 12, "1"),
        ("orthogonal", 24, "3"),
    ],
)
def test_removing_what_is_not_marked_equals_silencing_it(name: str, width: int, reader: str) -> None:
    """The reference here is the whole network with zeros going into the one module that reads the positions."""
    this = traced(name)
    for unit in this.structure.units:
        if unit.width == width and not unit.normalised:
            small = autoprune.shrink(this.model, this.structure, {unit.name: list(range(0, width, 2))})
            silenced = copy.deepcopy(this.model)
            silenced.get_submodule(reader).register_forward_pre_hook(silence_odd)
            wanted = outputs(silenced, this.example)
            torch.testing.assert_close(outputs(small, this.example), wanted, rtol=1e-4, atol=1e-5)


def silence_odd(module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    """Zeros in every second channel of an image or feature of a vector."""
    x = inputs[0].clone()
    x.movedim(1 if x.dim() == 4 else -1, 0)[1::2] = 0
    return (x,)


def unit_of(structure: Structure, width: int) -> Unit:
    """The one unit of a width."""
    (unit,) = (unit for unit in structure.units if unit.width == width)
    return unit


# Small networks made by hand: in each tensor named, which indices stay along which dimension; attributes set.

Slices = Mapping[tuple[str, int], list[int]]
NORM = ("weight", "bias", "running_mean", "running_var")


def inside(groups: int, size: int, positions: Iterable[int]) -> list[int]:
    """The same positions of every one of several groups in a row."""
    return [group * size + position for group in range(groups) for position in positions]


def rows(
    module: str, indices: list[int], names: Iterable[str] = ("weight", "bias")
) -> dict[tuple[str, int], list[int]]:
    return {(f"{module}.{name}", 0): indices for name in names}


def by_hand(model: nn.Module, slices: Slices, **attributes: Any) -> nn.Module:
    """A copy with sliced tensors; attributes are called module__attribute."""
    small = copy.deepcopy(model)
    for (name, dim), indices in slices.items():
        path, _, last = name.rpartition(".")
        owner = small.get_submodule(path)
        tensor = getattr(owner, last)
        sliced = tensor.detach().index_select(dim, torch.tensor(indices))
        setattr(owner, last, nn.Parameter(sliced) if isinstance(tensor, nn.Parameter) else sliced)
    for name, value in attributes.items():
        path, _, last = name.rpartition("__")
        setattr(small.get_submodule(path.replace("__", ".")), last, value)
    return small


def chunk_cat(model: nn.Module, kept: list[int]) -> nn.Module:
    both = inside(2, 12, kept)
    after = {("conv.0.weight", 1): kept, ("head.2.weight", 1): [*range(8), *(8 + i for i in kept)]}
    return by_hand(model, rows("stem.0", both, ["weight"]) | rows("stem.1", both, NORM) | after)


def option_a(model: nn.Module, kept: list[int]) -> nn.Module:
    padded = [*range(4), *(4 + i for i in kept), *range(12, 16)]
    before = rows("stem.0", kept, ["weight"]) | rows("stem.1", kept, NORM) | {("conv1.0.weight", 1): kept}
    return by_hand(model, before | rows("conv2", padded) | rows("bn", padded, NORM) | {("head.2.weight", 1): padded})


def mixed_kernel_split(model: nn.Module, kept: list[int]) -> nn.Module:
    joined = [*kept, *range(12, 20)]
    before = rows("0.0", joined, ["weight"]) | rows("0.1", joined, NORM) | rows("1.0.convs.0", kept)
    small = by_hand(model, before | rows("1.1", joined, NORM) | {("2.0.weight", 1): joined})
    small[1][0].splits, small[1][0].convs[0].groups = [len(kept), 8], len(kept)
    return small


def channel_shuffle(model: nn.Module, kept: list[int]) -> nn.Module:
    before, after = inside(3, 4, kept), [3 * position + group for position in kept for group in range(3)]
    slices = rows("before.0", before, ["weight"]) | rows("before.1", before, NORM) | {("after.0.weight", 1): after}
    return by_hand(model, slices)


def group_norm(model: nn.Module, kept: list[int]) -> nn.Module:
    indices = inside(3, 4, kept)
    return by_hand(model, rows("0", indices) | rows("1", indices) | {("3.weight", 1): indices})


def layer_norm(model: nn.Module, kept: list[int]) -> nn.Module:
    slices = rows("0", kept) | rows("1", kept) | {("2.weight", 1): kept}
    small = by_hand(model, slices)
    small[1].normalized_shape = (len(kept),)
    return small


def glu_packed(model: nn.Module, kept: list[int]) -> nn.Module:
    return by_hand(model, rows("both", inside(2, 24, kept)) | {("head.weight", 1): kept})


def tied_transposed(model: nn.Module, kept: list[int]) -> nn.Module:
    inside_and_out = {("encoder.weight", 1): kept, ("bias", 0): kept}
    return by_hand(model, rows("stem", kept) | inside_and_out | {("head.weight", 1): kept})


def fused_qkv(model: nn.Module, kept: list[int]) -> nn.Module:
    columns = [6 * head + i for head in kept for i in range(6)]
    slices = rows("1.attention.qkv", inside(3, 24, columns)) | {("1.attention.proj.weight", 1): columns}
    small = by_hand(model, slices)
    small[1].attention.num_heads = len(kept)
    return small


def fused_qkv_old(model: nn.Module, kept: list[int]) -> nn.Module:
    columns = [6 * head + i for head in kept for i in range(6)]
    around = rows("0", columns) | rows("1.norm1", columns) | rows("1.norm2", columns)
    attention = rows("1.attention.qkv", inside(3, 24, columns)) | rows("1.attention.proj", columns)
    readers = ("1.attention.qkv", "1.attention.proj", "1.fc1", "2")
    small = by_hand(model, around | attention | rows("1.fc2", columns) | {(f"{r}.weight", 1): columns for r in readers})
    small[1].attention.num_heads = len(kept)
    small[1].norm1.normalized_shape = small[1].norm2.normalized_shape = (len(columns),)
    return small


def lstm(model: nn.Module, kept: list[int]) -> nn.Module:
    gates = inside(4, 8, kept)
    small = by_hand(model, rows("recurrent", gates, ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]))
    return by_hand(
        small, {("recurrent.weight_hh_l0", 1): kept, ("head.weight", 1): kept}, recurrent__hidden_size=len(kept)
    )


@pytest.mark.parametrize(
    ("prune", "width", "kept"),
    [
        (chunk_cat, 12, [0, 3, 4, 9, 11]),
        (option_a, 8, [1, 2, 6]),
        (mixed_kernel_split, 12, [2, 3, 7, 10, 11]),
        (channel_shuffle, 4, [0, 3]),
        (group_norm, 4, [1, 2]),
        (layer_norm, 12, [0, 5, 6, 7, 10]),
        (glu_packed, 24, [1, 2, 3, 13, 23]),
        (tied_transposed, 12, [0, 2, 3, 7, 9]),
        (fused_qkv, 4, [1, 2]),
        (fused_qkv_old, 4, [0, 3]),
        (lstm, 8, [0, 4, 5]),
    ],
)
def test_shrink_does_what_a_person_would(prune: Callable[..., nn.Module], width: int, kept: list[int]) -> None:
    this = traced(prune.__name__)
    expected = prune(this.model, kept)
    wanted = outputs(expected, this.example)
    small = autoprune.shrink(this.model, this.structure, {unit_of(this.structure, width).name: kept})
    for name, tensor in expected.state_dict().items():
        assert torch.equal(small.state_dict()[name], tensor), name
    torch.testing.assert_close(outputs(small, this.example), wanted)
