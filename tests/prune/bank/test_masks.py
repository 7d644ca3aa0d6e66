"""Masks by hand, patterns counted, least squares and the surgeon's order against brute force."""

from __future__ import annotations

import itertools

import pytest
import torch

from autoprune.errors import PluginError
from autoprune.prune.bank.entries import BLOCK, removal_order, sweep
from autoprune.prune.bank.masks import checked, groups_of, keep_largest, magnitude, wanda
from autoprune.prune.moments.design import Design
from autoprune.prune.moments.moments import Moments
from autoprune.prune.moments.regression import refit_entries
from autoprune.prune.moments.ridge import ridged


def correlated(outputs, columns, seed, rank=None):
    """A random weight and the second moments of inputs that share a few causes."""
    generator = torch.Generator().manual_seed(seed)
    causes = torch.randn(columns, rank or max(1, columns // 3), generator=generator, dtype=torch.float64)
    gram = causes @ causes.T + 0.1 * torch.eye(columns, dtype=torch.float64)
    return torch.randn(outputs, columns, generator=generator, dtype=torch.float64), gram


def damage(weight, sparse, gram):
    change = weight - sparse
    return float(((change @ gram) * change).sum())


def counts(mask, groups):
    """Entries that stay in every group of every row."""
    return torch.zeros(len(mask), int(groups.max()) + 1).index_add(1, groups, mask.float())


def test_the_largest_of_a_matrix_stay():
    scores = torch.tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]])
    assert keep_largest(scores, 3).tolist() == [[False, True, False], [True, False, True]]
    assert not keep_largest(scores, 0).any()
    assert keep_largest(scores, 6).all()


def test_of_equal_scores_the_first_stay():
    assert keep_largest(torch.ones(2, 3), 4).tolist() == [[True, True, True], [True, False, False]]
    assert keep_largest(torch.ones(1, 4), 1, torch.tensor([0, 0, 1, 1])).tolist() == [[True, False, True, False]]


def test_the_largest_of_every_group_stay_in_every_row():
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0, 9.0, 8.0, 7.0, 6.0], [4.0, 3.0, 2.0, 1.0, 1.0, 1.0, 5.0, 5.0]])
    mask = keep_largest(scores, 2, groups_of(8, 1, 4))
    assert mask.int().tolist() == [[0, 0, 1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0, 1, 1]]


def test_groups_are_inputs_in_a_row_at_one_place_of_the_kernel():
    # columns of a (o, 5, 2) weight: input 0 at places 0 and 1, then input 1, ...; the fifth input is a group of its own
    assert groups_of(5, 2, 4).tolist() == [0, 2, 0, 2, 0, 2, 0, 2, 1, 3]


@pytest.mark.parametrize(("inputs", "kernel", "group"), [(8, 9, 4), (6, 4, 4), (3, 1, 4), (16, 1, 8), (7, 3, 2)])
@pytest.mark.parametrize("share", [0, 1, 2])
def test_every_group_keeps_exactly_its_count_whatever_chooses(inputs, kernel, group, share):
    weight, gram = correlated(5, inputs * kernel, share)
    groups = groups_of(inputs, kernel, group)
    expected = torch.bincount(groups).clamp_max(share).float().expand(5, -1)
    order = removal_order(weight, gram, groups)
    assert torch.equal(counts(keep_largest(weight.abs(), share, groups), groups), expected)
    assert torch.equal(counts(keep_largest(order, share, groups), groups), expected)
    assert torch.equal(counts(sweep(weight, gram, share, groups) != 0, groups), expected)


def test_wanda_weighs_magnitudes_with_the_norm_of_the_inputs():
    gram, mean = torch.diag(torch.tensor([4.0, 1.0])).double(), torch.tensor([0.0, 2.0]).double()
    moments = Moments(Design(1, 2), "columns", gram[None], mean[None], centred=True, rows=10)
    scores = wanda(torch.tensor([[[1.0, -1.0]]]).double(), moments)
    torch.testing.assert_close(scores, torch.tensor([[[2.0, 5.0**0.5]]]).double())  # 1 + 2^2 beside the mean


def test_wanda_without_statistics_is_magnitude():
    weight = torch.randn(2, 3)
    assert torch.equal(wanda(weight, None), magnitude(weight, None))


@pytest.mark.parametrize("scores", [torch.ones(2, 2), torch.full((1, 2), torch.nan), [1.0, 2.0]])
def test_unusable_scores_of_a_plug_in_are_an_error(scores):
    with pytest.raises(PluginError, match=r"mask rule on 'conv.weight': expected \(1, 2\) finite scores, got"):
        checked(scores, torch.zeros(1, 2), "conv.weight")


def test_refitted_entries_are_the_least_squares_solution():
    weight, gram = correlated(3, 6, 0)
    stays = torch.tensor([[1, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    fitted = refit_entries(weight, gram, stays)
    factor = torch.linalg.cholesky(gram)  # |(w - v)^T L|^2 is the damage
    solution = torch.linalg.lstsq(factor[[0, 1, 4]].T, factor.T @ weight[0]).solution
    torch.testing.assert_close(fitted[0, [0, 1, 4]], solution)
    assert not fitted[1].any()
    torch.testing.assert_close(fitted[2], weight[2])


@pytest.mark.parametrize("seed", range(10))
def test_the_entry_of_one_row_that_goes_first_is_the_best_by_brute_force(seed):
    weight, gram = correlated(1, 6, seed)
    kept = keep_largest(removal_order(weight, gram), 5)
    best = min(
        (torch.tensor([subset]) for subset in itertools.product([False, True], repeat=6) if sum(subset) == 5),
        key=lambda stays: damage(weight, refit_entries(weight, gram, stays), gram),
    )
    assert torch.equal(kept, best)


def test_entries_of_one_row_go_one_by_one_as_the_surgeon_takes_them():
    """Against the greedy algorithm itself: at each step the entry whose loss, after the best update, is least."""
    weight, gram = correlated(1, 5, 3)
    left = torch.ones(1, 5, dtype=torch.bool)
    ranks = removal_order(weight, gram)
    for _ in range(5):
        options = {}
        for column in left[0].nonzero().squeeze(1).tolist():
            without = left.clone()
            without[0, column] = False
            options[column] = damage(weight, refit_entries(weight, gram, without), gram)
        gone = min(options, key=lambda column: options[column])
        assert int(torch.where(left, ranks, 99).argmin()) == gone
        left[0, gone] = False


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.5, 0.2, 0.05])
def test_the_surgeon_does_less_damage_than_the_sweep_and_than_magnitudes(seed, share):
    weight, gram = correlated(16, 40, seed)
    hessian, count = ridged(gram), int(share * weight.numel())
    plain = weight * keep_largest(weight.abs(), count)
    swept = sweep(weight, hessian, count)
    best = refit_entries(weight, hessian, keep_largest(removal_order(weight, hessian), count))
    assert damage(weight, best, gram) < min(damage(weight, swept, gram), damage(weight, plain, gram))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("groups", [None, groups_of(40, 1, 4)], ids=["entries", "pattern"])
def test_the_sweep_does_less_damage_than_magnitudes_at_half_the_entries(seed, groups):
    weight, gram = correlated(16, 40, seed)
    count = weight.numel() // 2 if groups is None else 2
    plain = weight * keep_largest(weight.abs(), count, groups)
    assert damage(weight, sweep(weight, ridged(gram), count, groups), gram) < damage(weight, plain, gram)


def test_the_sweep_keeps_exactly_its_count_over_several_blocks():
    weight, gram = correlated(3, 2 * BLOCK + 7, 0, rank=20)
    for count in (0, 1, 100, 500, weight.numel()):
        assert int((sweep(weight, gram, count) != 0).sum()) == count


def grouped(count):
    """A weight of several groups with a Hessian each, and the same as one weight whose Hessian has them as blocks."""
    pairs = [correlated(3, 4, seed) for seed in range(count)]
    weight, hessian = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    return weight, hessian, torch.block_diag(*weight), torch.block_diag(*hessian)


def test_a_grouped_weight_is_refitted_as_one_with_zeros_outside_its_groups():
    weight, hessian, whole, blocks = grouped(3)
    stays = torch.rand(weight.shape) > 0.4
    fitted = refit_entries(weight, hessian, stays)
    torch.testing.assert_close(torch.block_diag(*fitted), refit_entries(whole, blocks, torch.block_diag(*stays).bool()))


def test_entries_of_all_groups_go_in_the_order_of_their_damage():
    weight, hessian, whole, blocks = grouped(3)
    alone = [removal_order(w, h) for w, h in zip(weight, hessian, strict=True)]
    ranks = removal_order(weight, hessian)
    assert sorted(ranks.flatten().tolist()) == list(range(1, weight.numel() + 1))
    kept = keep_largest(ranks, 30)
    sizes = kept.flatten(1).sum(dim=1).tolist()
    assert len(set(sizes)) > 1  # the quota is that of the layer
    least = damage(whole, refit_entries(whole, blocks, torch.block_diag(*kept).bool()), blocks)
    even = torch.stack([keep_largest(order, 10) for order in alone])
    assert least < damage(whole, refit_entries(whole, blocks, torch.block_diag(*even).bool()), blocks)


def test_a_sweep_over_groups_sweeps_each_with_its_own_factor():
    weight, hessian, _, _ = grouped(2)
    swept = sweep(weight, hessian, 2, groups_of(4, 1, 4))
    for own, w, h in zip(swept, weight, hessian, strict=True):
        torch.testing.assert_close(own, sweep(w, h, 2, groups_of(4, 1, 4)))


def test_a_sweep_that_keeps_all_changes_nothing():
    weight, gram = correlated(4, 9, 0)
    assert torch.equal(sweep(weight, gram, 36), weight)


def test_smaller_masks_lie_within_larger_ones():
    weight, gram = correlated(4, 12, 0)
    order = removal_order(weight, gram)
    masks = [keep_largest(order, count) for count in range(49)]
    assert all(int(mask.sum()) == count for count, mask in enumerate(masks))
    assert all(bool((small <= large).all()) for small, large in itertools.pairwise(masks))


def test_a_weight_of_zeros_and_inputs_of_zeros_stay_finite():
    hessian = ridged(torch.zeros(6, 6, dtype=torch.float64))
    weight = torch.zeros(2, 6, dtype=torch.float64)
    kept = keep_largest(removal_order(weight, hessian), 5)
    assert torch.isfinite(refit_entries(weight, hessian, kept)).all()
    assert torch.isfinite(sweep(weight, hessian, 5)).all()
