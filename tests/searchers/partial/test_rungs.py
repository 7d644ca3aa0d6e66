"""Searches on parts of the selection set: which networks are promoted, and what that costs."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from autoprune.core.evaluation import Evaluation
from autoprune.core.front import hypervolume, nondominated
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError
from autoprune.searchers import make_searcher
from autoprune.searchers.common.gains import largest_gain
from autoprune.searchers.partial.racing import looks, t_exceeded, t_quantile, t_statistic
from autoprune.searchers.partial.rungs import Rungs, best_rows, geometric
from autoprune.testing import synthetic_problem, trace


@pytest.mark.parametrize(
    ("least", "eta", "shares"),
    [(1 / 9, 3, (1 / 9, 1 / 3, 1)), (0.2, 2, (0.25, 0.5, 1)), (1.0, 3, (1.0,)), (0.9, 2, (1.0,))],
)
def test_fidelities_grow_by_one_factor_up_to_everything(least, eta, shares):
    assert geometric(least, eta) == pytest.approx(shares)


@pytest.mark.parametrize("least", [0.0, -0.1, 1.1, float("nan")])
def test_a_least_fidelity_that_is_no_share_is_refused(least):
    with pytest.raises(ConfigError, match="expected least to be a share"):
        geometric(least, 3)


def test_the_best_are_whole_fronts_first():
    rng = np.random.default_rng(0)
    losses = rng.random((60, 2))
    left = np.arange(60)
    for _ in range(3):  # the first three fronts, peeled off one by one
        front = left[nondominated(losses[left])]
        kept = best_rows(losses, len(set(range(60)) - set(left.tolist())) + len(front))
        assert set(front.tolist()) <= set(kept)
        left = np.setdiff1d(left, front)


def test_of_a_front_that_does_not_fit_the_ends_and_the_middle_are_taken():
    x = np.linspace(0, 1, 101)
    assert sorted(best_rows(np.stack([x, 1 - x], axis=1), 3)) == [0, 50, 100]


@pytest.mark.parametrize("count", [0, 1, 2, 5, 9])
def test_as_many_are_taken_as_there_are_at_most(count):
    assert len(best_rows(np.ones((5, 2)), count)) == min(count, 5)


def test_a_network_is_handed_out_once_at_each_rung():
    problem = synthetic_problem(units=2, levels=3).problem
    rungs = Rungs(problem, (0.5, 1.0))
    assert rungs.add([(0, 0), (0, 0)], 0)
    assert not rungs.add([(0, 0)], 0)
    assert rungs.add([(0, 0)], 1)
    assert rungs.take(5) == [Candidate((0, 0), 0.5), Candidate((0, 0), 1.0)]


class Counted:
    """Answers that are exact at every fidelity, and a record of the networks asked for at each."""

    def __init__(self, **options):
        self.synthetic = synthetic_problem(**options)
        self.told = []

    def __call__(self, _, candidate):
        self.told.append(self.synthetic.evaluate(candidate))
        return self.told[-1]

    def run(self, name, evaluations, **options):
        searcher = make_searcher(name, self.synthetic.problem, seed=0, **options)
        trace(searcher, self.synthetic.problem, self, evaluations)
        return Counter(round(e.candidate.fidelity, 6) for e in self.told)

    def everything(self):
        """All networks of the space, and those on its front."""
        rows = list(itertools.product(*map(range, self.synthetic.problem.space.sizes)))
        losses = self.synthetic.problem.losses([self.synthetic.evaluate(Candidate(row)) for row in rows])
        return set(rows), {row for row, keep in zip(rows, nondominated(losses), strict=True) if keep}

    def at(self, fidelity):
        return {e.candidate.levels for e in self.told if e.candidate.fidelity == pytest.approx(fidelity)}


def test_halving_keeps_one_in_eta_from_rung_to_rung():
    counted = Counted(units=6, levels=6)
    found = counted.run("halving", 2 * (27 + 9 + 3), source="random")
    assert found == {round(1 / 9, 6): 54, round(1 / 3, 6): 18, 1.0: 6}
    assert counted.at(1.0) <= counted.at(1 / 3) <= counted.at(1 / 9)


def test_halving_keeps_the_best_of_a_bracket():
    counted = Counted(units=6, levels=6)
    counted.run("halving", 27 + 9, source="random")
    losses = {e.candidate.levels: counted.synthetic.problem.losses([e])[0] for e in counted.told[:27]}
    rows = list(losses)
    front = {rows[i] for i in np.flatnonzero(nondominated(np.array(list(losses.values()))))}
    assert len(front & counted.at(1 / 3)) == min(9, len(front))


def test_hyperband_begins_brackets_at_every_rung():
    counted = Counted(units=6, levels=6)
    counted.run("halving", 9 + 3 + 1 + 5 + 2 + 3, source="random", hyperband=True, width=9)
    first = [round(e.candidate.fidelity, 6) for e in counted.told]
    runs = [(share, len(list(group))) for share, group in itertools.groupby(first)]
    low, middle = round(1 / 9, 6), round(1 / 3, 6)
    assert runs == [(low, 9), (middle, 3), (1.0, 1), (middle, 5), (1.0, 5)]  # 2 that went up, 3 that begin there


def test_asha_sends_up_only_what_is_among_the_best_of_its_rung():
    counted = Counted(units=6, levels=6)
    found = counted.run("asha", 300, source="random")
    low, middle, top = (found[round(share, 6)] for share in (1 / 9, 1 / 3, 1.0))
    assert middle == low // 3
    assert top == middle // 3
    assert counted.at(1.0) <= counted.at(1 / 3) <= counted.at(1 / 9)


def test_asha_measures_the_whole_front_of_a_small_space_in_full():
    counted = Counted(units=3, levels=3)
    counted.run("asha", 200)
    rows, front = counted.everything()
    assert len(counted.at(1 / 9)) == len(rows)
    assert front <= counted.at(1.0)


@pytest.mark.parametrize(("share", "full"), [(1 / 8, 1 / 2), (1 / 16, 0.7), (1 / 4, 0.2)])
def test_screening_spends_its_share_of_the_images_on_full_scores(share, full):
    counted = Counted(units=6, levels=6)
    found = counted.run("screening", 400, source="random", share=share, full=full)
    low, top = found[share] * share, found[1.0] * (1 - share)  # going up costs the images between
    assert top / (low + top) == pytest.approx(full, abs=0.03)


def test_screening_measures_in_full_what_promises_most():
    counted = Counted(units=6, levels=6)
    counted.run("screening", 240, source="random", patience=0)
    losses = {e.candidate.levels: counted.synthetic.problem.losses([e])[0] for e in counted.told}
    rows = list(losses)
    front = {row for row, keep in zip(rows, nondominated(np.array(list(losses.values()))), strict=True) if keep}
    measured = counted.at(1.0)
    best = hypervolume(np.array([losses[row] for row in front]), (1.0, 1e9))
    assert hypervolume(np.array([losses[row] for row in measured]), (1.0, 1e9)) > 0.99 * best
    assert len(measured) < len(rows) / 5


def test_screening_waits_before_it_chooses():
    counted = Counted(units=6, levels=6)
    counted.run("screening", 200, source="random", patience=150)
    screened = [e.candidate.levels for e in counted.told if e.candidate.fidelity < 1]
    assert counted.at(1.0) <= set(screened[:50])


def test_screening_measures_the_whole_front_of_a_small_space_in_full():
    counted = Counted(units=3, levels=3)
    counted.run("screening", 200)
    rows, front = counted.everything()
    assert counted.at(1 / 8) == rows
    assert front <= counted.at(1.0)


def test_the_largest_gain_is_that_of_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(20):
        losses, known = rng.random((30, 2)) - 2, rng.random((5, 2)) - 2  # below 0: no logarithms
        both = np.concatenate([losses, known])
        ends = both.min(axis=0), np.ptp(both, axis=0)
        scaled = [(part - ends[0]) / ends[1] for part in (losses, known)]
        gains = [hypervolume(np.concatenate([scaled[1], row[None]]), (1.1, 1.1)) for row in scaled[0]]
        chosen = largest_gain(losses.tolist(), known.tolist())
        assert chosen == int(np.argmax(gains)) if max(gains) > hypervolume(scaled[1], (1.1, 1.1)) else chosen is None


@pytest.mark.parametrize(
    ("losses", "known", "chosen"),
    [
        ([], [(1.0, 1.0)], None),
        ([(2.0, 2.0)], [(1.0, 1.0)], None),
        ([(1.0, 1.0)], [(1.0, 1.0)], None),
        ([(1.0, 1.0), (0.0, 3.0)], [], 0),
        ([(3.0, 0.5), (0.0, 5.0)], [(1.0, 1.0)], 1),  # a loss of 0 has a place in logarithms
    ],
)
def test_a_network_that_is_no_better_gains_nothing(losses, known, chosen):
    assert largest_gain(losses, known) == chosen


@pytest.mark.parametrize("option", ["share", "full"])
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_to_screen_on_is_less_than_everything(option, value):
    with pytest.raises(ConfigError, match=f"expected {option} to be above 0 and below 1"):
        make_searcher("screening", synthetic_problem().problem, **{option: value})


@pytest.mark.parametrize("name", ["halving", "asha", "racing", "screening"])
def test_a_source_that_scores_on_parts_itself_is_refused(name):
    with pytest.raises(ConfigError, match="expected a searcher that scores on the whole selection set, got 'asha'"):
        make_searcher(name, synthetic_problem().problem, source="asha")


@pytest.mark.parametrize("name", ["halving", "asha", "racing"])
def test_options_of_the_source_are_checked(name):
    with pytest.raises(ConfigError, match="did you mean 'population'"):
        make_searcher(name, synthetic_problem().problem, source_options={"populaton": 4})


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 20, 31])
def test_students_distribution_is_that_of_scipy(freedom):
    for t in (0.0, 0.5, 1.0, 2.5, 8.0):
        assert t_exceeded(t, freedom) == pytest.approx(stats.t.sf(t, freedom), abs=1e-13)
    for level in (0.05, 1e-3, 1e-6):
        assert t_quantile(level, freedom) == pytest.approx(stats.t.isf(level, freedom), rel=1e-8)


def test_the_statistic_is_that_of_scipy_and_sure_where_nothing_varies():
    differences = np.random.default_rng(0).normal(0.3, 1, (5, 12))
    assert t_statistic(differences) == pytest.approx(stats.ttest_1samp(differences, 0, axis=1).statistic)
    assert t_statistic(np.array([[1.0, 1.0], [0.0, 0.0], [-2.0, -2.0]])).tolist() == [np.inf, 0.0, -np.inf]


def test_looks_end_with_all_parts():
    assert looks(32) == (4, 6, 9, 14, 21, 32)
    assert looks(4) == (4,)


def race(*, own, rival, parts=32, noise=1.0, seed=0, alpha=0.05, steps=1500):
    """How far networks get that have a loss of `own` on average, beside cheaper ones of loss `rival`."""
    rng = np.random.default_rng(seed)
    synthetic = synthetic_problem(units=2, levels=64, seed=1)
    space = synthetic.problem.space
    searcher = make_searcher("racing", synthetic.problem, source="random", parts=parts, alpha=alpha)
    images = rng.normal(0, 3, parts)  # how hard each part is: the same for everyone
    measured, reached = {}, Counter()
    macs = sum(synthetic.problem.reach()["macs"]) / 2
    for _ in range(steps):
        asked = searcher.ask(1)
        if not asked:
            break
        levels = asked[0].levels
        cheap = synthetic.problem.costs_of(Candidate(levels))["macs"] < macs
        if levels not in measured:
            measured[levels] = -((rival if cheap else own) + images + rng.normal(0, noise, parts))
        count = round(asked[0].fidelity * parts)
        reached[levels] = count
        values = {**synthetic.problem.costs_of(Candidate(levels)), "accuracy": measured[levels][:count].mean()}
        searcher.tell([Evaluation(asked[0], values, parts={"accuracy": measured[levels][:count].tolist()})])
    dear = [n for row, n in reached.items() if synthetic.problem.costs_of(Candidate(row))["macs"] >= macs]
    assert space.count > len(reached) > 50
    return dear


def test_networks_that_are_as_good_as_their_rival_on_all_parts_are_hardly_ever_given_up():
    rng = np.random.default_rng(0)
    searcher = make_searcher("racing", synthetic_problem().problem, source="random", alpha=0.05)
    given_up = 0
    for _ in range(2000):  # with a probability of 0.05 there would be 129 or more in one of a thousand tests
        rival, own = rng.normal(0, 1, (2, 1, 32))
        own += rival.mean() - own.mean()
        given_up += any(searcher._is_worse(own[:, :seen], rival) for seen in looks(32)[:-1])
    assert 20 < given_up < 129


def test_networks_that_are_clearly_dominated_are_dropped_at_the_first_look():
    far = race(own=40.0, rival=0.0)
    assert np.mean(np.array(far[5:]) == 4) > 0.95  # the first ones have no rival yet


def test_pairing_finds_what_the_difficulty_of_the_images_would_hide():
    near = race(own=3.0, rival=0.0)  # as far apart as images differ from each other
    assert np.mean(near[5:]) < 16


def test_the_source_is_told_of_a_network_that_is_given_up_what_it_would_have_on_all_parts():
    problem = synthetic_problem(units=2, levels=4).problem
    searcher = make_searcher("racing", problem, source="uniform", parts=4 * 8)
    told = []
    searcher._source.tell = told.append
    hard, (rival, worse) = np.arange(32.0), (0.0, 5.0)
    cheap, dear = sorted(searcher._source.draw(2), key=lambda levels: problem.costs_of(Candidate(levels))["macs"])
    for levels, loss, counts in ((cheap, rival, (4, 6, 9, 14, 21, 32)), (dear, worse, (4,))):
        searcher._running[levels] = 0
        searcher._rungs.add([levels], 3)
        for count in counts:
            (asked,) = searcher.ask(1)
            assert asked == Candidate(levels, count / 32)
            parts = -(hard + loss)[:count]
            values = {**problem.costs_of(asked), "accuracy": parts.mean()}
            searcher.tell([Evaluation(asked, values, parts={"accuracy": parts.tolist()})])
    assert [e.values["accuracy"] for e in told] == [-15.5, -20.5]
    assert searcher.ask(1)[0].levels not in (cheap, dear)


def test_racing_needs_something_that_is_measured():
    problem = synthetic_problem(objectives=3).problem
    with pytest.raises(ConfigError, match="expected an objective that is measured"):
        make_searcher("racing", replace(problem, objectives=problem.objectives[1:]))


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, float("nan")])
def test_an_alpha_that_is_no_probability_is_refused(alpha):
    with pytest.raises(ConfigError, match="expected alpha to be a probability"):
        make_searcher("racing", synthetic_problem().problem, alpha=alpha)


def test_evopress_scores_many_on_little_and_few_on_all():
    counted = Counted(units=8, levels=8)
    found = counted.run("evopress", 1 + 64 + 8 + 2 + 64 + 8 + 2)
    assert found == {round(1 / 32, 6): 128, 0.25: 16, 1.0: 5}
    dense = counted.synthetic.problem.reach()["macs"][1]
    assert all(e.values["macs"] <= dense / 2 for e in counted.told)


def test_evopress_never_moves_to_a_worse_network():
    counted = Counted(units=8, levels=8)
    counted.run("evopress", 600, offspring=16)
    full = [e.values["kl"] for e in counted.told if e.candidate.fidelity == 1.0]
    start = full[0]
    assert min(full) < 0.8 * start


def test_rounds_of_evopress_end_and_take_finer_steps():
    counted = Counted(units=6, levels=16)
    options = {"offspring": 8, "survivors": [2, 1], "rounds": 3, "generations": 4, "reach": 2}
    found = counted.run("evopress", 10_000, **options)
    assert found[round(1 / 32, 6)] <= 3 * 4 * 8
    assert found[1.0] <= 1 + 3 * 4


@pytest.mark.parametrize(
    ("shares", "survivors"),
    [((), ()), ((0.5,), ()), ((0.5, 1.0), ()), ((0.5, 0.4, 1.0), (2, 1)), ((0.0, 1.0), (1,)), ((0.5, 1.0), (0,))],
)
def test_stages_of_evopress_must_fit_together(shares, survivors):
    with pytest.raises(ConfigError, match="expected shares that rise to 1 and"):
        make_searcher("evopress", synthetic_problem().problem, shares=shares, survivors=survivors)
