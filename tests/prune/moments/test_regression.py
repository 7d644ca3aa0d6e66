"""Ridge regressions against numpy's least squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autoprune.prune.moments import regression
from autoprune.prune.moments.rectifier import RELU
from autoprune.prune.moments.regression import Regression, factor_bytes
from autoprune.prune.moments.ridge import RIDGE


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_numpy(rows, targets, prior, columns):
    """One output by numpy: the ridge is as many rows again, which ask for the prior."""
    x = rows.double().numpy()[:, columns]
    x, t = x - x.mean(0), targets.double().numpy() - targets.double().numpy().mean()
    full = rows.double().numpy() - rows.double().numpy().mean(0)
    strength = np.sqrt(RIDGE * np.square(full).mean() * len(x))
    stacked = np.vstack([x, strength * np.eye(len(columns))])
    asked = np.concatenate([t, strength * prior.double().numpy()[columns]])
    return np.linalg.lstsq(stacked, asked, rcond=None)[0]


def test_each_output_of_a_sparse_weight_is_solved_on_the_columns_it_has_left():
    rows, prior, targets = drawn(2, 300, 7), drawn(2, 4, 7, seed=1), drawn(2, 300, 4, seed=2)
    rows[:, :, 3] = rows[:, :, 2] + 0.1 * rows[:, :, 3] + 1.0
    stays = drawn(2, 4, 7, seed=3) > 0
    stays[0, 1] = False  # an output without any
    stays[1, 2] = True
    weight, bias = Regression(rows, prior, constant=True, stays=stays).solve(targets)
    assert (weight[~stays] == 0).all()
    assert factor_bytes(stays) == 8 * sum(int(row.sum()) ** 2 for row in stays.flatten(0, 1))
    for group, output in np.ndindex(2, 4):
        columns = stays[group, output].nonzero().squeeze(1).numpy()
        expected = by_numpy(rows[group], targets[group, :, output], prior[group, output], columns)
        np.testing.assert_allclose(weight[group, output].numpy()[columns], expected, rtol=1e-3, atol=1e-4)
        mean = targets[group, :, output].double().mean() - weight[group, output] @ rows[group].double().mean(0)
        assert float(bias[group, output]) == pytest.approx(float(mean), abs=1e-5)


def test_a_weight_of_which_everything_stays_has_the_solution_of_a_dense_one():
    rows, prior, targets = drawn(1, 200, 5), drawn(1, 3, 5, seed=1), drawn(1, 200, 3, seed=2)
    dense = Regression(rows, prior, constant=True)
    sparse = Regression(rows, prior, constant=True, stays=torch.ones(1, 3, 5, dtype=torch.bool))
    torch.testing.assert_close(sparse.solve(targets), dense.solve(targets))
    torch.testing.assert_close(sparse.solve_rectified(targets, RELU), dense.solve_rectified(targets, RELU))


def test_rows_that_are_not_finite_are_an_error_with_zeros_too():
    rows = drawn(1, 50, 4)
    rows[0, 3, 1] = torch.nan
    stays = torch.tensor([[[True, True, False, True]]])
    with pytest.raises(torch.linalg.LinAlgError):
        Regression(rows, drawn(1, 1, 4), constant=True, stays=stays).solve(drawn(1, 50, 1))


def test_outputs_in_groups_have_the_solutions_and_the_error_of_all_at_once(monkeypatch):
    rows, prior, targets = drawn(2, 100, 5), drawn(2, 7, 5, seed=1), drawn(2, 100, 7, seed=2)
    weight, bias = Regression(rows, prior, constant=True).solve(targets)
    monkeypatch.setattr(regression, "OUTPUTS", 3)
    grouped = Regression(rows, prior, constant=True)
    torch.testing.assert_close(grouped.solve(targets), (weight, bias))
    expected = np.square(rows.numpy() @ weight.mT.numpy() + bias.numpy()[:, None] - targets.numpy()).mean()
    assert grouped.error(weight, bias, targets) == pytest.approx(expected, rel=1e-5)
