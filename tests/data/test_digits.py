"""The embedded digits: pixels as scikit-learn has them, sets that never meet."""

import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from autoprune.data import digits, digits_train
from autoprune.errors import DataError


@pytest.fixture(scope="module")
def data():
    return digits()


def joined(batches):
    return torch.cat([batch.inputs[0] for batch in batches]).numpy()


@pytest.mark.parametrize(("name", "size"), [("calibrate", 200), ("select", 400), ("report", 400)])
def test_recorded_indices_lead_back_to_the_original_pixels_and_labels(data, name, size):
    originals, labels = load_digits(return_X_y=True)
    indices = data.description["indices"][name]
    pixels = (joined(getattr(data, name)) * 0.3760 + 0.3053) * 16
    assert pixels.shape == (size, 1, 8, 8)
    np.testing.assert_allclose(pixels.reshape(size, 64), originals[indices], atol=1e-4)
    if name != "calibrate":
        assert torch.cat([batch.target for batch in getattr(data, name)]).tolist() == labels[indices].tolist()


def test_the_four_parts_hold_each_of_the_1797_digits_once(data):
    rows = [row.tobytes() for part in (data.calibrate, data.select, data.report, data.train) for row in joined(part)]
    assert len(rows) == len(set(rows)) == 1797


def test_inputs_are_normalised(data):
    everything = np.concatenate([joined(part) for part in (data.calibrate, data.select, data.report, data.train)])
    assert abs(everything.mean()) < 1e-3
    assert abs(everything.std() - 1) < 1e-3


def test_training_digits_are_the_same_for_every_seed_and_the_rest_moves(data):
    other = digits(seed=1)
    np.testing.assert_array_equal(joined(data.train), joined(other.train))
    np.testing.assert_array_equal(joined(data.train), digits_train()[0].numpy())
    assert other.description["indices"] != data.description["indices"]


def test_the_same_seed_gives_the_same_sets(data):
    assert digits().description == data.description


def test_batch_size_cuts_the_same_examples_otherwise(data):
    small = digits(batch_size=64)
    assert len(small.select) == 7
    assert small.description["sets"]["select"]["sha256"] == data.description["sets"]["select"]["sha256"]


def test_every_class_is_in_every_set(data):
    for part in (data.select, data.report, data.train):
        assert set(torch.cat([batch.target for batch in part]).tolist()) == set(range(10))


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"expected scikit-learn.*pip install 'autoprune\[digits\]'"):
        digits()


@pytest.mark.parametrize(("wrong", "message"), [({"seed": -1}, "seed .* got -1"), ({"batch_size": 0}, "got 0")])
def test_wrong_arguments_are_refused(wrong, message):
    with pytest.raises(DataError, match=message):
        digits(**wrong)
