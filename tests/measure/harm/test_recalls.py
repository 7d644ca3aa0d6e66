"""Recalls by class and their statistics, against arithmetic by hand, scipy and published intervals."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from autoprune.core.statistics import paired_difference, wilson
from autoprune.errors import DataError, UnsupportedModel
from autoprune.measure.batch import Batch
from autoprune.measure.harm.predictions import predictions
from autoprune.measure.harm.recalls import bootstrapped, by_class, intensification, tallied
from autoprune.measure.harm.summary import summary
from autoprune.measure.top_classes import TopClasses

TARGET = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
DENSE = torch.tensor([0, 0, 0, 1, 1, 1, 0, 0, 2, 2])  # recalls 3/4, 2/4, 2/2: accuracy 0.7
PRUNED = torch.tensor([0, 0, 1, 1, 1, 0, 0, 0, 2, 2])  # recalls 2/4, 1/4, 2/2: accuracy 0.5


def one_hot(classes, count=3):
    return torch.nn.functional.one_hot(classes, count).float()


class Answers(nn.Module):
    """Gives the scores that are its inputs."""

    def forward(self, x):
        return x


def compared(pruned=PRUNED, dense=DENSE, target=TARGET, group=None, count=3):
    batch = Batch((one_hot(pruned, count),), target, one_hot(dense, count), group)
    return predictions(Answers(), [batch])


def test_an_unpruned_network_harms_nobody():
    found = summary(compared(pruned=DENSE))
    assert found["intensification"] == pytest.approx(1)
    assert (found["agreement"], found["recall_drop"], found["flipped"], found["flips"]) == (1, 0, 0, [])
    assert all(dense == pruned for _, _, dense, pruned, *_ in found["classes"])


def test_recalls_and_agreement_are_counted():
    found = summary(compared())
    assert found["agreement"] == 0.8
    assert (found["agreement_low"], found["agreement_high"]) == wilson(0.8, 10)
    assert [row[:4] for row in found["classes"]] == [[0, 4, 0.75, 0.5], [1, 4, 0.5, 0.25], [2, 2, 1, 1]]
    assert (found["recall_drop"], found["recall_drop_class"]) == (0.25, 0)
    assert (found["recall_worst"], found["recall_worst_class"]) == (0.25, 1)
    assert (found["flipped"], sorted(found["flips"])) == (0.2, [2, 5])


def test_intensification_is_the_slope_of_the_balances():
    dense, pruned = np.array([0.75, 0.5, 1]) / 0.7 - 1, np.array([0.5, 0.25, 1]) / 0.5 - 1
    assert summary(compared())["intensification"] == pytest.approx((dense @ pruned) / (dense @ dense))


def test_a_class_that_is_never_predicted_loses_its_whole_recall():
    never = torch.where(PRUNED == 2, 0, DENSE)
    found = summary(compared(pruned=never))
    assert (found["recall_drop"], found["recall_drop_class"], found["recall_worst"]) == (1, 2, 0)


def test_flips_are_listed_by_their_loss():
    scores = one_hot(PRUNED)
    scores[5] *= 9  # the network is surer of this wrong answer
    found = summary(predictions(Answers(), [Batch((scores,), TARGET, one_hot(DENSE))]))
    assert found["flips"] == [5, 2]


def test_classes_without_examples_are_named_and_left_out():
    found = summary(compared(count=5))
    assert found["notes"] == ["Without examples, and thus left out: classes 3, 4."]
    assert found["intensification"] == pytest.approx(summary(compared())["intensification"])


def test_an_undefined_intensification_is_said():
    found = summary(compared(dense=TARGET))
    assert "intensification" not in found
    assert found["notes"][0].startswith("The intensification is undefined, as the dense network recalls all classes")


@pytest.mark.parametrize("target", [None, torch.rand(10), torch.full((10,), -100)], ids=["none", "numbers", "ignored"])
def test_without_labels_only_the_agreement_is_measured(target):
    found = summary(compared(target=target))
    assert {*found} == {"examples", "agreement", "agreement_low", "agreement_high", "notes"}
    assert found["notes"] == ["The examples have no labels that are classes, so recalls are not measured."]


def test_examples_without_a_label_are_left_out():
    target = TARGET.clone()
    target[0] = -100
    found = summary(compared(target=target))
    assert found["notes"] == ["1 examples without a label are left out of the recalls."]
    assert found["flipped"] == pytest.approx(2 / 9)


def test_groups_have_accuracies_of_their_own():
    group = torch.tensor([0, 0, 1, 1, 0, 1, 0, 0, 0, 0])
    found = summary(compared(group=group))
    assert [row[:4] for row in found["groups"]] == [
        [1, 3, pytest.approx(2 / 3), 0],
        [0, 7, *[pytest.approx(5 / 7)] * 2],
    ]


def test_the_bootstrap_agrees_with_scipy():
    random = np.random.default_rng(0)
    target = random.integers(0, 4, 400)
    dense, pruned = (np.where(random.random(400) < share, target, 9) for share in (0.5 + target / 10, 0.3 + target / 8))

    def slope(rows):
        rows = rows.astype(int)
        return float(
            intensification(tallied(target[rows], dense[rows] == target[rows], pruned[rows] == target[rows], 4))
        )

    expected = stats.bootstrap((np.arange(400),), slope, vectorized=False, n_resamples=1000, method="percentile", rng=1)
    table = tallied(target, dense == target, pruned == target, 4)
    low, high = expected.confidence_interval
    assert bootstrapped(table) == pytest.approx((low, high), abs=0.12 * (high - low))


def test_samples_in_parts_are_the_samples_at_once(monkeypatch):
    table = np.array([[[3, 1], [2, 9]], [[1, 4], [0, 20]]])
    whole = bootstrapped(table)
    monkeypatch.setattr("autoprune.measure.harm.recalls.MOST_CELLS", 90)
    assert bootstrapped(table) == whole


def test_the_likeliest_classes_of_many_are_enough():
    scores = one_hot(DENSE) + torch.tensor([0.1, 0.0, 0.2])
    batch = Batch((one_hot(PRUNED),), TARGET, TopClasses.of(scores, 2))
    assert summary(predictions(Answers(), [batch])) == summary(compared())


def test_paired_intervals_are_those_published():
    """Newcombe 1998, table II, and Altman et al., Statistics with Confidence, 2000, table 6.2."""
    assert paired_difference(36, 12, 2, 0) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    assert paired_difference(14, 5, 0, 22) == pytest.approx((0.011, 0.226), abs=5e-4)


def test_the_wilson_interval_agrees_with_scipy():
    expected = stats.binomtest(8, 10).proportion_ci(method="wilson")
    assert wilson(0.8, 10) == pytest.approx((expected.low, expected.high))


def test_classes_are_sorted_by_their_drop():
    table = np.array([[[0, 0], [0, 5]], [[1, 0], [4, 0]], [[0, 0], [0, 0]]])
    assert [one.number for one in by_class(table)] == [1, 0]
    assert math.isclose(by_class(table)[0].drop, 0.8)


def test_networks_without_class_scores_are_refused():
    with pytest.raises(UnsupportedModel, match=r"expected a network that returns \(b, classes\) scores.* got a tensor"):
        predictions(Answers(), [Batch((torch.rand(2, 3),), None, torch.rand(2, 3, 4))])
    with pytest.raises(DataError, match="expected at least one batch"):
        predictions(Answers(), [])
    with pytest.raises(DataError, match="expected batches with the dense network's outputs"):
        predictions(Answers(), [Batch((torch.rand(2, 3),))])
