"""Anchored batch norms: what lost nothing keeps its statistics, and shared noise cancels."""

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.measure.batch_norms.recalibrate import recalibrate
from autoprune.measure.batch_norms.two_pass import Anchored
from autoprune.prune.modules.copies import copy_model


def network():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3))
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model.eval()


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 2, 6, 6, generator=generator),) for _ in range(3)]


def test_a_network_that_lost_nothing_gets_its_own_statistics_back(batches):
    model = network()
    copy = copy_model(model)
    anchor = Anchored(model, batches)
    recalibrate(copy, batches)
    anchor.correct(copy, {})
    for (name, own), (_, back) in zip(model.named_buffers(), copy.named_buffers(), strict=True):
        if "running" in name:
            torch.testing.assert_close(back, own)


def test_the_correction_by_hand_for_kept_channels(batches):
    model = network()
    anchor = Anchored(model, batches)
    pruned = nn.Sequential(nn.Identity(), nn.BatchNorm2d(2)).eval()
    pruned[1].running_mean.copy_(torch.tensor([1.0, 2.0]))
    pruned[1].running_var.copy_(torch.tensor([3.0, 4.0]))
    anchor.correct(pruned, {"1.running_mean": {0: np.array([0, 3])}})
    own, estimated = anchor.own["1"], anchor.estimated["1"]
    for place, channel in enumerate((0, 3)):
        spread = ((place + 3.0 + 1e-5) / (estimated.variance[channel] + 1e-5)).sqrt()
        mean = place + 1.0 + (own.mean[channel] - estimated.mean[channel]) * spread
        ratio = (own.variance[channel] + 1e-5) / (estimated.variance[channel] + 1e-5)
        torch.testing.assert_close(pruned[1].running_mean[place], mean)
        torch.testing.assert_close(pruned[1].running_var[place], (place + 3.0) * ratio)


def test_a_channel_that_never_varies_stays_finite_and_positive():
    model = network()
    with torch.no_grad():
        model[0].weight.zero_()
        model[1].running_var.zero_()
    still = [(torch.zeros(4, 2, 6, 6),)]
    copy = copy_model(model)
    anchor = Anchored(model, still)
    recalibrate(copy, still)
    anchor.correct(copy, {})
    assert torch.isfinite(copy[1].running_var).all()
    assert (copy[1].running_var >= 0).all()


def test_a_channel_that_no_longer_varies_is_normalised_to_a_constant(batches):
    model = network()
    anchor = Anchored(model, batches)
    pruned = copy_model(model)
    with torch.no_grad():
        pruned[0].weight.zero_()
    recalibrate(pruned, batches)
    anchor.correct(pruned, {})
    out = pruned[1](pruned[0](batches[0][0]))
    # within one standard deviation of the constant, as the correction of a channel that varies is within one of its own
    assert (out - model[1].bias[:, None, None]).abs().max() < model[1].weight.abs().max()


def test_the_dense_model_is_not_touched(batches):
    model = network()
    before = [tensor.clone() for tensor in model.state_dict().values()]
    Anchored(model, batches).prepare()
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
