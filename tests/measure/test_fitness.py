from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from autoprune.errors import DataError, PluginError
from autoprune.measure.batch import Batch
from autoprune.measure.fitness import classification
from autoprune.measure.scorer import checked_values, with_dense_outputs

LOGITS = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
TARGET = torch.tensor([0, 0, 0])


def batch(logits, target, dense):
    return Batch((logits,), target, dense)


def test_accuracy_is_the_share_of_largest_logits_that_are_the_targets():
    values = classification(nn.Identity(), [batch(LOGITS, TARGET, LOGITS)])
    assert values["accuracy"] == pytest.approx(2 / 3)
    assert values["kl"] == pytest.approx(0, abs=1e-7)


def test_batches_weigh_by_their_examples():
    batches = [batch(LOGITS[:1], TARGET[:1], LOGITS[:1]), batch(LOGITS[1:], TARGET[1:], LOGITS[1:])]
    assert classification(nn.Identity(), batches)["accuracy"] == pytest.approx(2 / 3)


def test_kl_is_from_the_dense_to_the_pruned_network_in_nats():
    p, q = (0.75, 0.25), (0.5, 0.5)
    logits, dense = torch.tensor([q]).log(), torch.tensor([p]).log() + 7.0  # a constant on all logits changes nothing
    values = classification(nn.Identity(), [batch(logits, torch.tensor([0]), dense)])
    expected = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert values["kl"] == pytest.approx(expected, rel=1e-5)
    back = classification(nn.Identity(), [batch(dense, torch.tensor([0]), logits)])
    assert back["kl"] == pytest.approx(sum(b * math.log(b / a) for a, b in zip(p, q, strict=True)), rel=1e-5)


def test_kl_is_the_mean_over_examples():
    dense = torch.zeros(3, 2)
    each = [classification(nn.Identity(), [batch(LOGITS[i : i + 1], TARGET[:1], dense[:1])])["kl"] for i in range(3)]
    assert classification(nn.Identity(), [batch(LOGITS, TARGET, dense)])["kl"] == pytest.approx(sum(each) / 3)


def test_what_is_missing_is_named():
    with pytest.raises(DataError, match="needs targets: give select and report batches labels"):
        classification(nn.Identity(), [batch(LOGITS, None, LOGITS)])
    with pytest.raises(DataError, match="batches with the dense network's outputs"):
        classification(nn.Identity(), [batch(LOGITS, TARGET, None)])
    with pytest.raises(DataError, match="needs at least one batch, got none"):
        classification(nn.Identity(), [])


def test_dense_outputs_are_filled_in_by_the_network_in_eval_mode():
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(2, 2)).train()
    (filled,) = with_dense_outputs(model, [Batch((LOGITS,), TARGET)])
    assert torch.equal(filled.dense, model[1](LOGITS))
    assert not filled.dense.requires_grad
    assert model.training


def test_a_batch_moves_with_everything_it_has():
    full, empty = Batch((LOGITS, LOGITS), TARGET, LOGITS, TARGET), Batch((LOGITS,))
    moved = full.placed(lambda x: x.to("meta"))
    assert {t.device.type for t in (*moved.inputs, moved.target, moved.dense, moved.group)} == {"meta"}
    assert empty.placed(lambda x: x.to("meta"))[1:] == (None, None, None)


def test_a_float_is_recorded_under_the_objective_and_a_dict_under_its_names():
    assert checked_values(0.5, "accuracy") == {"accuracy": 0.5}
    assert checked_values({"iou": torch.tensor(0.25), "dice": 1}, "accuracy") == {"iou": 0.25, "dice": 1.0}


@pytest.mark.parametrize(
    "wrong", [None, "0.5", b"1", [0.5], {"a": None}, {"a": "high"}, {"a": {"b": 1.0}}, torch.ones(2)]
)
def test_what_is_no_number_is_refused_and_quoted(wrong):
    with pytest.raises(PluginError, match="expected the fitness to return a float or a dict of floats, got"):
        checked_values(wrong, "accuracy")


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused_with_its_name(wrong):
    with pytest.raises(PluginError, match=f"expected a finite fitness, got iou = {wrong}"):
        checked_values({"dice": 0.5, "iou": wrong}, "accuracy")


def test_an_empty_dict_is_refused():
    with pytest.raises(PluginError, match="got an empty dict"):
        checked_values({}, "accuracy")
