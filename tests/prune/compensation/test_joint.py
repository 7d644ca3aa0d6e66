"""Joint fits of two layers against pairs whose solution is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoprune.prune.compensation.joint import Affine, Examples, Pair, fit_jointly
from autoprune.prune.moments.design import design_of
from autoprune.prune.moments.rectifier import RELU, Rectifier
from autoprune.prune.moments.regression import Regression

PAIRS = {
    "linear": (nn.Linear(6, 8), nn.Linear(8, 4), (400, 6)),
    "tokens": (nn.Linear(6, 8), nn.Linear(8, 4), (50, 8, 6)),
    "convolutions": (nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 4, 3), (20, 4, 8, 8)),
    "groups": (nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 4, 3, groups=2), (20, 4, 8, 8)),
    "both in groups": (nn.Conv1d(4, 8, 3, groups=2), nn.Conv1d(8, 8, 3, groups=4, bias=False), (40, 4, 20)),
    "transposed": (nn.ConvTranspose2d(4, 8, 2, stride=2), nn.ConvTranspose2d(8, 3, 3), (20, 4, 6, 6)),
}


def affine(module, weight, bias):
    return Affine(module, design_of(module), weight, bias)


def pair_of(kind, generator, keep=lambda weight: None):
    """Two layers, their input, and the division by the moments of what both read."""
    first, second, shape = PAIRS[kind]
    x = torch.randn(shape, generator=generator)
    layers = []
    for module in (first, second):
        weight = torch.randn(module.weight.shape, generator=generator) / design_of(module).columns ** 0.5
        outputs = design_of(module).flat(weight).shape[:2].numel()
        layers.append(affine(module, weight, 0.3 * torch.randn(outputs, generator=generator)))
    divide = []
    for layer, what in zip(layers, (x, layers[0](x).relu()), strict=True):
        flat = layer.design.flat(layer.weight)
        divide.append(Regression(layer.design.rows(what), flat, constant=True, stays=keep(flat)).divided)
    return layers, x, tuple(divide)


@pytest.mark.parametrize("kind", PAIRS)
def test_a_small_change_of_both_layers_is_found_again(kind):
    """The target is made by the pair with weights that are 1 % off: what is left must be far below that."""
    generator = torch.Generator().manual_seed(0)
    (first, second), x, divide = pair_of(kind, generator)
    with torch.no_grad():
        other = [
            affine(a.module, a.weight + 0.01 * torch.randn(a.weight.shape, generator=generator), a.bias)
            for a in (first, second)
        ]
        target = other[1](other[0](x).relu())
        before = float((second(first(x).relu()) - target).square().mean())
    solved = fit_jointly(Pair(first, second), divide, [Examples(x, target)], iterations=40)
    with torch.no_grad():
        assert float((solved.second(solved.first(x).relu()) - target).square().mean()) < 0.05 * before


def test_a_small_change_is_found_again_below_a_ceiling_that_half_of_the_activations_reach():
    generator = torch.Generator().manual_seed(4)
    (first, second), x, divide = pair_of("linear", generator)
    between = Rectifier(float(first(x).quantile(0.75)))
    pair = Pair(first, second, between)
    with torch.no_grad():
        other = affine(first.module, first.weight + 0.01 * torch.randn(8, 6, generator=generator), first.bias)
        target = Pair(other, second, between)(x)
        before = pair.error([Examples(x, target)])
        solved = fit_jointly(pair, divide, [Examples(x, target)], iterations=40)
        assert solved.error([Examples(x, target)]) < 0.05 * before


def test_a_step_that_only_helps_the_examples_of_the_fit_is_not_taken():
    (first, second), x, divide = pair_of("linear", torch.Generator().manual_seed(5))
    pair = Pair(first, second)
    with torch.no_grad():
        right, wrong = pair(x[:200]), pair(x[200:]) + torch.randn(200, 4)
    solved = fit_jointly(pair, divide, [Examples(x[200:], wrong), Examples(x[:200], right, held=True)], iterations=10)
    assert solved is pair


def test_a_pair_that_is_right_already_stays():
    (first, second), x, divide = pair_of("convolutions", torch.Generator().manual_seed(1))
    with torch.no_grad():
        target = second(first(x).relu())
    solved = fit_jointly(Pair(first, second), divide, [Examples(x, target)], iterations=10)
    assert solved.first is first
    assert solved.second is second


def test_where_a_relu_reads_the_output_negative_targets_ask_for_nothing():
    (first, second), x, divide = pair_of("linear", torch.Generator().manual_seed(2))
    with torch.no_grad():
        output = second(first(x).relu())
        target = torch.where(output > 0, output, output - 5.0)
    solved = fit_jointly(Pair(first, second, behind=RELU), divide, [Examples(x, target)], iterations=10)
    with torch.no_grad():
        torch.testing.assert_close(solved.second(solved.first(x).relu()), output, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", PAIRS)
def test_entries_that_are_left_out_do_not_change_and_the_others_come_closer(kind):
    generator = torch.Generator().manual_seed(3)
    (first, second), x, divide = pair_of(kind, generator, lambda weight: weight > 0)
    with torch.no_grad():
        output = second(first(x).relu())
        target = output + 0.1 * torch.randn(output.shape, generator=generator)
        before = float((output - target).square().mean())
    solved = fit_jointly(Pair(first, second), divide, [Examples(x, target)], iterations=10)
    for old, new in zip((first, second), (solved.first, solved.second), strict=True):
        assert torch.equal(new.weight[old.weight <= 0], old.weight[old.weight <= 0])
        assert not torch.equal(new.weight, old.weight)
    with torch.no_grad():
        assert float((solved.second(solved.first(x).relu()) - target).square().mean()) < before
