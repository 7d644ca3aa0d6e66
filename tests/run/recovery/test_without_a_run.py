"""The recovery of a pruned network that no run has made."""

import copy

import pytest
import torch
from tiny import random_data

import autoprune
from autoprune.errors import ConfigError, DataError

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
