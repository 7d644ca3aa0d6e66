"""The ridge of a fit against the best one in hindsight."""

from __future__ import annotations

import math

import pytest
import torch

from autoprune.prune.compensation import choice
from autoprune.prune.compensation.choice import RIDGES, Sample
from autoprune.prune.moments.rectifier import RELU
from autoprune.prune.moments.regression import Regression


def sample_of(rows, columns, *, noise, seed=0):
    """Rows with a linear target and noise; every fifth is held out."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, rows, columns, generator=generator)
    weight = torch.randn(1, 3, columns, generator=generator) / columns**0.5
    goal = x @ weight.transpose(1, 2) + noise * torch.randn(1, rows, 3, generator=generator)
    return Sample(x, goal, torch.arange(rows) % 5 == 4), weight


def choose_ridge(sample, prior, *, constant=False, stays=None, rectifier=None):
    regression = Regression(sample.rows, prior, constant=constant, stays=stays)
    return choice.choose_ridge(regression, sample, rectifier)


def error_of(sample, ridge, prior, *, constant):
    """The held-out error of the product's float64 regression with one ridge."""
    fitted = ~sample.held
    regression = Regression(sample.rows[:, fitted], prior, constant=constant, ridge=ridge)
    weight, bias = regression.solve(sample.goal[:, fitted])
    outputs = sample.rows[:, sample.held].double() @ weight.transpose(1, 2) + bias[:, None]
    return float((outputs - sample.goal[:, sample.held]).square().mean())


@pytest.mark.parametrize(("rows", "columns", "noise"), [(400, 10, 0.1), (60, 50, 1.0), (30, 50, 0.5), (200, 50, 0.0)])
@pytest.mark.parametrize("constant", [False, True])
def test_the_chosen_ridge_is_the_best_on_held_out_rows(rows, columns, noise, constant):
    sample, _ = sample_of(rows, columns, noise=noise)
    prior = torch.zeros(1, 3, columns)
    errors = {ridge: error_of(sample, ridge, prior, constant=constant) for ridge in (*RIDGES, math.inf)}
    chosen = choose_ridge(sample, prior, constant=constant)
    assert errors[chosen.ridge] == pytest.approx(min(errors.values()), rel=1e-3)
    variance = float(sample.goal[:, sample.held].var(dim=1, correction=0).mean())
    assert chosen.unexplained == pytest.approx(errors[chosen.ridge] / variance, rel=1e-2, abs=1e-5)


def test_more_noise_asks_for_more_ridge():
    prior = torch.zeros(1, 3, 50)
    ridges = [choose_ridge(sample_of(60, 50, noise=noise)[0], prior).ridge for noise in (0.0, 0.3, 3.0)]
    assert ridges == sorted(ridges)
    assert ridges[0] < ridges[-1]


def test_weights_that_no_fit_improves_on_are_kept():
    sample, weight = sample_of(30, 50, noise=0.5)
    assert choose_ridge(sample, weight).ridge == math.inf


def test_negative_targets_of_a_relu_ask_for_nothing():
    """Held-out targets are far below the outputs that the rows tell, but both are negative."""
    sample, weight = sample_of(200, 4, noise=0.0)
    deep = torch.where(sample.goal < 0, 10 * sample.goal, sample.goal)
    only_held = torch.where(sample.held[None, :, None], deep, sample.goal)
    chosen = choose_ridge(sample._replace(goal=only_held), weight, rectifier=RELU)
    assert chosen.unexplained < 1e-6


def test_entries_that_are_zero_stay_zero_in_what_is_compared():
    sample, weight = sample_of(300, 6, noise=0.0)
    stays = torch.ones(1, 3, 6, dtype=torch.bool)
    stays[:, :, 0] = False
    chosen = choose_ridge(sample, weight * stays, stays=stays)
    share = float(weight[..., 0].square().sum() / weight.square().sum())
    assert chosen.unexplained == pytest.approx(share, rel=0.3)


@pytest.mark.parametrize("held", [torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)])
def test_without_rows_on_both_sides_nothing_is_chosen(held):
    sample = Sample(torch.randn(1, 4, 2), torch.randn(1, 4, 1), held)
    assert not sample.suffices
