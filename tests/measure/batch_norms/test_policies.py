"""What each policy for batch norms says of itself, and that every name of the settings has one."""

import typing

import pytest
import torch
from torch import nn

from autoprune.measure.batch_norms.contract import PolicyName
from autoprune.measure.batch_norms.policies import POLICIES
from autoprune.prune.modules.copies import copy_model


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1)).eval()


def test_every_name_has_a_policy():
    assert set(POLICIES) == set(typing.get_args(PolicyName))


@pytest.mark.parametrize(
    ("name", "deployed"),
    [("anchored", "anchored"), ("reestimated", "reestimated"), ("eagleeye", "anchored"), ("batch", "anchored")],
)
def test_networks_are_deployed_with_statistics_that_stay_in_them(name, deployed):
    assert POLICIES[name].deployed() is POLICIES[deployed]


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_keeps_the_dense_network_and_settles_another_one_inside_its_context(name):
    dense, inputs = network(), (torch.randn(8, 2, 6, 6) + 1,)
    policy = POLICIES[name](dense, [inputs], {"a": inputs})
    policy.prepare()
    before, pruned = dense[1].running_mean.clone(), copy_model(dense)
    nn.init.zeros_(pruned[0].weight)
    unsettled = pruned(*inputs)
    with policy.settled(pruned, {}):
        assert not torch.equal(pruned(*inputs), unsettled)
    assert torch.equal(dense[1].running_mean, before)


@pytest.mark.parametrize("name", ["anchored", "reestimated"])
def test_norms_before_which_nothing_was_pruned_are_as_in_the_dense_network(name):
    dense, inputs = network(), (torch.randn(8, 2, 6, 6) + 1,)
    policy, pruned = POLICIES[name](dense, [inputs]), copy_model(dense)
    policy.settle(pruned, {}, intact=["1"])
    expected = dense[1].running_mean if name == "anchored" else dense[0](*inputs).mean((0, 2, 3))
    torch.testing.assert_close(pruned[1].running_mean, expected)
