"""The recovery of a pruned network that no run has made."""

import copy

import pytest
import torch
from tiny import random_data

import autoprune
from autoprune.errors import ConfigError, DataError, PluginError

OPTIONS = autoprune.Recovery(steps=4, lr=0.05, evaluate=2)


@pytest.fixture
def small(model):
    network = copy.deepcopy(model)
    with torch.no_grad():
        network.conv1.weight[0] = 0.0
    return network


def test_the_best_network_is_returned_and_zeros_stay(model, small, trainable):
    seen = []
    outcome = autoprune.recover(small, model, trainable, OPTIONS, progress=seen.append)
    assert [point.step for point in outcome.history] == [0, 2, 4]
    assert seen[-1].done == 4
    with torch.no_grad():
        hits = sum((outcome.network(*b.inputs).argmax(1) == b.target).sum().item() for b in trainable.select)
    assert outcome.best.values["accuracy"] == pytest.approx(hits / 40)
    assert outcome.best.values["accuracy"] == max(point.values["accuracy"] for point in outcome.history)
    assert not outcome.network.conv1.weight[0].any()


def test_a_fitness_of_ones_own_needs_an_objective(model, small, trainable):
    given = {"fitness": lambda network, batches: {"own": 1.0}, "progress": False}
    with pytest.raises(ConfigError, match=r"the direction of own is not known, got none\. Pass objective="):
        autoprune.recover(small, model, trainable, OPTIONS, **given)
    found = autoprune.recover(small, model, trainable, OPTIONS, objective=autoprune.Objective("own", "max"), **given)
    assert found.best.step == 0


def test_wrong_arguments_are_sentences(model, small, trainable):
    with pytest.raises(
        ConfigError, match=r"network: expected a torch\.nn\.Module, got 1\noptions: expected a Recovery"
    ):
        autoprune.recover(1, model, trainable, {"steps": 1})
    with pytest.raises(DataError, match=r"expected an autoprune\.data\.Data"):
        autoprune.recover(small, model, [1], OPTIONS)
    with pytest.raises(ConfigError, match="expected data with a train set for the loss distillation"):
        autoprune.recover(small, model, random_data(0), OPTIONS, progress=False)


def test_a_training_function_of_ones_own_is_judged_as_any_other(model, small, trainable):
    def fit(network, dense, batches, options):
        assert network.training
        assert sum(batch.examples for batch in batches) == 64
        optimizer = torch.optim.SGD(network.parameters(), options.lr)
        for batch in batches * 8:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(*batch.inputs), batch.target).backward()
            optimizer.step()
        with torch.no_grad():
            network.conv1.weight += 1e-3

    before = copy.deepcopy(small.state_dict())
    measure = autoprune.Objective("moved", "max")  # any other weights are better

    def moved(network, batches):
        return {"moved": float(not torch.equal(network.linear.weight, before["linear.weight"]))}

    options = autoprune.Recovery(epochs=1, lr=0.1, train=fit)
    given = {"fitness": moved, "objective": measure, "progress": False}
    outcome = autoprune.recover(small, model, trainable, options, **given)
    assert [point.step for point in outcome.history] == [0, 1]
    assert outcome.best.step == 1
    assert not outcome.network.conv1.weight[0].any()
    assert all(torch.equal(before[name], tensor) for name, tensor in small.state_dict().items())
    worse = autoprune.recover(
        small, model, trainable, options, **{**given, "objective": autoprune.Objective("moved", "min")}
    )
    assert worse.best.step == 0
    assert torch.equal(worse.network.linear.weight, before["linear.weight"])
    other = autoprune.Recovery(steps=1, train=lambda network, dense, batches, options: 1)
    with pytest.raises(PluginError, match="or to return a network with the same tensors, got a int"):
        autoprune.recover(small, model, trainable, other, progress=False)
