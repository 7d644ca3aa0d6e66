"""The CIFAR ResNets: their published sizes, their shortcuts by hand, their randomness."""

import pytest
import torch
from torch import nn

from autoprune import zoo
from autoprune.zoo.resnet import Block

PARAMETERS = {
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
}


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameters_are_those_published(name, count):
    assert sum(p.numel() for p in getattr(zoo, name)().parameters()) == count


def macs(network, shape):
    """Counted as the network runs: every output value of a layer times the inputs it sums over."""
    total = 0

    def count(module, _, output):
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    network(torch.zeros(1, *shape))
    return total


@pytest.mark.parametrize(("name", "count"), [("resnet20", 40_551_040), ("resnet56", 125_485_696)])
def test_macs_are_those_published(name, count):
    assert macs(getattr(zoo, name)(), (3, 32, 32)) == count


def test_the_image_is_halved_twice_and_classes_are_chosen():
    network = zoo.resnet20(classes=7)
    x = torch.zeros(2, 3, 32, 32)
    stem = network.bn1(network.conv1(x))
    assert network.layer3(network.layer2(network.layer1(stem))).shape == (2, 64, 8, 8)
    assert network(x).shape == (2, 7)


def test_state_names_are_those_of_trained_weights_in_circulation():
    expected = {"conv1.weight", "linear.weight", "linear.bias"}
    norms = ["bn1", *(f"layer{s}.{b}.bn{i}" for s in (1, 2, 3) for b in (0, 1, 2) for i in (1, 2))]
    expected |= {f"{n}.{p}" for n in norms for p in ("weight", "bias", "running_mean", "running_var")}
    expected |= {f"layer{s}.{b}.conv{i}.weight" for s in (1, 2, 3) for b in (0, 1, 2) for i in (1, 2)}
    names = {name for name in zoo.resnet20().state_dict() if not name.endswith("num_batches_tracked")}
    assert names == expected


def test_a_widening_shortcut_takes_every_second_pixel_between_two_quarters_of_zeros():
    block = Block(2, 4, stride=2, projection=False).eval()
    nn.init.zeros_(block.bn2.weight)  # leaves the shortcut alone
    x = torch.arange(1.0, 33.0).reshape(1, 2, 4, 4)
    expected = torch.zeros(1, 4, 2, 2)
    expected[0, 1] = torch.tensor([[1.0, 3.0], [9.0, 11.0]])
    expected[0, 2] = torch.tensor([[17.0, 19.0], [25.0, 27.0]])
    assert torch.equal(block(x), expected)


@pytest.mark.parametrize("projection", [False, True])
def test_a_shortcut_that_changes_nothing_is_the_identity(projection):
    block = Block(3, 3, stride=1, projection=projection).eval()
    nn.init.zeros_(block.bn2.weight)
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(block(x), x)
    assert block.projection is None


def test_random_weights_come_from_the_seed_alone():
    torch.manual_seed(1)
    first = zoo.resnet20(seed=3).state_dict()
    torch.manual_seed(2)
    again, other = zoo.resnet20(seed=3).state_dict(), zoo.resnet20(seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    zoo.resnet20()
    assert torch.equal(torch.rand(3), expected)


def test_random_convolutions_have_the_variance_of_he_initialisation():
    weight = zoo.resnet110().layer3[0].conv2.weight  # 36,864 values, fan-in 576; 5 deviations of the estimate are 3.7 %
    assert weight.var().item() == pytest.approx(2 / 576, rel=0.037)


def test_networks_come_in_eval_mode():
    assert not any(module.training for module in zoo.resnet20().modules())
