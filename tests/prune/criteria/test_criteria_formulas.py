"""Each criterion against its formula worked out by hand, published numbers, and degenerate weights."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.errors import PluginError
from autoprune.prune.criteria import (
    CRITERIA,
    ConsumerStatistics,
    UnitStatistics,
    UnitWeights,
    needs,
    needs_of,
    order_positions,
)
from autoprune.prune.criteria.activations import (
    activation_mean,
    activation_norm,
    activation_variance,
    flap,
    relative,
    wanda,
)
from autoprune.prune.criteria.gradients import fisher, hap, taylor, undecayed
from autoprune.prune.criteria.magnitudes import bn_scale, fpgm, l2, lamp, pq, pq_index

NOTHING = UnitStatistics(())


def rows(*values):
    """Weights of a unit whose single producer has these rows."""
    return UnitWeights((torch.tensor(values),), ())


def test_lamp_gives_the_published_scores():
    """The worked example of the paper's code: one weight a position."""
    found = lamp(rows([0.1], [-0.2], [0.3], [0.4], [-0.5]), NOTHING)
    assert found.tolist() == pytest.approx([0.018182, 0.074074, 0.18, 0.390244, 1], abs=1e-6)
    assert lamp(rows([0.01], [0.02]), NOTHING).tolist() == pytest.approx([0.2, 1])


def test_lamp_of_equal_positions_is_equal_and_of_zeros_zero():
    assert lamp(rows([3.0, 4.0], [5.0, 0.0]), NOTHING).tolist() == pytest.approx([0.5, 0.5])
    assert lamp(rows([0.0], [2.0], [0.0]), NOTHING).tolist() == [0, 1, 0]
    assert lamp(rows([0.0], [0.0]), NOTHING).tolist() == [0, 0]


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=8))
def test_lamp_orders_a_unit_as_l2_does(values):
    weights = rows(*([value] for value in values))
    by_lamp, by_l2 = lamp(weights, NOTHING), l2(weights, NOTHING).double()
    for i in range(len(values)):
        assert all(by_lamp[i] <= by_lamp[j] for j in range(len(values)) if by_l2[i] < by_l2[j])


def test_fpgm_is_the_sum_of_distances_to_the_others():
    assert fpgm(rows([0.0, 0.0], [3.0, 4.0], [6.0, 8.0]), NOTHING).tolist() == pytest.approx([15, 10, 15])


def test_fpgm_removes_one_of_two_twins_in_the_middle_first_and_takes_all_producers_together():
    apart = UnitWeights((torch.tensor([[0.0], [0.0], [1.0]]), torch.tensor([[0.0], [0.0], [5.0]])), ())
    scores = fpgm(apart, NOTHING)
    assert scores[0] == scores[1] == pytest.approx(26**0.5)
    assert scores[2] == pytest.approx(2 * 26**0.5)


def test_batch_norm_scales_are_added_in_absolute_value():
    scales = (torch.tensor([[0.5], [-2.0]]), torch.tensor([[0.25], [1.0]]))
    assert bn_scale(UnitWeights((torch.ones(2, 1),), (), scales), NOTHING).tolist() == [0.75, 3]


def test_a_unit_without_batch_norm_is_named_by_bn_scale():
    with pytest.raises(PluginError, match="criterion 'bn_scale' on unit 'fc': expected a batch norm with a scale"):
        order_positions(bn_scale, rows([1.0], [2.0]), NOTHING, "fc")


def test_the_pq_index_has_its_published_values():
    four = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0], [1, 2, 3, 4], [0, 0, 0, 0]])
    assert pq_index(four).tolist() == pytest.approx([0, 0.75, 0.0555859, 0], abs=1e-7)
    assert pq_index(four, 1, 2).tolist() == pytest.approx([0, 0.5, 0.0871291, 0], abs=1e-7)


def test_of_two_positions_with_the_same_sum_pq_keeps_the_one_that_is_spread():
    assert pq(rows([1.0, 1, 1, 1], [4.0, 0, 0, 0], [0.0, 0, 0, 0]), NOTHING).tolist() == pytest.approx([4, 1, 0])


# two outputs, two positions with two columns each; mean squares 4, 9, 16, 25
WEIGHT = torch.tensor([[1.0, -2.0, 0.0, 1.0], [3.0, 0.0, 1.0, -1.0]], dtype=torch.float64)
GRAM = torch.diag(torch.tensor([4.0, 9.0, 16.0, 25.0], dtype=torch.float64))
MEAN = torch.tensor([1.0, -2.0, 0.0, 4.0], dtype=torch.float64)
COLUMNS = torch.tensor([[0, 1], [2, 3]])
ABOUT_ZERO = UnitStatistics((ConsumerStatistics(WEIGHT, GRAM, COLUMNS, MEAN),))
CENTRED = UnitStatistics((ConsumerStatistics(WEIGHT, GRAM, COLUMNS, MEAN, centred=True),))
WEIGHTS = rows([1.0], [1.0])


def test_wanda_adds_absolute_weights_times_the_norm_of_their_inputs():
    assert wanda(WEIGHTS, ABOUT_ZERO).tolist() == pytest.approx([4 * 2 + 2 * 3, 1 * 4 + 2 * 5])
    norms = [5**0.5, 13**0.5, 4, 41**0.5]  # the mean is part of them
    expected = [4 * norms[0] + 2 * norms[1], norms[2] + 2 * norms[3]]
    assert wanda(WEIGHTS, CENTRED).tolist() == pytest.approx(expected)


def test_flap_multiplies_the_variance_of_an_input_with_the_squared_norm_of_its_weights():
    assert flap(WEIGHTS, CENTRED).tolist() == [10 * 4 + 4 * 9, 1 * 16 + 2 * 25]
    assert flap(WEIGHTS, ABOUT_ZERO).tolist() == [10 * 3 + 4 * 5, 1 * 16 + 2 * 9]


def test_activations_are_those_of_a_positions_columns():
    assert activation_variance(WEIGHTS, CENTRED).tolist() == [13, 41]
    assert activation_variance(WEIGHTS, ABOUT_ZERO).tolist() == [8, 25]
    assert activation_mean(WEIGHTS, CENTRED).tolist() == [3, 4]
    assert activation_norm(WEIGHTS, ABOUT_ZERO).tolist() == pytest.approx([13**0.5, 41**0.5])


def test_relative_importance_is_the_share_of_a_weight_in_its_column_and_in_its_row():
    # columns sum to 4, 2, 1, 2 in absolute value, outputs to 4 and 5; the norms 2, 3, 4, 5
    first = (1 / 4 + 1 / 4 + 3 / 4 + 3 / 5) * 2**0.5 + (2 / 2 + 2 / 4) * 3**0.5
    second = (1 / 1 + 1 / 5) * 4**0.5 + (1 / 2 + 1 / 4 + 1 / 2 + 1 / 5) * 5**0.5
    assert relative(WEIGHTS, ABOUT_ZERO).tolist() == pytest.approx([first, second])


@pytest.mark.parametrize("name", ["wanda", "flap", "relative", "activation_mean", "activation_variance"])
def test_scores_of_several_consumers_are_added(name):
    twice = UnitStatistics(CENTRED.consumers * 2)
    assert torch.allclose(CRITERIA[name](WEIGHTS, twice), 2 * CRITERIA[name](WEIGHTS, CENTRED))


def test_taylor_is_the_mean_square_over_batches():
    statistics = UnitStatistics((), gradients=torch.tensor([[1.0, -2.0], [3.0, 0.0]]))
    assert taylor(WEIGHTS, statistics).tolist() == [5, 2]


def test_undecayed_is_the_absolute_mean_over_batches():
    statistics = UnitStatistics((), gradients=torch.tensor([[1.0, -2.0], [3.0, 0.0]]))
    assert undecayed(WEIGHTS, statistics).tolist() == [2, 1]


def test_fisher_is_half_the_mean_square_over_examples():
    statistics = UnitStatistics((), sample_gradients=torch.tensor([[1.0, -2.0], [3.0, 0.0]]))
    assert fisher(WEIGHTS, statistics).tolist() == [2.5, 1]


def test_hap_weighs_squared_norms_with_the_mean_curvature():
    weights = UnitWeights((torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[0.0], [2.0]])), ())
    statistics = UnitStatistics((), curvature=torch.tensor([12.0, -6.0]))
    assert hap(weights, statistics).tolist() == [12 / 6 * 25, -6 / 6 * 5]


@pytest.mark.parametrize("name", sorted(CRITERIA.keys() - {"random"}))
@pytest.mark.parametrize("kind", ["zeros", "ties", "one position", "huge", "tiny"])
def test_degenerate_weights_and_statistics_get_finite_scores(name, kind):
    n = 1 if kind == "one position" else 3
    scale = {"zeros": 0.0, "huge": 1e15, "tiny": 1e-15}.get(kind, 1.0)
    producer = torch.full((n, 4), scale)
    consumer = ConsumerStatistics(
        torch.full((2, n), scale, dtype=torch.float64),
        torch.full((n, n), scale**2, dtype=torch.float64),
        torch.arange(n)[:, None],
        torch.full((n,), scale, dtype=torch.float64),
    )
    of_loss = {"gradients": producer.T, "sample_gradients": producer.T, "curvature": producer[:, 0]}
    weights = UnitWeights((producer,), (producer,), (producer[:, :1],))
    order = order_positions(CRITERIA[name], weights, UnitStatistics((consumer,), **of_loss), "u")
    assert sorted(order.tolist()) == list(range(n))
    if name not in ("obs", "mone", "reap"):  # obs, the order of what is no expert, must take one of twins first
        assert order.tolist() == list(range(n))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.sampled_from(sorted(CRITERIA.keys() - {"random"})))
def test_scores_follow_their_positions_when_these_are_numbered_in_another_way(seed, name):
    generator = torch.Generator().manual_seed(seed)
    n, k = 5, 3
    shuffle = torch.randperm(n, generator=generator)
    producer, scale = torch.randn(n, k, generator=generator), torch.randn(n, 1, generator=generator)
    x = torch.randn(40, n, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, n, generator=generator, dtype=torch.float64)
    loss = torch.randn(n, 6, generator=generator)

    def scores(order):
        inputs = x[:, order]
        consumer = ConsumerStatistics(
            weight[:, order], inputs.T @ inputs / 40, torch.arange(n)[:, None], inputs.mean(dim=0)
        )
        fields = {"gradients": loss[order].T, "sample_gradients": loss[order].T, "curvature": loss[order, 0]}
        weights = UnitWeights((producer[order],), (), (scale[order],))
        return CRITERIA[name](weights, UnitStatistics((consumer,), **fields)).double()

    assert torch.allclose(scores(torch.arange(n))[shuffle], scores(shuffle), rtol=1e-4)


def test_what_a_criterion_needs_is_read_through_partial_applications():
    @needs("gradients", "moments")
    def mine(weights, statistics, strength):
        return strength * statistics.gradients.sum(dim=0)

    assert needs_of(functools.partial(functools.partial(mine), strength=2)) == {"gradients", "moments"}
    assert needs_of(lambda weights, statistics: None) == frozenset()


def test_a_need_nobody_can_meet_is_an_error_where_it_is_declared():
    with pytest.raises(PluginError, match="expected some of moments, gradients, .*, got labels"):
        needs("labels")


def test_statistics_that_were_not_declared_are_an_error_that_says_how():
    with pytest.raises(PluginError, match=r"'taylor' on unit 'u': .* gradients.*@needs\('gradients'\)"):
        order_positions(taylor, WEIGHTS, NOTHING, "u")
