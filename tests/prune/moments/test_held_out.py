"""The ridge of weights with few rows, chosen on examples that are held out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.prune.moments.consumers import SCARCE
from autoprune.prune.moments.held_out import choose_ridge, held_rows
from autoprune.prune.moments.moments import collect_moments
from autoprune.prune.moments.refit import refit
from autoprune.prune.moments.ridge import RIDGES
from autoprune.prune.moments.sums import HeldSums
from autoprune.prune.structure.trace import trace


def error_on_held(x, held, weight, kept, ridge, *, centred):
    """The squared error on held-out rows of the regression of all outputs on kept inputs, by numpy's solver."""
    x = x - x.mean(axis=0) * centred
    fitted, own = x[~held], x[held]
    gram = fitted.T @ fitted / len(fitted)
    r = ridge * np.trace(gram) / len(gram)
    target = weight @ gram[:, kept] + r * weight[:, kept]
    small = np.linalg.solve(gram[np.ix_(kept, kept)] + r * np.eye(len(kept)), target.T).T
    return np.square(own @ weight.T - own[:, kept] @ small.T).sum()


def network(width, *, bias):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 5, bias=bias), nn.Tanh(), nn.Linear(5, 2))


def few(examples, seed=1):
    return [(x,) for x in torch.randn(examples, 6, generator=torch.Generator().manual_seed(seed)).split(7)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width", "examples"), [(12, 60), (40, 30), (16, 8)])
def test_the_ridge_is_the_smallest_that_is_nearly_the_first_minimum_on_every_fifth_example(width, examples, bias):
    model, batches = network(width, bias=bias), few(examples)
    moments = collect_moments(model, trace(model, batches[0]), ["2.weight"], batches)[0]["2.weight"]
    x = model[:2](torch.cat([batch[0] for batch in batches])).detach().double().numpy()
    held, kept = np.arange(examples) % 5 == 4, np.arange(0, width, 2)
    weight = model[2].weight.detach().double().numpy()
    errors = [error_on_held(x, held, weight, kept, ridge, centred=bias) for ridge in RIDGES]
    rises = [i for i in range(1, len(errors)) if errors[i] >= errors[i - 1]]
    least = errors[rises[0] - 1 if rises else -1]
    assert moments.ridge == next(ridge for ridge, error in zip(RIDGES, errors, strict=True) if error <= 1.1 * least)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [(3,), (3, 2), (7, 6, 2, 1)])
def test_rows_that_are_held_out_take_no_more_memory_than_the_square_of_their_columns(sizes, dtype):
    torch.manual_seed(0)
    parts = [torch.randn(1, size, 8).to(dtype).float() for size in sizes]
    shift = parts[0].mean(dim=1, keepdim=True)
    sums = HeldSums((1, 8), torch.zeros(1, 8, 8), dtype)
    for part in parts:
        sums.add(part, shift)
    waiting = sum(rows.nbytes for rows in sums._waiting)
    assert waiting <= 8 * 8 * dtype.itemsize
    rows = (torch.cat(parts, dim=1) - shift)[0].double()
    assert sums.rows == len(rows)
    torch.testing.assert_close(sums.first.value()[0], rows.sum(dim=0), rtol=0, atol=1e-5)
    torch.testing.assert_close(sums.second()[0].double(), rows.T @ rows, rtol=0, atol=1e-4)


def test_many_rows_for_the_columns_leave_the_usual_ridge():
    model = network(4, bias=True)
    enough = few(SCARCE * 4)
    structure = trace(model, enough[0])
    assert collect_moments(model, structure, ["2.weight"], enough)[0]["2.weight"].ridge is None
    assert collect_moments(model, structure, ["2.weight"], few(SCARCE * 4 - 1))[0]["2.weight"].ridge is not None


def test_of_fewer_than_five_examples_blocks_of_rows_are_held_out():
    assert held_rows(torch.arange(40), 40, 2, 0, 2).nonzero()[:, 0].tolist() == [8, 9, 18, 19, 28, 29, 38, 39]
    assert held_rows(torch.arange(12), 12, 6, 4, 10).nonzero()[:, 0].tolist() == [0, 1, 10, 11]
    assert not held_rows(torch.arange(1), 1, 1, 0, 1).any()


def test_weights_of_noisy_inputs_get_a_larger_ridge_and_err_less_on_other_examples():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(60, 60), nn.Identity(), nn.Linear(60, 8), nn.Identity(), nn.Linear(8, 2))
    batches = [(torch.randn(50, 60),)]
    moments = collect_moments(model, trace(model, batches[0]), ["2.weight"], batches)[0]["2.weight"]
    assert moments.ridge > 1e-3
    kept, other = np.arange(30), model[:2](torch.randn(2000, 60)).detach().double()
    full = model[2].weight.detach().double()

    def error(ridge):
        small = refit(model[2].weight, replace(moments, ridge=ridge), kept)[0]
        return float((other @ full.T - other[:, kept] @ small.T).var(dim=0).sum())

    assert error(moments.ridge) < 0.9 * error(None)


def test_dead_inputs_have_a_ridge():
    held = torch.zeros(1, 4, 4, dtype=torch.float64)
    assert choose_ridge(torch.ones(1, 2, 4, dtype=torch.float64), held, held, 1) in RIDGES
