"""What a run answers to a budget, against every network of a tiny space built by itself."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from autoprune.core.evaluation import Evaluation
from autoprune.core.levels import LevelRule
from autoprune.core.objective import Objective
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError, InfeasibleBudget, VerifyError
from autoprune.run.after import solve
from autoprune.run.drive import search
from autoprune.run.results import solving
from autoprune.run.results.members import build_member
from autoprune.run.session.session import open_session

RULES = (LevelRule("layer[12].0.conv1", (0.25, 0.5, 0.75)),)
FEWER = (LevelRule("layer[12].0.conv1", (0.5, 0.75)),)  # nine networks, for searches that fit them


@pytest.fixture
def compensation():
    return "sequential"


def quiet(progress):
    pass


def milliseconds(kept):
    return 1.0 + kept["layer1.0.conv1"] + 3 * kept["layer2.0.conv1"] // 2


def small(job, **changes):
    """Two units of four levels, if no other rules are given: sixteen networks."""
    return job("random", 16, **{"rules": RULES, "costs": {"ms": milliseconds}, **changes})


def every_network(asked):
    """Rows of all networks of the space, each built and measured by itself."""
    session = open_session(asked, quiet)
    levels = np.stack(np.unravel_index(np.arange(session.space.count), session.space.sizes), axis=1)
    candidates = [Candidate(tuple(row)) for row in levels.tolist()]
    scored = [session.scorer.score(candidate) for candidate in candidates]
    return [build_member(session, Evaluation(e.candidate, e.values)).member for e in scored]


@pytest.fixture
def run(job, made_once, tmp_path):
    def made(**changes):
        asked = small(job, **changes)
        return asked, made_once(repr(changes), lambda path: search(asked, path), tmp_path / "run")

    return made


SEARCH = {"compensation": "none"}  # faster, and nothing else changes
BY_KL = (Objective("kl", "min"), Objective("ms", "min"), Objective("macs", "min"))
CASES = {
    "accuracy guided by kl": ({"rules": FEWER}, "select_kl", {"macs=0.9": {"macs_ratio": 0.9}}),
    "accuracy itself": (
        {"guide": None, **SEARCH},
        "select_accuracy",
        {"macs=0.95,params=0.9": {"macs_ratio": 0.95, "params_ratio": 0.9}},
    ),
    "several costs and a user's": (
        {"objectives": BY_KL, **SEARCH},
        "select_kl",
        {"ms=0.7": {"ms_ratio": 0.7}, "params=0.9,ms=12": {"params_ratio": 0.9, "ms": 12}},
    ),
}


@pytest.mark.parametrize(
    "case", [c if c == "accuracy itself" else pytest.param(c, marks=pytest.mark.slow) for c in CASES]
)
def test_the_answer_is_the_best_of_all_networks_as_built(case, run):
    changes, column, budgets = CASES[case]
    sign = -1 if "accuracy" in column else 1
    asked, folder = run(**changes)
    networks = every_network(asked)
    for budget, limits in budgets.items():
        within = [row for row in networks if all(row[name] <= most for name, most in limits.items())]
        found = solve(asked, folder, budget)
        assert 0 < len(within) < len(networks)
        assert all(found[name] <= most for name, most in limits.items())
        assert sign * found[column] == pytest.approx(min(sign * row[column] for row in within), abs=1e-6)


def test_a_member_of_the_front_that_betters_the_plan_is_the_answer(run, monkeypatch):
    asked, folder = run(**SEARCH)
    worst = (3, 3)
    monkeypatch.setattr(solving, "plan", lambda problem, table, cost, budget: worst)
    found = solve(asked, folder, "macs=0.95")
    assert found.levels != tuple(worst)
    assert found.solved["source"].startswith(("member of the front", "evaluated network"))
    assert "plan" not in found.solved["source"]
    assert re.search(r"the plan has kl \S+ at macs \S+; ", found.solved["why"])
    rows = json.loads((folder / "front.json").read_text())["rows"]
    assert found["select_kl"] <= min(row["select_kl"] for row in rows if row["macs_ratio"] <= 0.95)


def test_a_run_without_a_front_is_answered_from_its_journal(run):
    asked, folder = run(**SEARCH)
    before = solve(asked, folder, "macs=0.95")
    (folder / "front.json").unlink()
    after = solve(asked, folder, "macs=0.95")
    assert after.levels == before.levels
    assert "member of the front" not in after.solved["source"]
    assert after.solved["compared"]["member of the front"] == 0


def test_a_plan_that_was_not_evaluated_is_built_and_compared(job, tmp_path):
    asked = job("uniform", 3, rules=RULES)
    search(asked, tmp_path / "run")
    found = solve(asked, tmp_path / "run", "macs=0.93")
    assert found.solved["compared"]["plan"] == 1
    assert found["macs_ratio"] <= 0.93


def test_a_budget_below_the_smallest_network_is_told_with_what_can_be_reached(run):
    asked, folder = run(**SEARCH)
    with pytest.raises(InfeasibleBudget, match="the smallest network of this space has macs"):
        solve(asked, folder, "macs=0.01")
    with pytest.raises(InfeasibleBudget, match="the smallest network of this space has ms"):
        solve(asked, folder, "macs=0.9,ms=1e-3")


def test_a_budget_on_something_else_than_a_cost_is_refused(run):
    asked, folder = run(**SEARCH)
    for budget in ("accuracy=0.9", "macs>=0.5", "macs=0.5,speed=2", "macs", ""):
        with pytest.raises(ConfigError, match="expected a b"):
            solve(asked, folder, budget)


def test_a_bound_of_the_job_that_no_network_within_the_budget_meets_is_told(run):
    bounded = (Objective("accuracy", "max", bound=1.0), Objective("macs", "min"))
    asked, folder = run(objectives=bounded, **SEARCH)
    with pytest.raises(
        InfeasibleBudget, match=r"no network within macs<=\S+ is within the bounds of the job, accuracy>=1"
    ):
        solve(asked, folder, "macs=0.9")


def test_the_next_best_is_the_answer_where_the_best_is_not_what_it_was_masked_to_be(run, monkeypatch, caplog):
    asked, folder = run(**SEARCH)
    (folder / "front.json").unlink()
    best = solve(asked, folder, "macs=0.95").levels
    real = solving.build_member

    def broken(session, evaluation):
        if evaluation.candidate.levels == best:
            raise VerifyError("a test")
        return real(session, evaluation)

    monkeypatch.setattr(solving, "build_member", broken)
    assert solve(asked, folder, "macs=0.95").levels != best
    assert "left out: a test" in caplog.text


@pytest.mark.slow
def test_what_is_written_is_the_answer(run, tmp_path):
    asked, folder = run(rules=FEWER)
    found = solve(asked, folder, "macs=0.95", tmp_path / "small")
    measured = json.loads((tmp_path / "small" / "recipe.json").read_text())["measured"]
    assert measured["levels"] == list(found.levels)
    assert measured["select_kl"] == found["select_kl"]
