"""Networks cut wrongly on purpose, by as little as one index: the proof finds every one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map
from toys import TOYS

import autoprune
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.passes.compare import OUTPUT_TOLERANCE, largest_of, precise_outputs
from autoprune.prune.passes.examples import as_examples
from autoprune.prune.structure.structure import Structure
from autoprune.prune.structure.trace import trace
from autoprune.prune.surgery.probes import randomised
from autoprune.prune.surgery.surgery import cut, kept_indices, rebuild
from autoprune.prune.surgery.verify import LARGEST_TOLERANCE, verify_positions

Positions = dict[str, np.ndarray]
NETWORKS = ["plain", "dense_concat", "grouped_queries", "fused_qkv", "depthwise", "lstm", "swiglu", "layer_norm"]


def shifted(kept: np.ndarray, length: int) -> np.ndarray:
    """One index is its neighbour."""
    gone = [i for i in range(length) if i not in kept]
    changed = kept.copy()
    changed[0] = gone[0]
    return changed


def swapped(kept: np.ndarray, length: int) -> np.ndarray:
    """Two indices have changed places."""
    return np.concatenate([kept[1::-1], kept[2:]]) if len(kept) > 1 else shifted(kept, length)


def wrong_networks(model: nn.Module, structure: Structure, positions: Positions) -> Iterator[tuple[str, nn.Module]]:
    """The small network with one tensor sliced at other indices, tensor by tensor and dimension by dimension."""
    small = cut(model, structure, positions)
    tensors = named_tensors(model)
    for name, dims in kept_indices(structure.units, positions, tensors).items():
        for dim, kept in dims.items():
            for mutate in (shifted, swapped):
                wrong = tensors[name].detach()
                for other, indices in dims.items():
                    chosen = mutate(kept, wrong.shape[dim]) if other == dim else indices
                    wrong = wrong.index_select(other, torch.from_numpy(chosen))
                if not torch.equal(wrong, named_tensors(small)[name]):
                    yield f"{name}[{dim}] {mutate.__name__}", rebuild(small, {name: wrong}, {})


def half(structure: Structure) -> Positions:
    rng = np.random.default_rng(0)
    return {
        u.name: np.sort(rng.permutation(u.width)[: u.allowed(max(u.width // 2, u.least))])
        for u in structure.units
        if not u.is_branch
    }


def undetected(name: str, limit: int | None = None, dtype: torch.dtype = torch.float32) -> tuple[list[str], int]:
    """The wrong networks that the proof takes for right, and how many wrong ones there were.

    One that computes what the right one computes, because both channels are shut for example, is not wrong.
    """
    model, example = TOYS[name].make()
    model = randomised(model, 0).to(dtype)
    example = tree_map(lambda x: x.to(dtype) if x.is_floating_point() else x, example)
    structure = autoprune.find_structure(model, example)
    positions = half(structure)
    (inputs,) = as_examples(example)
    right = cut(model, structure, positions)
    assert verify_positions(model, right, structure, positions, example).ok
    expected, missed, count = precise_outputs(right, inputs), [], 0
    networks = list(wrong_networks(model, structure, positions))
    chosen = np.random.default_rng(0).permutation(len(networks))[:limit]
    for what, small in (networks[index] for index in chosen):
        if largest_of(precise_outputs(small, inputs), expected) > 2 * OUTPUT_TOLERANCE:
            count += 1
            missed += [what] if verify_positions(model, small, structure, positions, example).ok else []
    return missed, count


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_with_one_wrong_index_are_found(name: str) -> None:
    missed, count = undetected(name, limit=3)
    assert missed == []
    assert count >= 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["plain", "grouped_queries", "lstm", "layer_norm"])
def test_networks_of_low_precision_with_one_wrong_index_are_found(name: str, dtype: torch.dtype) -> None:
    missed, count = undetected(name, limit=2, dtype=dtype)
    assert missed == []
    assert count >= 1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_of_a_hundred_networks_with_one_wrong_index_every_one_is_found(dtype: torch.dtype) -> None:
    found = [undetected(name, dtype=dtype) for name in NETWORKS]
    assert [missed for missed, _ in found if missed] == []
    assert sum(count for _, count in found) > 100


class Sine(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(x)


def deep(layers: int) -> nn.Module:
    """A chain in which rounding errors grow from layer to layer."""
    torch.manual_seed(0)
    blocks = [module for _ in range(layers) for module in (nn.Linear(256, 256), Sine())]
    model = nn.Sequential(nn.Linear(8, 256), *blocks, nn.Linear(256, 4)).eval()
    with torch.no_grad():
        for layer in model[1:-1:2]:
            layer.weight.mul_(6)
    return model


def test_the_tolerance_follows_from_rounding_and_wrong_networks_are_still_found() -> None:
    model, x = deep(14), torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    structure = trace(model, x)
    positions = {unit.name: np.arange(1, unit.width, 2) for unit in structure.units if not unit.is_branch}
    report = verify_positions(model, cut(model, structure, positions), structure, positions, x)
    assert report.worst > OUTPUT_TOLERANCE
    assert OUTPUT_TOLERANCE < report.tolerance <= LARGEST_TOLERANCE
    assert report.ok
    wrong = cut(model, structure, positions)
    with torch.no_grad():
        wrong[-1].bias[0] += 0.5 * report.tolerance * model(x).abs().max()
    assert not verify_positions(model, wrong, structure, positions, x).ok


def off_by_one(model: nn.Module, name: str) -> Callable[[nn.Module], None]:
    """Statistics of the neighbouring channel."""

    def change(small: nn.Module) -> None:
        buffer = small.get_buffer(name)
        buffer.copy_(model.get_buffer(name)[1 : 1 + len(buffer)])

    return change


@pytest.mark.parametrize("statistic", ["running_mean", "running_var"])
def test_statistics_of_the_neighbouring_channel_are_found(statistic: str) -> None:
    model = randomised(nn.Sequential(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 4, 3)).eval(), 0)
    x = torch.randn(2, 3, 8, 8)
    structure = autoprune.find_structure(model, x)
    small = autoprune.shrink(model, structure, {"0": list(range(6))})
    assert autoprune.verify(model, small, structure, x).ok
    off_by_one(model, f"1.{statistic}")(small)
    assert not autoprune.verify(model, small, structure, x).ok
