"""The fitness by class, by group and on corrupted inputs, and the corruptions themselves."""

import functools

import pytest
import torch
from torch import nn

import autoprune.testing as testing
from autoprune.errors import DataError, PluginError
from autoprune.measure.batch import Batch
from autoprune.measure.fitness import averages, default_guide, fair_classification, is_builtin, kept_for, share_names
from autoprune.measure.harm.corruption import IMAGES, SEVERITIES, STRENGTHS, corrupted
from autoprune.measure.harm.fitness import accuracy

IMAGE = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()


@pytest.fixture(scope="module")
def batches(network):
    with torch.no_grad():
        target = network(IMAGE).argmax(dim=1)
        target[:8] = (target[:8] + 1) % 3
        return [Batch((x,), y, network(x)) for x, y in zip(IMAGE.split(15), target.split(15), strict=True)]


def measured(network, batches, *report):
    with torch.no_grad():
        return fair_classification(network, batches, report) if report else fair_classification(network, batches)


def test_the_dense_network_has_no_gap_and_agrees_with_itself(network, batches):
    found = measured(network, batches)
    assert found["accuracy"] == 32 / 40
    assert (found["group_gap"], found["agreement"], found["kl"]) == (0, 1, pytest.approx(0, abs=1e-6))


def test_the_worst_class_is_the_least_recall():
    scores = torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    batch = Batch((scores,), torch.tensor([0, 0, 1, 1, 1]), scores)
    assert measured(nn.Identity(), [batch], "worst_class") == {"worst_class": pytest.approx(1 / 3)}


def test_the_gap_of_groups_is_in_nats():
    """Both networks give equal scores to all classes, log 2, but the pruned one gives one example 3 nats more."""
    dense = torch.zeros(4, 2)
    scores = dense.clone()
    scores[0] = torch.tensor([-100.0, 0])  # its label has a loss of 100 nats
    batch = Batch((scores,), torch.tensor([0, 1, 0, 1]), dense, torch.tensor([1, 1, 0, 0]))
    expected = (100 - torch.log(torch.tensor(2.0)).item()) / 2  # the mean of the group with that example, the other: 0
    assert measured(nn.Identity(), [batch], "group_gap")["group_gap"] == pytest.approx(expected)


def test_groups_default_to_classes():
    scores = torch.tensor([[0.0, 0], [-4, 0]])
    batch = Batch((scores,), torch.tensor([1, 0]), torch.zeros(2, 2))
    loss = torch.nn.functional.cross_entropy(scores[1:], torch.tensor([0])) - torch.log(torch.tensor(2.0))
    assert measured(nn.Identity(), [batch], "group_gap")["group_gap"] == pytest.approx(loss.item())


@pytest.mark.parametrize("corruption", IMAGES)
def test_severity_0_changes_no_bit_and_larger_ones_change_more(corruption, network, batches):
    assert all(
        torch.equal(a.inputs[0], b.inputs[0]) for a, b in zip(corrupted(batches, corruption, 0), batches, strict=True)
    )
    with torch.no_grad():
        assert accuracy(network, corrupted(batches, corruption, 0)) == 32 / 40
    images = [torch.cat([b.inputs[0] for b in corrupted(batches, corruption, severity)]) for severity in SEVERITIES]
    change = [float((x - IMAGE).abs().mean()) for x in images]
    assert 0 < change[0] < change[1] < change[2]
    assert all(x.shape == IMAGE.shape for x in images)


def test_corruptions_depend_on_the_place_of_an_example_alone(batches):
    whole = [Batch((IMAGE,))]
    for corruption in IMAGES:
        divided, joined = (torch.cat([b.inputs[0] for b in corrupted(x, corruption, 2)]) for x in (batches, whole))
        torch.testing.assert_close(divided, joined, rtol=0, atol=1e-6)


def test_noise_is_in_deviations_of_the_data():
    x = 5 * torch.randn(50, 1, 16, 16, generator=torch.Generator().manual_seed(1)) + 3
    (batch,) = corrupted([Batch((x,))], "noise", 3)
    assert float((batch.inputs[0] - x).std()) == pytest.approx(5 * STRENGTHS["noise"][3], rel=0.02)


def test_tokens_are_hidden_by_the_mask_or_repeated():
    ids = torch.arange(200).reshape(4, 50)
    (masked,) = corrupted([Batch((ids, torch.ones_like(ids)))], "token_drop", 3)
    assert torch.equal(masked.inputs[0], ids)
    assert 0.7 < float(masked.inputs[1].float().mean()) < 0.9
    assert bool(masked.inputs[1][:, 0].all())
    (repeated,) = corrupted([Batch((ids,))], "token_drop", 3)
    gone = masked.inputs[1] == 0
    assert bool((repeated.inputs[0] < ids)[gone].all())
    assert torch.equal(repeated.inputs[0][~gone], ids[~gone])


def test_corrupted_accuracy_is_the_mean_over_corruptions_and_severities(network, batches):
    found = measured(network, batches, "corrupted_accuracy")["corrupted_accuracy"]
    with torch.no_grad():
        each = [accuracy(network, corrupted(batches, name, severity)) for name in IMAGES for severity in SEVERITIES]
    assert found == pytest.approx(sum(each) / 15)


def test_it_is_a_fitness_like_the_others(network, batches):
    assert is_builtin(fair_classification)
    assert not averages(fair_classification)
    assert default_guide(fair_classification) == "kl"
    assert share_names(fair_classification) == ("accuracy", "agreement", "corrupted_accuracy")
    testing.check_fitness(
        functools.partial(fair_classification, report=("worst_class", "corrupted_accuracy")), network, batches
    )


def test_examples_without_a_label_do_not_count():
    scores = torch.tensor([[1.0, 0], [0, 1], [0, 5]])
    batch = Batch((scores,), torch.tensor([0, 1, -100]), torch.zeros(3, 2))
    whole = Batch((scores[:2],), torch.tensor([0, 1]), torch.zeros(2, 2))
    names = ("worst_class", "group_gap")
    assert measured(nn.Identity(), [batch], *names) == measured(nn.Identity(), [whole], *names)
    with pytest.raises(DataError, match="worst_class and group_gap need labels, got none"):
        measured(nn.Identity(), [batch._replace(target=torch.full((3,), -1))], "worst_class")
    with pytest.raises(DataError, match=r"need one class for each example .* got targets of \(3, 2\) of float32"):
        measured(nn.Identity(), [batch._replace(target=torch.zeros(3, 2))], "group_gap")


def test_mistakes_are_named(network, batches):
    with pytest.raises(PluginError, match="can report accuracy, kl, .*corrupted_accuracy; got 'worst'"):
        measured(network, batches, "worst")
    with pytest.raises(DataError, match=r"expected images .* to corrupt, got inputs of \(2, 3\)"):
        measured(nn.Identity(), [Batch((torch.rand(2, 3),), torch.tensor([0, 1]))], "corrupted_accuracy")
    with pytest.raises(DataError, match="needs at least one batch"):
        measured(network, [])


def test_the_gap_needs_all_scores_of_the_dense_network():
    many = torch.rand(2, 9000)
    assert kept_for(fair_classification)(many) is many
