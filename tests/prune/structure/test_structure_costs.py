"""Costs of the CIFAR ResNets against published numbers and against counting on the really smaller network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import counted_macs, counted_params

from autoprune import zoo
from autoprune.prune.structure.trace import trace
from autoprune.prune.surgery.surgery import cut

PUBLISHED = {
    "resnet20": (40_551_040, 269_722),
    "resnet32": (68_862_592, 464_154),
    "resnet44": (97_174_144, 658_586),
    "resnet56": (125_485_696, 853_018),
    "resnet110": (252_887_680, 1_727_962),
}
IMAGE = torch.zeros(1, 3, 32, 32)


@pytest.fixture(scope="module")
def traced():
    """Model and structure by name, each made once."""
    found = {}

    def of(name):
        if name not in found:
            model = getattr(zoo, name)()
            found[name] = model, trace(model, IMAGE)
        return found[name]

    return of


@pytest.mark.parametrize("name", PUBLISHED)
def test_macs_and_parameters_are_those_published(traced, name):
    _, structure = traced(name)
    assert structure.cost.dense() == dict(zip(("macs", "params"), PUBLISHED[name], strict=True))
    assert structure.uncounted == ()


@pytest.mark.parametrize(("share", "macs"), [(0.5, 62_964_352), (0.75, 94_225_024)])
def test_resnet56_with_narrower_blocks_costs_what_is_known(traced, share, macs):
    model, structure = traced("resnet56")
    inner = {unit.name: np.arange(int(unit.width * share)) for unit in structure.units if unit.name.endswith("conv1")}
    inner.pop("conv1")
    assert len(inner) == 27
    counts = np.array([[len(kept) for kept in inner.values()]])
    assert structure.cost.evaluate(list(inner), counts)["macs"].tolist() == [macs]
    assert counted_macs(cut(model, structure, inner), IMAGE) == macs


def test_option_a_leaves_only_the_channels_every_stage_starts_with_to_prune(traced):
    """The first stage's 16 channels run to the end between padded zeros, which are frozen."""
    _, structure = traced("resnet20")
    widths = {unit.name: unit.width for unit in structure.units}
    assert widths["layer1.0.conv1"], widths["layer3.2.conv1"] == (16, 64)
    assert len([name for name in widths if name.endswith("conv1") and name.startswith("layer")]) == 9


def candidates(structure, count, seed):
    """Random kept counts of every unit, the smallest and the dense network among them."""
    widths = np.array([unit.width for unit in structure.units])
    least = np.array([unit.least for unit in structure.units])
    drawn = np.random.default_rng(seed).integers(least, widths + 1, (count - 2, len(widths)))
    return np.concatenate([drawn, least[None], widths[None]])


def compare(model, structure, image, rows):
    units = [unit.name for unit in structure.units]
    costs = structure.cost.evaluate(units, rows)
    for row, macs, params in zip(rows, costs["macs"], costs["params"], strict=True):
        small = cut(model, structure, {unit: np.arange(count) for unit, count in zip(units, row, strict=True)})
        assert (counted_macs(small, image), counted_params(small)) == (macs, params)


@pytest.mark.parametrize("name", ["resnet20", pytest.param("resnet56", marks=pytest.mark.slow)])
def test_polynomials_equal_counting_on_a_hundred_smaller_networks(name):
    """At 8 x 8 pixels, so that the forward passes of the counter take no time."""
    model, image = getattr(zoo, name)(), torch.zeros(1, 3, 8, 8)
    structure = trace(model, image)
    compare(model, structure, image, candidates(structure, 100, seed=0))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_polynomials_equal_counting_on_a_hundred_smaller_networks_at_full_size(traced, name):
    model, structure = traced(name)
    compare(model, structure, IMAGE, candidates(structure, 100, seed=1))
