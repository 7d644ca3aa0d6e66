"""Whole runs on a tiny network: start, resume, front, solve, export, load."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import autoprune
from autoprune.core.levels import LevelRule
from autoprune.core.objective import Objective
from autoprune.errors import (
    ConfigError,
    InfeasibleBudget,
    JournalError,
    JournalMismatch,
    RecipeError,
    RunExists,
    RunFailed,
    RunNotFound,
)
from autoprune.measure.fitness import classification
from autoprune.prune.modules.copying import model_digest
from autoprune.prune.surgery.verify import verify_positions
from autoprune.run import inspect_job, read_evaluations, read_front, resume, search, solve
from autoprune.run.after import export
from autoprune.run.records.journal import read_journal
from autoprune.run.results.members import rebuild_member
from autoprune.run.results.recipe_file import sealed
from autoprune.run.session.session import open_session
from autoprune.searchers import SEARCHERS
from autoprune.zoo.resnet import ResNet


@pytest.fixture
def compensation():
    return "sequential"


@pytest.fixture
def finished(job, made_once, tmp_path):
    return made_once("run", lambda path: search(job(), path), tmp_path / "run")


ONE_BUDGET = {"genetic", "annealing", "bees", "evopress", "spdy"}  # they look for one network
IN_PARTS = {"halving", "asha", "screening", "racing", "evopress"}  # many networks for one evaluation


QUICK = ("random", "auto", "evolution", "halving", "optuna")  # the tests of the others are slow
EACH = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SEARCHERS]


@pytest.mark.parametrize("name", EACH)
def test_every_searcher_leaves_a_front_of_smaller_networks(name, job, tmp_path):
    result = search(job(name, 6 if name in IN_PARTS else 12), tmp_path / name)
    rows = list(csv.DictReader((tmp_path / name / "front.csv").read_text().splitlines()))
    assert len(rows) == len(result.members) >= (1 if name in ONE_BUDGET else 2)
    assert list(rows[0])[:6] == ["candidate", "macs", "params", "macs_ratio", "params_ratio", "accuracy"]
    assert float(rows[-1]["macs_ratio"]) <= 1
    assert all(float(row["verify_error"]) <= 1e-4 for row in rows)


def test_rows_say_how_well_each_layer_was_fitted(finished):
    rows = json.loads((finished / "front.json").read_text())["rows"]
    fits = [row["fit"] for row in rows if any(row["levels"])]
    assert any(fit for fit in fits)
    for fit in filter(None, fits):
        assert 0 <= min(fit["unexplained"].values()) < 1
        assert fit["unexplained"].keys() == fit["ridge"].keys() == fit["rows"].keys() == fit["columns"].keys()
        assert not fit["unexplained"].keys() & fit["untouched"].keys()
    assert all(row["fit"] == {} for row in rows if not any(row["levels"]))


def test_a_run_folder_has_what_the_architecture_names(finished):
    names = {path.name for path in finished.iterdir()}
    expected = {"job.yaml", "space.json", "environment.json", "journal.jsonl", "front.csv", "front.json", "report.html"}
    assert expected <= names


def test_a_run_cut_anywhere_resumes_to_the_same_front_byte_for_byte(job, finished, tmp_path):
    front = (finished / "front.csv").read_bytes()
    whole = (finished / "journal.jsonl").read_bytes()
    rng = np.random.default_rng(0)
    for number, cut in enumerate(rng.integers(0, len(whole), 3)):
        folder = tmp_path / str(number)
        shutil.copytree(finished, folder)
        (folder / "front.csv").unlink()
        (folder / "journal.jsonl").write_bytes(whole[:cut])
        resume(job(), folder)
        assert (folder / "front.csv").read_bytes() == front
        told = [e.candidate for e in read_evaluations(folder)]
        assert told == [e.candidate for e in read_evaluations(finished)]


@pytest.mark.slow
def test_a_run_with_a_changed_byte_anywhere_is_repaired_to_the_same_front(job, finished, tmp_path):
    front = (finished / "front.csv").read_bytes()
    whole = (finished / "journal.jsonl").read_bytes()
    first, last = whole.index(b"\n"), whole.rindex(b"\n", 0, -1)
    for number, place in enumerate(np.random.default_rng(0).integers(first + 1, last, 4)):
        folder = tmp_path / str(number)
        shutil.copytree(finished, folder)
        (folder / "front.csv").unlink()
        (folder / "journal.jsonl").write_bytes(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
        with pytest.raises(JournalError, match=r"journal.jsonl:\d+: expected a record .* --repair"):
            resume(job(), folder)
        resume(job(), folder, repair=True)
        assert (folder / "front.csv").read_bytes() == front
        seconds = seconds_by_levels(folder)
        assert sum(seconds[levels] != was for levels, was in seconds_by_levels(finished).items()) <= 2


def seconds_by_levels(folder):
    """How long each evaluation took, to the last digit: another number means another evaluation."""
    return {e.candidate.levels: e.seconds for e in read_evaluations(folder) if e.status != "infeasible"}


def test_networks_that_are_scored_in_part_only_are_counted_everywhere_and_never_on_the_front(job, tmp_path):
    result = search(job("screening", 3), tmp_path / "run")
    reached = {e.candidate.levels: e.candidate.fidelity for e in result.evaluations}  # the last of each is the highest
    partial = {levels for levels, fidelity in reached.items() if fidelity < 1}
    assert result.remark.startswith(f"{len(partial)} of {len(reached)} networks were scored in part only, which saved ")
    assert result.remark in (tmp_path / "run" / "report.html").read_text()
    assert result.remark in (tmp_path / "run" / "events.jsonl").read_text()
    assert partial.isdisjoint(member.levels for member in result.members)
    assert len(result.members) > 0 < len(partial)


@pytest.mark.slow
def test_a_fork_with_more_evaluations_and_another_seed_evaluates_only_what_is_new(job, tmp_path):
    search(job("random", 15), tmp_path / "first")
    search(job("random", 40, seed=1), tmp_path / "fork", answers=tmp_path / "first")
    before, after = seconds_by_levels(tmp_path / "first"), seconds_by_levels(tmp_path / "fork")
    both = before.keys() & after.keys()
    assert len(after) == 40
    assert len(both) > 1
    assert all(before[levels] == after[levels] for levels in both)
    anew = search(job("random", 40, seed=1), tmp_path / "anew")
    assert (tmp_path / "fork" / "front.csv").read_bytes() == (tmp_path / "anew" / "front.csv").read_bytes()
    assert len(anew.evaluations) == 40


def test_a_fork_with_another_model_uses_no_evaluation_and_says_why(job, finished, tmp_path, caplog):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        other = ResNet((1, 1, 1), (4, 8, 16), classes=4).eval()
    search(job(model=lambda: other), tmp_path / "fork", answers=finished)
    assert "no evaluation of the earlier run is used: model changed since" in caplog.text
    before, after = seconds_by_levels(finished), seconds_by_levels(tmp_path / "fork")
    assert all(before[levels] != after[levels] for levels in before.keys() & after.keys())


@pytest.mark.slow
def test_the_same_seed_gives_the_same_front_and_another_seed_another_search(job, finished, tmp_path):
    search(job(), tmp_path / "again")
    assert (tmp_path / "again" / "front.csv").read_bytes() == (finished / "front.csv").read_bytes()
    search(job("random", 10), tmp_path / "a")
    search(job("random", 10, seed=1), tmp_path / "b")
    a, b = ([e.candidate for e in read_evaluations(tmp_path / name)] for name in "ab")
    assert a != b


def test_the_users_model_is_bit_identical_after_a_search(job, model, tmp_path):
    model.train()
    before, modes = model_digest(model), [m.training for m in model.modules()]
    search(job(), tmp_path / "run")
    assert model_digest(model) == before
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.slow
def test_every_network_tried_computes_what_its_masked_original_computes(job, tmp_path):
    session = open_session(job(), lambda progress: None)
    result = search(job("random", 25), tmp_path / "run")
    worst = 0.0
    for evaluation in result.evaluations:
        network = session.scorer.network(evaluation.candidate)
        positions = session.scorer.subnet(evaluation.candidate).positions
        tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        report = verify_positions(session.model, network, session.structure, positions, session.example, tensors)
        worst = max(worst, report.worst)
    assert 0 < worst <= 1e-4


def test_the_front_holds_the_dense_network_with_its_own_accuracy(job, model, data, tmp_path):
    rows = search(job(), tmp_path / "run").members
    dense = next(row for row in rows if row["macs_ratio"] == 1)
    with torch.no_grad():
        hits = sum(int((model(*b.inputs).argmax(1) == b.target).sum()) for b in data.report)
    assert dense["accuracy"] == hits / 60
    assert dense["kl"] == 0


def test_another_job_is_refused_on_resume_and_says_what_differs(job, finished):
    with pytest.raises(JournalMismatch, match="seed was 0, is 5"):
        resume(job(seed=5), finished)
    other = ResNet((1, 1, 1), (4, 8, 16), classes=4)
    with pytest.raises(JournalMismatch, match="model was"):
        resume(job(model=lambda: other), finished)


def test_a_folder_that_is_there_is_not_written_over(job, finished):
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    with pytest.raises(RunExists, match="autoprune resume"):
        search(job(), finished)
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_a_job_that_cannot_start_leaves_no_folder(job, tmp_path):
    impossible = (Objective("accuracy", "max"), Objective("macs", "min", bound=0.0001))
    with pytest.raises(InfeasibleBudget, match=r"the smallest network of this space has macs = \d+"):
        search(job(objectives=impossible), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_bound_on_a_cost_holds_for_the_whole_front(job, tmp_path):
    bounded = (Objective("accuracy", "max"), Objective("macs", "min", bound=0.6))
    result = search(job(objectives=bounded), tmp_path / "run")
    assert result.members
    assert all(row["macs_ratio"] <= 0.6 for row in result.members)
    assert all(e.values["macs"] <= 0.6 * result.session.dense_costs["macs"] for e in result.evaluations)


def test_a_bound_on_a_measured_objective_keeps_what_is_worse_off_the_front(job, tmp_path):
    rows = search(job(compensation="none"), tmp_path / "free").members
    values = sorted(row["select_accuracy"] for row in rows)
    middle = values[len(values) // 2]
    bounded = (Objective("accuracy", "max", bound=middle), Objective("macs", "min"))
    kept = search(job(objectives=bounded, compensation="none"), tmp_path / "bounded").members
    assert 0 < len(kept) < len(rows)
    assert all(row["select_accuracy"] >= middle for row in kept)


def test_a_bound_nothing_meets_leaves_an_empty_front_and_a_report(job, tmp_path):
    impossible = (Objective("accuracy", "max", bound=2.0), Objective("macs", "min"))
    assert search(job("uniform", 4, objectives=impossible), tmp_path / "run").members == ()
    assert (tmp_path / "run" / "front.csv").read_text() == "candidate,macs,params,macs_ratio,params_ratio\n"
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.slow
def test_a_run_killed_while_its_folder_was_made_can_be_resumed_or_started_again(job, finished, tmp_path):
    for name in ("space.json", "environment.json", "journal.jsonl", "front.csv", "report.html"):
        (finished / name).unlink()
    front = resume(job(), finished).members
    assert (finished / "report.html").exists()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / ".job.yaml.123").write_text("name:")
    assert search(job(), tmp_path / "half").members == front


def test_a_fitness_that_raises_stops_the_run_before_it_starts_and_says_why(job, tmp_path):
    def broken(model, batches):
        raise KeyError("lens cap")

    with pytest.raises(RunFailed, match="the dense network cannot be scored: KeyError: 'lens cap'"):
        search(job(fitness=broken), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_objective_nobody_reports_is_named_before_the_search(job, tmp_path):
    def fitness(model, batches):
        return {"acuracy": 0.5, "kl": 0.0}

    with pytest.raises(RunFailed, match=r"expected the fitness to report \['accuracy'\], .* mean 'acuracy'\?"):
        search(job(fitness=fitness), tmp_path / "run")


def test_failed_evaluations_are_recorded_with_their_cause_and_stay_off_the_front(job, tmp_path):
    def touchy(model, batches):
        if model.conv1.out_channels == 3:
            raise RuntimeError("three is too few")
        values = classification(model, batches)
        return {**values, "kl": float("nan")} if model.conv1.out_channels == 2 else values

    result = search(job("random", 30, fitness=touchy), tmp_path / "run")
    failed = [e for e in read_evaluations(tmp_path / "run") if e.status == "failed"]
    assert {e.cause for e in failed} == {
        "RuntimeError: three is too few",
        "PluginError: expected a finite fitness, got kl = nan",
    }
    assert all(row.counts["conv1"] in (1, 4) for row in result.members)


def test_a_bare_float_is_recorded_under_the_objectives_name(job, tmp_path):
    def score(model, batches):
        return float(sum(model(*b.inputs).sum() for b in batches))

    objectives = (Objective("score", "max"), Objective("params", "min"))
    rows = search(job("uniform", 6, fitness=score, objectives=objectives, guide=None), tmp_path / "run").members
    assert {"score", "select_score"} <= rows[0].keys()


def test_a_users_cost_is_an_objective_and_gets_its_ratio(job, tmp_path):
    def widest(kept):
        return float(max(kept.values()))

    objectives = (Objective("accuracy", "max"), Objective("widest", "min"))
    rows = search(job("uniform", 6, costs={"widest": widest}, objectives=objectives), tmp_path / "run").members
    assert [row["widest"] for row in rows] == [max(row.counts.values()) for row in rows]
    assert rows[0]["widest_ratio"] == rows[0]["widest"] / 16


def test_a_users_criterion_orders_the_positions(job, model):
    def first_come(weights, statistics):
        return -torch.arange(len(weights.producers[0]), dtype=torch.float64)

    session = open_session(job(criterion=first_come), lambda progress: None)
    kept = session.bank.subnet({"layer1.0.conv1": 3, "conv1": 2}).positions
    assert kept["layer1.0.conv1"].tolist() == [0, 1, 2]
    assert kept["conv1"].tolist() == [0, 1]


def test_solve_answers_another_budget_without_new_probes(job, finished):
    before = (finished / "journal.jsonl").read_bytes()
    row = solve(job(), finished, "macs=0.4")
    assert row["macs_ratio"] <= 0.4
    best = min(
        (
            e.values["kl"]
            for e in read_evaluations(finished)
            if e.ok and e.values["macs"] <= 0.4 * _dense_macs(finished)
        ),
        default=np.inf,
    )
    assert row["select_kl"] <= best
    assert (finished / "journal.jsonl").read_bytes() == before


def _dense_macs(folder):
    return json.loads((folder / "front.json").read_text())["dense"]["macs"]


def test_solve_refuses_what_is_no_cost_and_what_is_out_of_reach(job, finished):
    with pytest.raises(ConfigError, match=r"expected a budget on one of \['macs', 'params'\]"):
        solve(job(), finished, "accuracy=0.4")
    with pytest.raises(InfeasibleBudget, match="least|smallest"):
        solve(job(), finished, "macs=0.0001")


def test_a_run_that_measured_nothing_cannot_be_solved_yet(job, finished):
    (finished / "journal.jsonl").unlink()
    with pytest.raises(RunNotFound, match="stopped before it measured anything"):
        solve(job(), finished, "macs=0.5")


@pytest.mark.slow
def test_a_run_is_resumed_with_the_threads_it_was_started_with(job, tmp_path):
    search(job("uniform", 2, threads=2), tmp_path / "run")
    front = (tmp_path / "run" / "front.csv").read_bytes()
    seen = []
    resume(job("uniform", 2, threads=1), tmp_path / "run", lambda progress: seen.append(torch.get_num_threads()))
    assert set(seen) == {2}
    assert (tmp_path / "run" / "front.csv").read_bytes() == front


def test_another_criterion_is_refused_on_resume(job, finished):
    with pytest.raises(JournalMismatch, match="criterion was obs, is l1"):
        resume(job(criterion="l1"), finished)


def test_an_export_loads_into_a_fresh_model_and_does_what_its_row_says(job, finished, data, tmp_path):
    row = export(job(), finished, "macs<=0.6", tmp_path / "small")
    small = autoprune.load(ResNet((1, 1, 1), (4, 8, 16), classes=4).eval(), tmp_path / "small")
    assert sum(p.numel() for p in small.parameters()) == row["params"]
    with torch.no_grad():
        hits = sum(int((small(*b.inputs).argmax(1) == b.target).sum()) for b in data.report)
    assert hits / 60 == row["accuracy"]
    assert row == next(r for r in read_front(finished) if r["candidate"] == row["candidate"])
    assert {path.name for path in (tmp_path / "small").iterdir()} == {"recipe.json", "weights.safetensors"}


def deep():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ResNet((2, 2, 2), (4, 8, 16), classes=4).eval()


@pytest.mark.parametrize(
    "searcher", ["auto", *(pytest.param(name, marks=pytest.mark.slow) for name in SEARCHERS if name != "auto")]
)
def test_depth_and_width_are_searched_together_exported_and_loaded(job, data, tmp_path, searcher):
    rules = (LevelRule("*", (1, 0), kind="branches"), LevelRule("*", (0.5,)))
    deep_job = job(searcher, 10 if searcher in IN_PARTS else 30, model=deep, rules=rules)
    result = search(deep_job, tmp_path / "run")
    branches = [name for name in result.members[0].counts if name.endswith("/branch")]
    assert len(branches) == 4  # the first block of the second and third stage halves its image
    shallow = [row for row in result.members if not all(row.counts[name] for name in branches)]
    assert shallow
    for number, row in enumerate(shallow[:2]):
        pick = f"macs<={row['macs']}"
        exported = export(deep_job, tmp_path / "run", pick, tmp_path / str(number))
        small = autoprune.load(ResNet((2, 2, 2), (4, 8, 16), classes=4).eval(), tmp_path / str(number))
        assert sum(p.numel() for p in small.parameters()) == exported["params"]
        again = rebuild_member(result.session, exported).network
        inputs = next(iter(data.report)).inputs
        torch.testing.assert_close(small(*inputs), again(*inputs), rtol=0, atol=0)


def test_default_levels_leave_branches_alone(job):
    found = inspect_job(job(model=deep, rules=(LevelRule("*", (1, 0.5, 0.125)),)))
    assert [unit.kind for unit in found.units].count("branches") == 4
    assert not any(name.endswith("/branch") for name in found.levels)


def test_an_export_without_the_tensors_it_should_have_is_refused(job, tmp_path):
    rules = (LevelRule("*", (1, 0), kind="branches"),)
    deep_job = job("uniform", 2, model=deep, rules=rules)
    search(deep_job, tmp_path / "run")
    export(deep_job, tmp_path / "run", "macs<=0.9", tmp_path / "small")
    recipe = json.loads((tmp_path / "small" / "recipe.json").read_text())
    assert recipe["skipped"]
    (tmp_path / "small" / "recipe.json").write_text(json.dumps(sealed({**recipe, "skipped": {}})))
    with pytest.raises(RecipeError, match="weights and recipe do not belong together"):
        autoprune.load(deep(), tmp_path / "small")


def test_an_export_is_not_written_over(job, finished, tmp_path):
    export(job(), finished, "macs<=0.6", tmp_path / "small")
    with pytest.raises(RunExists, match="Give another --out"):
        export(job(), finished, "macs<=0.6", tmp_path / "small")


def test_loading_into_another_network_says_how_it_differs(job, finished, tmp_path):
    export(job(), finished, "macs<=0.6", tmp_path / "small")
    with pytest.raises(RecipeError, match=r"conv1.weight is \(8, 3, 3, 3\), not \(4, 3, 3, 3\)"):
        autoprune.load(ResNet((1, 1, 1), (8, 8, 16), classes=4), tmp_path / "small")
    with pytest.raises(RecipeError, match="unexpected"):
        autoprune.load(ResNet((2, 1, 1), (4, 8, 16), classes=4), tmp_path / "small")


def test_a_damaged_or_missing_export_is_told(job, finished, tmp_path):
    fresh = ResNet((1, 1, 1), (4, 8, 16), classes=4)
    with pytest.raises(RecipeError, match="has no recipe.json"):
        autoprune.load(fresh, tmp_path)
    export(job(), finished, "macs<=0.6", tmp_path / "small")
    weights = tmp_path / "small" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:50])
    with pytest.raises(RecipeError, match="the export is damaged"):
        autoprune.load(fresh, tmp_path / "small")


def test_no_front_and_no_run_are_told(tmp_path, job, finished):
    with pytest.raises(RunNotFound, match=r"found none at"):
        read_front(tmp_path / "nothing")
    (finished / "front.json").unlink()
    with pytest.raises(RunNotFound, match="autoprune resume"):
        read_front(finished)


def test_picks_read_the_table_as_a_user_does(finished):
    rows = read_front(finished)
    (picked,) = read_front(finished, "macs<=0.5")
    assert picked["macs_ratio"] <= 0.5
    assert picked["select_kl"] == min(row["select_kl"] for row in rows if row["macs_ratio"] <= 0.5)
    assert read_front(finished, "macs_ratio<=0.5") == [picked]
    with pytest.raises(InfeasibleBudget, match="no member of the front satisfies"):
        read_front(finished, "macs<=0.0001")


def test_inspect_knows_the_reach_without_running(job):
    found = inspect_job(job())
    assert found.reach["macs"][1] == sum(_macs_by_hand())
    assert set(found.levels) == {unit.name for unit in found.units if not unit.is_branch}
    json.dumps(found.to_json())


def _macs_by_hand():
    """Widths 4, 8, 16 at 8, 4 and 2 pixels a side, one block each, 4 classes."""
    yield 64 * 9 * 3 * 4
    yield from (64 * 9 * (4 * 4 + 4 * 4), 16 * 9 * (4 * 8 + 8 * 8), 4 * 9 * (8 * 16 + 16 * 16), 16 * 4)


def test_the_front_is_never_larger_than_asked(job, tmp_path):
    result = search(replace(job("random", 30), front_size=3), tmp_path / "run")
    ratios = [row["macs_ratio"] for row in result.members]
    assert len(ratios) == 3
    assert ratios[-1] == 1


def test_a_journal_begins_with_what_identifies_the_run(finished):
    header = read_journal(finished / "journal.jsonl")[0]
    assert header["kind"] == "run"
    assert {"space", "objectives", "seed", "model", "data", "evaluations", "guide"} <= header["identity"].keys()


def test_a_run_says_how_far_damages_added_up_in_its_result_its_folder_and_its_report(job, tmp_path):
    result = search(job("additive", 30), tmp_path / "run")
    lines = (tmp_path / "run" / "additivity.csv").read_text().splitlines()
    assert lines[0] == f"# {result.additivity}"
    assert lines[1] == "levels,predicted,measured,gap"
    for line in lines[2:]:
        levels, predicted, measured, gap = line.split(",")
        assert sum(level != "0" for level in levels.split("-")) > 1
        assert float(gap) == pytest.approx(float(measured) - float(predicted))
    assert len(lines) > 4
    assert f"Do damages add up? {result.additivity}." in (tmp_path / "run" / "report.html").read_text()
