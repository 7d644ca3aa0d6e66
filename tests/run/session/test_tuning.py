"""Tuning: what is chosen from given speeds and rankings, and that a run repeats its choice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from autoprune.config import load
from autoprune.errors import ConfigError
from autoprune.measure.fitness import classification
from autoprune.measure.form import DEFAULT_FORM, Form, Tuning
from autoprune.measure.settings import Scoring
from autoprune.run.drive import resume, search
from autoprune.run.executors.parcel import pack, unpack
from autoprune.run.session import tuning
from autoprune.run.session.job import silent
from autoprune.run.session.session import open_session
from autoprune.run.session.tuning import tune


@pytest.fixture
def session(job):
    return open_session(job("uniform", 4, tune="off"), silent)


def tuned(session, monkeypatch, rate, agreement=1.0, evaluations=10**9):
    """The tuning where a form runs `rate(form)` examples a second."""

    def measured(self, form):
        speed = rate(form)
        if isinstance(speed, Exception):
            raise speed
        return speed

    monkeypatch.setattr(tuning._Bench, "_examples_per_second", measured)
    monkeypatch.setattr(tuning._Bench, "agreement", lambda self, form, problem, guide: agreement)
    return tune(session.scorer, session.problem, evaluations, "kl")


def test_a_search_that_is_short_anyway_is_not_tuned_and_says_so(session, monkeypatch):
    chosen = tuned(session, monkeypatch, lambda form: 1000.0, evaluations=300)
    examples = 40 + 40
    assert chosen.form == DEFAULT_FORM
    assert chosen.reason == f"300 scores take about {300 * examples / 1000:.0f} s in all: too little for tuning to pay"
    assert len(chosen.trials) == 1


def test_the_fastest_form_is_taken_one_thing_after_the_other(session, monkeypatch):
    def rate(form):
        return 100.0 * (2 if form.layout == "contiguous" else 1) * (1.5 if form.batch == 50 else 1)

    chosen = tuned(session, monkeypatch, rate)
    assert chosen.form == Form("contiguous", batch=50)
    assert max(t.examples_per_second for t in chosen.trials) == rate(chosen.form)


def test_a_gain_within_the_noise_changes_nothing(session, monkeypatch):
    assert tuned(session, monkeypatch, lambda form: 100.0 if form == DEFAULT_FORM else 109.0).form == DEFAULT_FORM


@pytest.mark.parametrize(("agreement", "dtype"), [(1.0, "bfloat16"), (0.98, "bfloat16"), (0.97, "float32")])
def test_bfloat16_is_taken_only_where_it_ranks_alike(session, monkeypatch, agreement, dtype):
    chosen = tuned(session, monkeypatch, lambda form: 200.0 if form.dtype == "bfloat16" else 100.0, agreement)
    assert chosen.form.dtype == dtype
    assert f"Kendall tau {agreement:.3f}" in chosen.reason


def test_bfloat16_that_cannot_be_ranked_is_not_taken(session, monkeypatch):
    chosen = tuned(session, monkeypatch, lambda form: 200.0 if form.dtype == "bfloat16" else 100.0, float("nan"))
    assert chosen.form.dtype == "float32"


def test_a_form_the_network_does_not_run_in_is_noted_and_passed_over(session, monkeypatch):
    def rate(form):
        return 100.0 if form.layout is None else RuntimeError("no such layout here")

    chosen = tuned(session, monkeypatch, rate)
    assert chosen.form.layout is None
    assert "RuntimeError: no such layout here" in {trial.note for trial in chosen.trials}


def test_where_batches_have_their_own_statistics_their_size_stays(session, monkeypatch):
    scorer = session.scorer.with_scoring(batch_norms="batch")
    monkeypatch.setattr(tuning._Bench, "_examples_per_second", lambda self, form: 100.0 * (form.batch or 1))
    monkeypatch.setattr(tuning._Bench, "agreement", lambda *_: 1.0)
    chosen = tune(scorer, session.problem, 10**9, "kl")
    assert {trial.form.batch for trial in chosen.trials} == {None}


@pytest.mark.slow
def test_timing_and_ranking_run_on_a_real_network(session, monkeypatch):
    monkeypatch.setattr(tuning, "WORTH_SECONDS", 0.0)
    chosen = tune(session.scorer, session.problem, 300, "kl")
    assert all(trial.examples_per_second for trial in chosen.trials)
    assert {trial.form.dtype for trial in chosen.trials} == {"float32", "bfloat16"}
    bench = tuning._Bench(session.scorer)
    assert bench.agreement(Form("contiguous"), session.problem, "kl") == pytest.approx(1.0)
    assert bench.agreement(Form("contiguous"), session.problem, "kl") == bench.agreement(
        Form("contiguous"), session.problem, "kl"
    )


def test_a_tuning_is_the_same_after_json():
    made = Tuning(Form("contiguous", "bfloat16", 50, 2), "why", (tuning.Trial(DEFAULT_FORM, None, "no"),))
    assert Tuning.from_json(json.loads(json.dumps(made.to_json()))) == made


@pytest.mark.slow
def test_a_resumed_run_scores_in_the_form_it_began_with(job, tmp_path, monkeypatch):
    form = Form("contiguous", "bfloat16", 10, 1)
    search(job("uniform", 4, tune=form), tmp_path / "run")
    front = (tmp_path / "run" / "front.csv").read_bytes()
    lines = (tmp_path / "run" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "run" / "journal.jsonl").write_bytes(b"".join(lines[:4]))
    again = resume(job("uniform", 4, tune="auto"), tmp_path / "run")
    assert again.session.scorer.scoring.form == form
    assert (tmp_path / "run" / "front.csv").read_bytes() == front


def test_bfloat16_is_chosen_before_any_candidate_is_scored_and_sent_to_workers(job, monkeypatch, tmp_path):
    monkeypatch.setattr(tuning, "WORTH_SECONDS", 0.0)
    monkeypatch.setattr(tuning._Bench, "_examples_per_second", lambda self, form: 1 + 99.0 * (form.dtype == "bfloat16"))
    monkeypatch.setattr(tuning._Bench, "agreement", lambda *_: 1.0)
    low, said = [], []

    def fitness(model, batches):
        low.append(torch.is_autocast_enabled("cpu"))
        return classification(model, batches)

    result = search(job("uniform", 3, fitness=fitness), None, progress=said.append)
    phases = [*dict.fromkeys(step.phase for step in said)]
    assert phases.index("dense") < phases.index("statistics") < phases.index("tuning") < phases.index("search")
    assert low[:5] == [False, True, True, True, True]  # the dense network; again, as candidates are; three candidates
    assert not any(low[5:])  # networks of the front
    assert "100.0 times as fast as that of the data" in result.session.tuning.reason
    with (tmp_path / "parcel").open("wb") as file:
        pack(result.session.scorer, file, 1)
    assert unpack(tmp_path / "parcel").scorer.scoring.form.dtype == "bfloat16"


def test_the_environment_says_which_form_and_why(job, tmp_path):
    search(job("uniform", 3), tmp_path / "run")
    found = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert found["tuning"]["form"] == DEFAULT_FORM.to_json()
    assert "too little for tuning to pay" in found["tuning"]["reason"]


def test_what_is_exported_has_nothing_of_the_form(job):
    low = open_session(job("uniform", 4, tune=Form(dtype="bfloat16")), silent)
    high = open_session(job("uniform", 4, tune="off"), silent)
    smallest = low.space.smallest
    low.scorer.score(smallest)
    networks = [session.scorer.network(smallest).state_dict() for session in (low, high)]
    assert all((networks[0][name] == tensor).all() for name, tensor in networks[1].items())


@pytest.mark.parametrize("norms", ["reestimated", "eagleeye", "batch"])
def test_a_job_runs_with_every_form_of_batch_norms(job, norms):
    result = search(job("uniform", 4, scoring=Scoring(norms)), None)
    assert len(result.members) > 1
    assert all(row["verify_error"] < 1e-4 for row in result.members)


@pytest.mark.parametrize(
    "guide", ["mse", *(pytest.param(name, marks=pytest.mark.slow) for name in ("loss", "accuracy", "layer"))]
)
def test_a_job_is_guided_by_every_distortion(job, guide):
    result = search(job("additive", 30, guide=guide), None)
    assert all(guide in evaluation.values for evaluation in result.evaluations)
    dense = next(e for e in result.evaluations if not any(e.candidate.levels))
    small = next(e for e in result.evaluations if e.candidate == result.session.space.smallest)
    if guide in ("mse", "layer"):
        assert dense.values[guide] == pytest.approx(0, abs=1e-9) != small.values[guide]


QUICKSTART = Path(__file__).parents[3] / "configs" / "quickstart.yaml"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("auto", "auto"),
        ("off", "off"),
        ("{dtype: bfloat16, batch: 250}", Form(dtype="bfloat16", batch=250)),
        ("{layout: channels_last, threads: 2}", Form("channels_last", threads=2)),
    ],
)
def test_a_job_file_says_how_scores_are_run(written, meant):
    spec = load(QUICKSTART, [f"run.tune={written}"])
    assert spec.resolve().tune == meant


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("{}", "expected auto, off, or a form such as {dtype: bfloat16}, got none of them"),
        ("{mode: auto, batch: 3}", "got auto and batch"),
        ("sometimes", "run.tune.mode: expected 'auto' or 'off'"),
        ("{batch: 0}", "run.tune.batch: expected at least 1"),
    ],
)
def test_a_form_that_is_none_is_refused(written, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load(QUICKSTART, [f"run.tune={written}"])


def test_a_job_file_names_batch_norms_and_memory():
    job = load(QUICKSTART, ["search.batch_norms=batch", "run.reuse_gib=0.5"]).resolve()
    assert (job.scoring.batch_norms, job.scoring.reuse_bytes) == ("batch", 1 << 29)
    with pytest.raises(
        ConfigError, match="search.batch_norms: expected 'anchored', 'reestimated', 'eagleeye' or 'batch'"
    ):
        load(QUICKSTART, ["search.batch_norms=none_such"])
