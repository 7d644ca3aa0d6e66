"""Batches are halved where a device has too little memory: here a module refuses more than so many examples."""

import gc

import pytest
import torch
from torch import nn

from autoprune.core.levels import LevelRule, build_space
from autoprune.core.space import Candidate
from autoprune.errors import DeviceMemoryError
from autoprune.measure.batch import Batch
from autoprune.measure.batch_norms.recalibrate import recalibrate
from autoprune.measure.fitness import classification
from autoprune.measure.scorer import Scorer, with_dense_outputs
from autoprune.prune.bank.channels import make_bank
from autoprune.prune.compensation.compensate import compensate
from autoprune.prune.compensation.reference import make_reference
from autoprune.prune.criteria import CRITERIA
from autoprune.prune.devices.halving import halving, parts_of
from autoprune.prune.find import find_structure
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.moments.moments import collect_moments


class Narrow(nn.Module):
    """Passes its input on, of at most so many examples."""

    def __init__(self):
        super().__init__()
        self.most, self.sizes = 1000, []

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore of it.")
        return x


@pytest.fixture(autouse=True)
def quick_release(monkeypatch):
    """Collecting what failed attempts have left takes a while in a process with many objects."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


@pytest.fixture
def narrow(monkeypatch):
    """A limit that all copies of a network share."""
    one = Narrow()
    monkeypatch.setattr(Narrow, "__deepcopy__", lambda self, memo: self, raising=False)
    return one


@pytest.fixture
def model(narrow):
    torch.default_generator.manual_seed(0)
    first, second = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    return nn.Sequential(first, nn.ReLU(), narrow, second, nn.ReLU(), head).eval()


@pytest.fixture
def structure(model):
    return find_structure(model, torch.zeros(2, 2, 6, 6))


INPUTS = [(torch.randn(12, 2, 6, 6, generator=torch.Generator().manual_seed(1)),)]
LABELS = torch.arange(12) % 3


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_largest_batches_are_halved_until_they_fit():
    tried = []

    def attempt(batches):
        tried.append([len(x) for (x,) in batches])
        if max(tried[-1]) > 2:
            raise torch.OutOfMemoryError("none left")
        return torch.cat([x for (x,) in batches])

    rows = torch.arange(9)
    assert halving(attempt, [(rows[:7],), (rows[7:],)], stage="it").tolist() == rows.tolist()
    assert tried == [[7, 2], [4, 3, 2], [2, 2, 2, 1, 2]]


def test_only_tensors_with_an_entry_for_each_example_are_divided():
    batch = Batch(
        (torch.zeros(5, 2), torch.zeros(3)), torch.arange(5), {"logits": torch.ones(5), "scale": torch.ones(())}
    )
    parts = parts_of(batch, 3)
    assert [tuple(x.shape for x in part.inputs) for part in parts] == [((3, 2), (3,)), ((2, 2), (3,))]
    assert [part.target.tolist() for part in parts] == [[0, 1, 2], [3, 4]]
    assert [(len(part.dense["logits"]), part.dense["scale"].shape) for part in parts] == [(3, ()), (2, ())]


def test_one_example_that_is_too_large_is_an_error_that_says_what_to_change(model, structure, narrow):
    narrow.most = 0
    with pytest.raises(
        DeviceMemoryError,
        match=r"second moments: expected enough memory for batches of 1 examples on the device cpu, it ran out: "
        r"CUDA out of memory. Tried to allocate 20.00 MiB. Take a device with more memory, end other processes on it, "
        r"or set run.device: cpu.",
    ):
        collect_moments(model, structure, ["3.weight"], INPUTS)


def test_an_error_of_smaller_batches_names_both_causes():
    def attempt(batches):
        raise torch.OutOfMemoryError("none left") if len(batches) == 1 else ValueError("an unknown batch")

    with pytest.raises(DeviceMemoryError, match="it ran out: none left With smaller batches: ValueError: an unknown"):
        halving(attempt, [(torch.zeros(4),)], stage="a score")


def test_other_errors_are_raised_as_they_are():
    with pytest.raises(ZeroDivisionError):
        halving(lambda batches: 1 / 0, [(torch.zeros(4),)], stage="it")


def test_moments_of_halved_batches_are_those_of_whole_ones(model, structure, narrow):
    expected, _ = collect_moments(model, structure, ["3.weight"], INPUTS)
    narrow.most, narrow.sizes = 3, []
    found, _ = collect_moments(model, structure, ["3.weight"], INPUTS)
    assert narrow.sizes == [12, 6, 3, 3, 3, 3]
    close(found["3.weight"].gram, expected["3.weight"].gram)
    close(found["3.weight"].mean, expected["3.weight"].mean)


def test_dense_outputs_and_scores_of_halved_batches_are_those_of_whole_ones(model, structure, narrow):
    bank = make_bank(model, structure, ["0"], CRITERIA["obs"], INPUTS)
    space = build_space([structure.unit("0")], (LevelRule("*", (0.5,)),))
    whole = [Batch(INPUTS[0], LABELS)]

    def scored():
        scorer = Scorer(bank, space, INPUTS, with_dense_outputs(model, whole, classification), classification)
        return scorer.select[0].dense, scorer.score(Candidate((1,)))

    outputs, expected = scored()
    narrow.most, narrow.sizes = 5, []
    halved, found = scored()
    assert 12 in narrow.sizes
    close(halved, outputs)
    close(dict(found.values), dict(expected.values))


def test_fits_of_halved_chunks_are_those_of_whole_ones(model, structure, narrow):
    bank = make_bank(model, structure, ["0"], CRITERIA["obs"], INPUTS)
    subnet, reference = bank.subnet({"0": 4}), make_reference(model, structure, INPUTS)
    assert [len(x) for (x,) in reference.chunks] == [12]

    def fitted():
        network = bank.build(subnet)
        compensate(network, structure, reference, subnet.indices)
        return {name: tensor.detach() for name, tensor in named_tensors(network).items()}

    expected = fitted()
    narrow.most, narrow.sizes = 7, []
    found = fitted()
    assert {12, 6} <= set(narrow.sizes)
    close(found, expected)


def test_batches_that_norms_are_estimated_on_are_not_halved():
    narrow = Narrow()
    narrow.most = 3
    network = nn.Sequential(narrow, nn.BatchNorm2d(2)).eval()
    with pytest.raises(
        DeviceMemoryError, match="norms: .* of 12 examples .* Give smaller batches of calibration examples."
    ):
        recalibrate(network, INPUTS)
    assert not network.training
