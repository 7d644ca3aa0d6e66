"""EagleEye's recipe by hand arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoprune.errors import DataError
from autoprune.measure.batch_norms.eagleeye import recalibrate_as_eagleeye


def norm():
    return nn.BatchNorm1d(1).eval()


def column(*values):
    return (torch.tensor(values)[:, None],)


def test_means_of_1_2_3_4_from_0_give_0_9049():
    module = norm()
    recalibrate_as_eagleeye(module, [column(m - 1.0, m + 1.0) for m in (1, 2, 3, 4)], steps=4)
    assert module.running_mean.item() == pytest.approx(0.9049)


def test_variances_of_1_2_3_4_from_1_give_1_561():
    module = norm()
    recalibrate_as_eagleeye(module, [column(-(v**0.5), 0.0, v**0.5) for v in (1, 2, 3, 4)], steps=4)
    assert module.running_var.item() == pytest.approx(1.5610)


@pytest.mark.parametrize(("steps", "left"), [(0, 1.0), (5, 0.59049), (20, 0.121577), (100, 2.656e-5), (102, 2.151e-5)])
def test_what_is_left_of_the_statistics_before(steps, left):
    module = norm()
    module.running_mean.fill_(1.0)
    recalibrate_as_eagleeye(module, [column(-1.0, 1.0)], steps=steps)  # of mean 0
    assert module.running_mean.item() == pytest.approx(left, rel=1e-3)


def test_102_batches_are_the_default_and_come_round_where_there_are_fewer():
    module = norm()
    recalibrate_as_eagleeye(module, [column(0.0, 2.0), column(4.0, 6.0), column(8.0, 10.0)])
    assert module.num_batches_tracked.item() == 102


def test_every_module_is_in_train_mode_and_comes_back():
    model = nn.Sequential(nn.Linear(1, 1), norm(), nn.Dropout(0.5)).eval()
    modes = []
    model[2].register_forward_hook(lambda module, *_: modes.append([m.training for m in model]))
    recalibrate_as_eagleeye(model, [column(0.0, 2.0)], steps=1)
    assert modes == [[True, True, True]]
    assert not any(module.training for module in model.modules())


def test_modes_come_back_after_an_exception():
    model = nn.Sequential(nn.Linear(2, 1)).eval()
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        recalibrate_as_eagleeye(model, [column(0.0)])
    assert not model[0].training


def test_no_batches_are_an_error():
    with pytest.raises(DataError, match="expected at least one batch to adapt batch norms on, got none"):
        recalibrate_as_eagleeye(norm(), [])
