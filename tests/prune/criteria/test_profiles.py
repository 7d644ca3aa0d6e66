"""What closed-form rules read of units, against arithmetic on a network of two layers."""

from __future__ import annotations

import torch
from torch import nn

import autoprune
from autoprune.prune.criteria.profiles import OUTLIER, make_profiles
from autoprune.prune.moments.consumers import consumers_of
from autoprune.prune.moments.moments import collect_moments


def profile_of(x):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 12)).eval()
    with torch.no_grad():
        model[2].weight.fill_(0.01)
        model[2].weight[0, 0] = 100.0
    structure = autoprune.find_structure(model, x)
    moments, _ = collect_moments(model, structure, consumers_of(structure.units), [(x,)])
    return model, make_profiles(model, structure.units, moments)["0"]


def test_a_profile_has_norms_shape_variances_and_outliers():
    x = torch.randn(64, 3)
    model, profile = profile_of(x)
    hidden = model[1](model[0](x)).detach().double()
    torch.testing.assert_close(torch.from_numpy(profile.magnitudes), model[0].weight.detach().double().square().sum(1))
    assert profile.shape == (4, 3)
    torch.testing.assert_close(torch.from_numpy(profile.fluctuation), hidden.var(0, correction=0), rtol=1e-4, atol=1e-6)
    scores = model[2].weight.detach().abs().double() * hidden.square().mean(0).sqrt()
    assert profile.outlier_share == float((scores > OUTLIER * scores.mean()).double().mean()) == 1 / 48


def test_without_moments_a_profile_has_what_weights_say():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    structure = autoprune.find_structure(model, torch.randn(2, 3))
    profile = make_profiles(model, structure.units, {})["0"]
    assert profile.fluctuation is None
    assert profile.outlier_share is None
