"""Anchored statistics of the batch at hand: by hand, at their fixed point, and for what is not known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.errors import PluginError
from autoprune.measure.batch_norms.batch import BatchAnchor, batch_moments
from autoprune.measure.following import Followed
from autoprune.prune.modules.borrowed import evaluating
from autoprune.prune.modules.copies import copy_model


def network():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3))
    for norm in (model[1], model[4]):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.fixture
def batches():
    return {key: (torch.randn(8, 2, 6, 6) * 2 + 1,) for key in ("first", "second")}


@pytest.mark.parametrize("shape", [(10, 4), (10, 4, 7), (6, 4, 5, 5), (6, 4, 3, 3, 3)])
def test_moments_of_a_batch_are_the_mean_and_unbiased_variance_of_a_channel(shape):
    x = torch.randn(shape) * 3 + 1
    channels = x.movedim(1, 0).flatten(1)
    moments = batch_moments(x)
    torch.testing.assert_close(moments.mean, channels.mean(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(moments.variance, channels.var(1), atol=1e-4, rtol=1e-5)


def test_moments_are_those_of_the_first_examples_where_there_are_many():
    x = torch.randn(40, 3, 64, 64)
    assert torch.equal(batch_moments(x).mean, batch_moments(x[:8]).mean)  # 8 * 64 * 64 = 2^15
    assert not torch.equal(batch_moments(x).mean, batch_moments(x[:7]).mean)
    large = torch.randn(3, 1, 512, 512)
    assert torch.equal(batch_moments(large).variance, batch_moments(large[:2]).variance)


def test_moments_of_bfloat16_are_float32():
    x = (torch.randn(50, 4, 5, 5) * 3 + 1).bfloat16()
    channels = x.float().movedim(1, 0).flatten(1)
    assert batch_moments(x).mean.dtype == torch.float32
    torch.testing.assert_close(batch_moments(x).mean, channels.mean(1), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_network_that_lost_nothing_computes_what_the_dense_one_computes(batches):
    model, followed = network(), Followed(batches)
    anchor, copy = BatchAnchor.of(model, batches), copy_model(model)
    for inputs in batches.values():
        with followed.following(copy), anchor.applied(copy, {}, followed):
            got = copy(*inputs)
        torch.testing.assert_close(got, model(*inputs), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_correction_by_hand_for_kept_channels():
    dense = nn.Sequential(nn.BatchNorm1d(3)).eval()
    dense[0].running_mean.copy_(torch.tensor([1.0, 5.0, 9.0]))
    dense[0].running_var.copy_(torch.tensor([4.0, 4.0, 4.0]))
    seen = torch.tensor([[0.0, 0, 0], [4.0, 4, 4]])  # mean 2, variance 8 in each channel
    batch = torch.tensor([[2.0, 0.0], [6.0, 8.0]])  # of a pruned network: means 4 and 4, variances 8 and 32
    anchor = BatchAnchor.of(dense, {"b": (seen,)})
    small, followed = nn.Sequential(nn.BatchNorm1d(2)).eval(), Followed({"b": (batch,)})
    with followed.following(small), anchor.applied(small, {"0.running_mean": {0: np.array([0, 2])}}, followed):
        got = small(batch)
    mean = torch.tensor([4 + (1 - 2.0) * 1, 4 + (9 - 2.0) * 2])  # spread once and twice as far as in the dense network
    variance = torch.tensor([8.0 * 4 / 8, 32.0 * 4 / 8])
    torch.testing.assert_close(got, (batch - mean) / variance.sqrt(), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_norms_named_intact_keep_their_own_statistics(batches):
    model, followed = network(), Followed(batches)
    anchor, copy = BatchAnchor.of(model, batches), copy_model(model)
    copy[0].weight.zero_()
    with followed.following(copy), anchor.applied(copy, {}, followed, intact=["1", "4"]):
        assert torch.equal(copy(*batches["first"]), copy_model(copy)(*batches["first"]))


@torch.no_grad()
def test_a_norm_that_runs_twice_has_statistics_of_each_call():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(2)

        def forward(self, x):
            return self.norm(self.norm(x) * 3 + 1)

    model, batches = Twice().eval(), {"b": (torch.randn(20, 2) + 2,)}
    followed, copy = Followed(batches), copy_model(model)
    with followed.following(copy), BatchAnchor.of(model, batches).applied(copy, {}, followed):
        torch.testing.assert_close(copy(*batches["b"]), model(*batches["b"]), atol=1e-5, rtol=1e-5)


def test_inputs_that_are_not_those_of_a_batch_are_refused(batches):
    model, followed = network(), Followed(batches)
    anchor, copy = BatchAnchor.of(model, batches), copy_model(model)
    with (
        followed.following(copy),
        anchor.applied(copy, {}, followed),
        pytest.raises(PluginError, match="expected the fitness to pass the inputs of its batches on"),
    ):
        copy(batches["first"][0].clone())


@torch.no_grad()
def test_afterwards_a_network_is_as_it_was(batches):
    model, followed = network(), Followed(batches)
    anchor, copy = BatchAnchor.of(model, batches), copy_model(model)
    before = copy(*batches["first"])
    with followed.following(copy), anchor.applied(copy, {}, followed), evaluating(copy):
        pass
    assert torch.equal(copy(*batches["first"]), before)
    assert followed.current is None
    assert not copy._forward_hooks
    assert not copy._forward_pre_hooks
