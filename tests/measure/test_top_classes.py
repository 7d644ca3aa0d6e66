"""Dense outputs of many classes: the most likely ones and the rest, by hand."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from autoprune.errors import DataError
from autoprune.measure import top_classes
from autoprune.measure.batch import Batch, gathered, rebatched
from autoprune.measure.fitness import classification, reconstruction
from autoprune.measure.scorer import with_dense_outputs
from autoprune.measure.top_classes import LARGEST_WHOLE, MOST_LIKELY, TopClasses, number_of_classes


def logits_of(*probabilities):
    return torch.tensor([probabilities]).log()


def test_the_kept_classes_and_the_rest_by_hand():
    kept = TopClasses.of(logits_of(0.5, 0.1, 0.3, 0.1), count=2)
    assert kept.indices.tolist() == [[0, 2]]
    assert kept.log_p.exp()[0].tolist() == pytest.approx([0.5, 0.3])
    assert kept.log_rest.exp().item() == pytest.approx(0.2)
    q = logits_of(0.25, 0.25, 0.3, 0.2)
    expected = 0.5 * math.log(0.5 / 0.25) + 0.3 * math.log(0.3 / 0.3) + 0.2 * math.log(0.2 / 0.45)
    assert kept.divergence(q).item() == pytest.approx(expected, rel=1e-5)


def test_equal_logits_differ_by_nothing_and_a_shift_changes_nothing():
    p = torch.randn(3, 5, 40, generator=torch.Generator().manual_seed(0))
    kept = TopClasses.of(p, count=7)
    assert kept.indices.shape == (3, 5, 7)
    assert kept.divergence(p).abs().max() < 1e-6
    assert kept.divergence(p + 3).abs().max() < 1e-5


def test_it_is_a_lower_bound_that_more_classes_raise_to_the_whole():
    generator = torch.Generator().manual_seed(0)
    p = 3 * torch.randn(64, 200, generator=generator)
    q = p + torch.randn(64, 200, generator=generator)
    whole = functional.kl_div(q.log_softmax(1), p.log_softmax(1), reduction="none", log_target=True).sum(1)
    found = [TopClasses.of(p, count).divergence(q) for count in (1, 10, 100, 199)]
    assert all((a <= b + 1e-5).all() for a, b in zip(found, [*found[1:], whole], strict=True))
    assert torch.allclose(TopClasses.of(p, 200).divergence(q), whole, atol=1e-5)


def test_classes_that_cannot_occur_add_nothing():
    kept = TopClasses.of(torch.tensor([[0.0, 0.0, -math.inf, -math.inf]]), count=3)
    assert kept.log_rest.item() == -math.inf
    assert kept.divergence(logits_of(0.25, 0.25, 0.25, 0.25)).item() == pytest.approx(math.log(2))


def test_few_classes_are_kept_whole_to_the_bit_and_many_as_the_most_likely():
    torch.manual_seed(0)
    for classes, whole in ((LARGEST_WHOLE, True), (LARGEST_WHOLE + 1, False)):
        model, x = nn.Linear(3, classes), torch.randn(4, 3)
        (filled,) = with_dense_outputs(model, [Batch((x,))], classification)
        assert number_of_classes(filled.dense) == classes
        assert isinstance(filled.dense, torch.Tensor) == whole
        if whole:
            assert torch.equal(filled.dense, model(x))
        else:
            assert filled.dense.indices.shape == (4, MOST_LIKELY)
            assert sum(x.nbytes for x in filled.dense[:3]) < 8.1 * 4 * MOST_LIKELY


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(top_classes, "LARGEST_WHOLE", 4)
    monkeypatch.setattr(top_classes.TopClasses.of.__func__, "__defaults__", (2,))


def test_the_fitness_is_the_mean_over_examples(few):
    p, q = logits_of(0.5, 0.1, 0.2, 0.1, 0.1), logits_of(0.2, 0.2, 0.2, 0.2, 0.2)
    batches = with_dense_outputs(nn.Identity(), [Batch((torch.cat([p, q]),), torch.tensor([0, 1]))], classification)
    assert isinstance(batches[0].dense, TopClasses)
    measured = classification(lambda x: torch.cat([q, q]), batches)
    by_hand = 0.5 * math.log(0.5 / 0.2) + 0.2 * math.log(0.2 / 0.2) + 0.3 * math.log(0.3 / 0.6)
    assert measured == {"accuracy": 0.5, "kl": pytest.approx(by_hand / 2, rel=1e-5)}


def test_batches_are_joined_and_divided_with_what_is_kept(few):
    x = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    batches = with_dense_outputs(nn.Identity(), [Batch((x[:4],)), Batch((x[4:],))], classification)
    whole = TopClasses.of(x)
    for joined in (gathered(batches), gathered(rebatched(batches, 3))):
        assert all(torch.equal(a, b) for a, b in zip(joined.dense[:3], whole[:3], strict=True))
        assert joined.dense.classes == 9


@pytest.mark.parametrize(
    "fitness",
    [reconstruction, functools.partial(classification, report=("kl", "mse")), lambda model, batches: 0.0, None],
)
def test_other_measures_get_whole_outputs(few, fitness):
    x = torch.randn(2, 9)
    (filled,) = with_dense_outputs(nn.Identity(), [Batch((x,))], fitness)
    assert torch.equal(filled.dense, x)


def test_whole_outputs_are_asked_for_where_the_most_likely_classes_do_not_suffice(few):
    batches = with_dense_outputs(nn.Identity(), [Batch((torch.randn(2, 9),))], classification)
    with pytest.raises(DataError, match="whole outputs"):
        classification(nn.Identity(), batches, report=("mse",))
