"""The dense network is measured first: its values are told, and what looks broken is warned of."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.api import search as search_in_python
from autoprune.core.levels import LevelRule
from autoprune.core.objective import Objective
from autoprune.data import Data
from autoprune.errors import RunFailed
from autoprune.measure.fitness import averaging
from autoprune.run import search


class Linear(nn.Module):
    """A network whose logits say which of four inputs is the largest."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 4)
        with torch.no_grad():
            for layer in (self.first, self.last):
                layer.bias.zero_()
            self.first.weight.copy_(torch.cat([torch.eye(4), -torch.eye(4)]))
            self.last.weight.copy_(torch.cat([torch.eye(4), -torch.eye(4)], dim=1))

    def forward(self, x):
        return self.last(self.first(x).relu())


def data_with(labels):
    """Three sets whose labels follow from the inputs by a function of them and of a generator."""
    rng = np.random.default_rng(0)

    def labelled(n):
        x = rng.standard_normal((n, 4)).astype(np.float32)
        return x, labels(x, rng)

    return Data.from_arrays(labelled(40)[:1], labelled(400), labelled(40))


def right(x, rng):
    return x.argmax(1)


def guessed(x, rng):
    return rng.integers(0, 4, len(x))


def mostly_zero(x, rng):
    return np.where(rng.random(len(x)) < 0.6, 0, (x.argmax(1) + (rng.random(len(x)) < 0.1)) % 4)


@pytest.fixture
def warned(caplog, job):
    def run(labels, **changes):
        data = data_with(labels)
        caplog.set_level(logging.WARNING)
        search(job("uniform", 3, model=Linear, data=lambda: data, tune="off", **changes), None)
        return [r.getMessage() for r in caplog.records if r.name == "autoprune.run.session.dense"]

    return run


def test_what_the_dense_network_measures_is_told_before_statistics_and_search(job):
    steps, data = [], data_with(right)
    search(job("uniform", 3, model=Linear, data=lambda: data), None, steps.append)
    phases = [step.phase for step in steps]
    assert phases.index("dense") < phases.index("statistics") < phases.index("search")
    said = next(step.message for step in steps if step.phase == "dense" and step.done)
    assert said == "accuracy 1, kl 0 on 400 selection examples"


def test_nothing_is_warned_of_where_all_is_well(warned):
    assert warned(right, expected={"accuracy": 0.999, "macs": 64}) == []


def test_an_accuracy_that_guessing_would_have_is_warned_of(warned):
    (said,) = warned(guessed)
    assert "no better than guessing among 4 classes" in said


def test_an_accuracy_below_that_of_one_answer_for_all_is_warned_of(warned):
    (said,) = warned(mostly_zero)
    assert "always answering the most frequent class would give 0." in said


@pytest.mark.parametrize("expected", [{"accuracy": 0.917}, {"kl": 0.5}, {"macs": 640}])
def test_a_value_far_from_the_expected_one_is_warned_of(warned, expected):
    (said,) = warned(right, expected=expected)
    (name,) = expected
    assert said.startswith(f"expected {name} {expected[name]:.4g} of the dense network, it has ")


def test_expected_values_can_be_given_in_python(caplog):
    rules = (LevelRule("*", (0.5,)),)
    caplog.set_level(logging.WARNING)
    search_in_python(
        Linear(), data_with(right), rules=rules, searcher="uniform", evaluations=3, expected={"accuracy": 0.5}
    )
    assert any(
        "expected accuracy 0.5 of the dense network, it has 1 on the 400" in r.getMessage() for r in caplog.records
    )


def test_a_number_of_a_fitness_of_the_users_own_is_no_accuracy_to_judge(warned):
    def fitness(model, batches):
        return {"mean_ap": 0.01}

    assert warned(right, fitness=fitness, guide=None, objectives=(Objective("mean_ap", "max"),)) == []


@averaging
def named(model, batches):
    return {"top1": 0.5, "loss": 1.0}


@pytest.mark.parametrize(
    "changes",
    [
        {"objectives": (Objective("top", "max"), Objective("macs", "min"))},
        {"objectives": (Objective("top1", "max"), Objective("mac", "min"))},
        {"objectives": (Objective("top1", "max"),), "expected": {"topp1": 0.5}},
        {"objectives": (Objective("top1", "max"),), "guide": "los"},
    ],
)
def test_a_name_that_a_fitness_of_the_users_own_does_not_report_is_found_before_statistics(job, changes):
    phases = []
    with pytest.raises(RunFailed, match=r"expected the fitness to report .* \(did you mean"):
        search(job(fitness=named, **{"guide": None, **changes}), None, lambda step: phases.append(step.phase))
    assert "statistics" not in phases
