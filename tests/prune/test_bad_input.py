"""What cannot be measured, computed or represented is handled in a stated way: never NaN, never in silence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import images
from torch import nn

from autoprune.errors import UnsupportedModel
from autoprune.prune.bank.channels import make_bank
from autoprune.prune.criteria import CRITERIA
from autoprune.prune.find import find_structure
from autoprune.prune.structure.trace import trace
from autoprune.prune.surgery.verify import verify_positions
from autoprune.zoo.resnet import ResNet


def small_resnet():
    torch.manual_seed(0)
    return ResNet((1, 1, 1), (4, 8, 16), classes=4).eval()


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 2), nn.Flatten())


def bank_of(model, batches, criterion="obs"):
    structure = trace(model, batches[0])
    return make_bank(model, structure, [unit.name for unit in structure.units], CRITERIA[criterion], batches)


def builds(bank):
    """Networks at half of every unit, and at the least."""
    for share in (0.5, 0.01):
        counts = {unit.name: unit.allowed(round(share * unit.width)) for unit in bank.structure.units}
        yield bank.build(bank.subnet(counts))


def finite(model):
    return all(bool(torch.isfinite(p).all()) for p in model.parameters())


@pytest.mark.parametrize("criterion", sorted(CRITERIA))
def test_a_single_image_is_enough_for_every_criterion_and_noted_where_it_is_too_few(criterion):
    bank = bank_of(small_resnet(), [(torch.randn(1, 3, 8, 8),)], criterion)
    assert all(finite(small) for small in builds(bank))
    assert bank.notes["linear.weight"].startswith("1 rows for 16 columns: the ridge decides")


@pytest.mark.parametrize("criterion", sorted(CRITERIA.keys() - {"bn_scale"}))
def test_dead_layers_and_inputs_are_noted_and_give_finite_weights(criterion):
    model = layers()
    with torch.no_grad():
        model[0].weight[1:3] = 0.0
        model[0].bias[1:3] = -1.0  # a ReLU follows: never on
        model[2].weight.zero_()
    bank = bank_of(model, [(images(24),)], criterion)
    assert all(finite(small) for small in builds(bank))
    assert bank.notes["2.weight"] == "18 of its columns never vary; it is all zero"


def test_a_constant_input_moves_into_the_bias():
    model = layers()
    with torch.no_grad():
        model[0].weight[2] = 0.0
        model[0].bias[2] = 3.0
    bank = bank_of(model, [(images(24),)], "activation_variance")
    small = bank.build(bank.subnet({"0": 5}))
    assert bank.subnet({"0": 5}).positions["0"].tolist() == [0, 1, 3, 4, 5]
    assert torch.allclose(small(images()), model(images()), atol=1e-4)


@pytest.mark.parametrize("spread", [0.0, 1e-7])
def test_twins_give_one_network_that_repeats_the_dense_one(spread):
    """A second moment that is singular, or nearly so: the copies differ by less than float32 resolves."""
    model = layers()
    with torch.no_grad():
        model[0].weight[1] = model[0].weight[0] * (1 + spread)
        model[0].bias[1] = model[0].bias[0]
    bank = bank_of(model, [(images(80),)])
    bank.orders["0"] = np.array([0, 2, 3, 4, 5, 1])
    small = bank.build(bank.subnet({"0": 5}))
    assert finite(small)
    assert torch.allclose(small(images()), model(images()), atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_in_half_precision_keeps_its_units_and_is_proved_on_a_copy_in_single(dtype):
    model, low = small_resnet(), small_resnet().to(dtype)
    x = torch.randn(8, 3, 8, 8)
    structure = find_structure(low, (x[:1].to(dtype),))
    assert structure.units == find_structure(model, (x[:1],)).units
    bank = make_bank(low, structure, [unit.name for unit in structure.units], CRITERIA["obs"], [(x.to(dtype),)])
    counts = {unit.name: unit.allowed(unit.width // 2) for unit in structure.units if not unit.is_branch}
    small = bank.build(bank.subnet(counts))
    assert {p.dtype for p in small.parameters()} == {dtype}
    weights = dict(small.named_parameters()) | dict(small.named_buffers())
    report = verify_positions(low, small, structure, bank.subnet(counts).positions, (x[:1].to(dtype),), weights)
    assert report.ok


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_weights_of_a_half_precision_network_are_those_of_its_single_precision_copy_rounded(dtype):
    low, x = layers().to(dtype), images(16)
    first, second = bank_of(low, [(x.to(dtype),)], "l2"), bank_of(low.float(), [(x.to(dtype).float(),)], "l2")
    a, b = (bank.build(bank.subnet({"0": 3}))[2].weight.detach().float() for bank in (first, second))
    # what flows in was rounded too, to the precision of the type
    assert float((a - b).norm() / b.norm()) < 8 * torch.finfo(dtype).eps


def test_a_solution_beyond_the_range_of_its_type_falls_back_to_slices_with_a_note():
    model = layers()
    with torch.no_grad():
        model[0].weight[0] *= 1e-4  # what stays is tiny, and must be magnified beyond 65504
        model[0].bias[0] *= 1e-4
        model[2].weight *= 1e5 / model[2].weight.abs().max() * 0.6
    low = model.half()
    bank = bank_of(low, [(images(80).half(),)])
    bank.orders["0"] = np.arange(6)
    small = bank.build(bank.subnet({"0": 1}))
    assert torch.equal(small[2].weight, low[2].weight[:, :1])
    assert bank.notes["2.weight"] == "keeps slices of its weights where least squares exceed the range of torch.float16"


def test_weights_that_are_not_finite_are_an_error_before_anything():
    model = small_resnet()
    with torch.no_grad():
        model.linear.weight[1, 2] = float("nan")
    with pytest.raises(
        UnsupportedModel, match="expected finite weights, got NaN or infinity in 1 of the 64 of linear.weight"
    ):
        find_structure(model, torch.randn(1, 3, 8, 8))
