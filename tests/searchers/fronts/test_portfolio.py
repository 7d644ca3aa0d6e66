"""Portfolios: which searcher is asked, what each is told, and that nothing is measured twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoprune.core.evaluation import Evaluation
from autoprune.core.front import hypervolume
from autoprune.core.objective import Objective
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError
from autoprune.searchers import SEARCHERS
from autoprune.searchers.fronts.neighbours import NeighboursSearch
from autoprune.searchers.fronts.portfolio import PortfolioSearch
from autoprune.searchers.fronts.random import RandomSearch
from autoprune.testing import synthetic_problem, trace


class Scripted:
    """Proposes given networks one by one, even if another searcher proposed them before."""

    script: tuple = ()

    def __init__(self, problem, *, seed=0):
        self.left = list(self.script)
        self.told = []

    def ask(self, n):
        asked, self.left = self.left[:n], self.left[n:]
        return [Candidate(levels) for levels in asked]

    def tell(self, evaluations):
        self.told += [evaluation.candidate.levels for evaluation in evaluations]


class First(Scripted):
    script = ((0, 0), (1, 1), (2, 2))


class Second(Scripted):
    script = ((1, 1), (0, 0), (3, 3))


@pytest.fixture
def scripted(monkeypatch):
    for name in ("First", "Second"):
        monkeypatch.setitem(SEARCHERS, name, f"{__name__}:{name}")
    return synthetic_problem(units=2, levels=4)


def measured(searcher, synthetic, evaluations, slots=1):
    told = []

    def answer(_, candidate):
        told.append(synthetic.evaluate(candidate))
        return told[-1]

    trace(searcher, synthetic.problem, answer, evaluations, slots=slots)
    return told


@pytest.mark.parametrize("slots", [1, 2, 5])
@pytest.mark.parametrize("rule", ["ucb", "thompson"])
def test_what_several_arms_propose_is_measured_once_and_told_to_all(scripted, slots, rule):
    searcher = PortfolioSearch(scripted.problem, rule=rule, arms=["First", "Second"], first=())
    found = measured(searcher, scripted, 10, slots)
    assert sorted(e.candidate.levels for e in found) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    for standing in searcher.standings.values():
        assert set(standing.searcher.told) == {(0, 0), (1, 1), (2, 2), (3, 3)}
        assert standing.ended
    assert sum(standing.proposed for standing in searcher.standings.values()) == 4


def test_an_arm_that_proposes_what_was_told_before_gets_its_answer_at_once(scripted):
    searcher = PortfolioSearch(scripted.problem, arms=["First"], first=())
    searcher.tell([scripted.evaluate(Candidate((0, 0)))])
    assert searcher.ask(1) == [Candidate((1, 1))]
    assert searcher.standings["First"].searcher.told == [(0, 0), (0, 0)]


def test_what_comes_first_ends_before_the_arms_begin(scripted):
    searcher = PortfolioSearch(scripted.problem, arms=["Second"], first=["First"])
    assert [c.levels for c in searcher.ask(10)] == [(0, 0), (1, 1), (2, 2)]
    assert searcher.ask(10) == []  # the first waits
    searcher.tell([scripted.evaluate(Candidate(levels)) for levels in First.script])
    assert [c.levels for c in searcher.ask(10)] == [(3, 3)]


def test_the_arm_that_gains_is_asked_more_often():
    synthetic = synthetic_problem(units=20, levels=8, interaction=1.0)
    searcher = PortfolioSearch(synthetic.problem, arms=["evolution", "random"])
    measured(searcher, synthetic, 400)
    assert searcher.standings["evolution"].proposed > 2 * searcher.standings["random"].proposed
    assert searcher.remark == "evolution gains most"


def test_a_portfolio_covers_more_than_random_networks():
    synthetic = synthetic_problem(units=12, levels=8, interaction=1.0, coupled=True)
    dense = synthetic.problem.costs.dense()["macs"]

    def covered(searcher):
        losses = synthetic.problem.losses(measured(searcher, synthetic, 160)) / [1.0, dense]
        return hypervolume(losses, (0.0, 1.0))

    assert covered(PortfolioSearch(synthetic.problem)) > 1.05 * covered(RandomSearch(synthetic.problem))


def test_a_failed_network_is_worth_nothing_and_the_search_goes_on():
    synthetic = synthetic_problem(units=6, levels=5)
    searcher = PortfolioSearch(synthetic.problem, arms=["random"], first=())
    for _ in range(5):
        searcher.tell([Evaluation(c, status="failed", cause="a test") for c in searcher.ask(2)])
    assert list(searcher.standings["random"].arm.rewards) == [0.0] * 10
    assert searcher.remark == ""


def test_costs_alone_are_searched_without_plans():
    synthetic = synthetic_problem(units=4, levels=4)
    problem = replace(synthetic.problem, objectives=(Objective("macs", "min"),), distortion=None)
    searcher = PortfolioSearch(problem)
    assert list(searcher.standings) == ["evolution", "neighbours", "random"]
    assert len(trace(searcher, problem, lambda _, c: synthetic.evaluate(c), 300)) == 256


def test_no_arm_and_unknown_arms_are_errors():
    problem = synthetic_problem().problem
    with pytest.raises(ConfigError, match="expected at least one searcher as an arm of the portfolio, got none"):
        PortfolioSearch(problem, arms=[])
    with pytest.raises(ConfigError, match="did you mean 'evolution'"):
        PortfolioSearch(problem, arms=["evolutoin"])
    with pytest.raises(ConfigError, match="expected a known option of searcher 'random'"):
        PortfolioSearch(problem, arms={"random": {"population": 3}})


def test_neighbours_samples_where_the_front_gains():
    synthetic = synthetic_problem(units=10, levels=8, seed=1)
    searcher = NeighboursSearch(synthetic.problem, rungs=3)
    front = [synthetic.evaluate(c) for c in searcher.ask(3)]
    searcher.tell(front)
    low = sorted(searcher._gaps, key=lambda gap: gap.above)[0]
    for gap, arm in zip(searcher._gaps, searcher._arms, strict=True):
        arm.rewards.extend([1.0 if gap == low else 0.0] * 50)
    asked = np.array([c.levels for c in searcher.ask(40)])
    middle = 0.5 * sum(synthetic.problem.reach()["macs"])
    assert (synthetic.problem.cost_values(asked)["macs"] < middle).all()


def test_a_gap_that_is_divided_leaves_its_rewards_to_both_parts():
    synthetic = synthetic_problem(units=4, levels=6)
    searcher = NeighboursSearch(synthetic.problem, rungs=2)
    searcher.tell([synthetic.evaluate(c) for c in searcher.ask(2)])  # dense and smallest: one gap
    assert len(searcher._gaps) == 1
    searcher._arms[0].rewards.append(0.5)
    searcher.tell([synthetic.evaluate(Candidate((2, 2, 2, 2)))])
    assert [(gap.left, gap.right) for gap in searcher._gaps] == [((5,) * 4, (2,) * 4), ((2,) * 4, (0,) * 4)]
    assert [list(arm.rewards) for arm in searcher._arms] == [[0.5], [0.5]]


def test_an_arm_that_scores_on_parts_of_the_images_is_refused():
    with pytest.raises(ConfigError, match="expected a searcher that scores on the whole selection set, got 'asha'"):
        PortfolioSearch(synthetic_problem().problem, arms=["random", "asha"])
