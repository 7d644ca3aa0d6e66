"""Surgery alone: fractions, counts and positions of units, by name or for all."""

import copy

import numpy as np
import pytest
import torch

import autoprune
from autoprune.errors import SpaceError, VerifyError
from autoprune.zoo import resnet20


@pytest.fixture(scope="module")
def traced():
    model, x = resnet20(), torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return model, autoprune.find_structure(model, x), x


def widths(model):
    return model.conv1.out_channels, model.layer1[0].conv1.out_channels, model.layer3[2].conv1.out_channels


def test_a_fraction_for_all_is_rounded_up_for_each_unit(traced):
    model, structure, _ = traced
    assert widths(autoprune.shrink(model, structure, 0.5)) == (8, 8, 32)
    assert widths(autoprune.shrink(model, structure, 0.55)) == (9, 9, 36)
    assert widths(autoprune.shrink(model, structure, 1.0)) == (16, 16, 64)


def test_a_mapping_takes_counts_fractions_and_positions_and_leaves_the_rest_whole(traced):
    model, structure, x = traced
    kept = {"layer1.0.conv1": 10, "layer3.2.conv1": 0.25, "layer2.0.conv1": [5, 0, 3]}
    small = autoprune.shrink(model, structure, kept)
    assert widths(small) == (16, 10, 16)
    torch.testing.assert_close(small.layer2[0].conv1.weight, model.layer2[0].conv1.weight[[0, 3, 5]])
    assert autoprune.verify(model, small, structure, x).ok


def test_the_positions_with_the_largest_filters_stay(traced):
    model, structure, _ = traced
    small = autoprune.shrink(model, structure, {"layer1.0.conv1": 5})
    norms = model.layer1[0].conv1.weight.detach().flatten(1).norm(dim=1)
    bn = torch.stack([model.layer1[0].bn1.weight, model.layer1[0].bn1.bias]).detach()
    assert bn.std() == pytest.approx(0.5, abs=0.1)  # untrained: ones and zeros, so the filters decide
    largest = np.sort(norms.argsort(descending=True)[:5].numpy())
    torch.testing.assert_close(small.layer1[0].conv1.weight, model.layer1[0].conv1.weight[largest])


@pytest.mark.parametrize("amount", [0, -1, 17, 0.0, -0.5, 1.5, [16], [], [-1]])
def test_amounts_no_unit_can_keep_are_told(traced, amount):
    model, structure, _ = traced
    with pytest.raises(SpaceError, match=r"unit 'layer1.0.conv1' has"):
        autoprune.shrink(model, structure, {"layer1.0.conv1": amount})


def test_a_name_that_is_no_unit_is_told_with_those_that_are(traced):
    model, structure, _ = traced
    with pytest.raises(SpaceError, match=r"no unit is called 'layer9'; units are \['conv1', 'layer1.0.conv1'"):
        autoprune.shrink(model, structure, {"layer9": 0.5})


def test_verify_finds_a_network_that_computes_something_else(traced):
    model, structure, x = traced
    small = autoprune.shrink(model, structure, 0.5)
    assert 0 < autoprune.verify(model, small, structure, x).worst < 1e-4
    with torch.no_grad():
        small.layer1[0].conv2.weight.mul_(1.5)
    assert not autoprune.verify(model, small, structure, x).ok


def test_verify_needs_a_network_that_shrink_made_or_a_copy_of_one(traced):
    model, structure, x = traced
    assert autoprune.verify(model, copy.deepcopy(autoprune.shrink(model, structure, 0.5)), structure, x).ok
    with pytest.raises(VerifyError, match="expected a network made by shrink, got a ResNet that was not"):
        autoprune.verify(model, resnet20(), structure, x)
