"""Trackers are told of every start, every new evaluation and the front, and cannot end or change a run."""

from __future__ import annotations

import functools
import json
import sys

import pytest

from autoprune.config import load
from autoprune.core.contracts import Tracker
from autoprune.errors import ConfigError, Interrupted, PluginError
from autoprune.run import read_evaluations, resume, search


class Recording:
    """Keeps the calls it gets."""

    def __init__(self):
        self.calls = []

    def started(self, facts):
        self.calls.append(("started", facts))

    def evaluated(self, evaluation, n, total):
        self.calls.append(("evaluated", evaluation, n, total))

    def finished(self, rows):
        self.calls.append(("finished", rows))

    def of(self, hook):
        return [call[1:] for call in self.calls if call[0] == hook]


def test_a_tracker_is_told_of_the_start_every_evaluation_and_the_front(job, tmp_path):
    tracker = Recording()
    result = search(job("random", 6, trackers=(tracker,)), tmp_path / "run")
    assert [call[0] for call in tracker.calls] == ["started", *["evaluated"] * 6, "finished"]
    ((facts,),) = tracker.of("started")
    assert (facts["name"], facts["done"], facts["evaluations"], facts["seed"]) == ("tiny", 0, 6, 0)
    assert facts["folder"] == str(tmp_path / "run")
    assert facts["objectives"] == [["accuracy", "max"], ["macs", "min"]]
    assert facts["dense"] == result.session.dense_costs
    json.dumps(facts)
    assert [(n, total) for _, n, total in tracker.of("evaluated")] == [(n, 6) for n in range(1, 7)]
    assert [evaluation for evaluation, _, _ in tracker.of("evaluated")] == list(result.evaluations)
    ((rows,),) = tracker.of("finished")
    assert rows == [member.flat() for member in result.members]


def test_a_resumed_run_starts_again_and_repeats_no_evaluation(job, tmp_path):
    class Stopping(Recording):
        def evaluated(self, evaluation, n, total):
            super().evaluated(evaluation, n, total)
            if n == 3:
                raise Interrupted(2)

    first, second = Stopping(), Recording()
    with pytest.raises(KeyboardInterrupt):
        search(job("random", 6, trackers=(first,)), tmp_path / "run")
    resume(job("random", 6, trackers=(second,)), tmp_path / "run")
    assert [call[0] for call in second.calls] == ["started", *["evaluated"] * 3, "finished"]
    assert second.of("started")[0][0]["done"] == 3
    told = [evaluation.candidate for one in (first, second) for evaluation, _, _ in one.of("evaluated")]
    assert told == [evaluation.candidate for evaluation in read_evaluations(tmp_path / "run")]
    third = Recording()
    resume(job("random", 6, trackers=(third,)), tmp_path / "run")
    assert [call[0] for call in third.calls] == ["started", "finished"]


def test_failed_evaluations_are_told_with_their_cause(job, model):
    half = sum(parameter.numel() for parameter in model.parameters()) / 2

    def failing(network, batches):
        if sum(parameter.numel() for parameter in network.parameters()) < half:
            raise ValueError("no measure")
        return 0.5

    tracker = Recording()
    search(job("random", 12, fitness=failing, guide=None, trackers=(tracker,)), None)
    failed = [evaluation for evaluation, _, _ in tracker.of("evaluated") if not evaluation.ok]
    assert failed
    assert all("no measure" in evaluation.cause for evaluation in failed)
    assert tracker.of("started")[0][0]["folder"] is None


def breaking(hook, error):
    """A tracker that raises in one hook."""

    def fail(self, *given):
        Recording.__dict__[hook](self, *given)
        raise error

    return type("Breaking", (Recording,), {hook: fail})()


@pytest.mark.parametrize("error", [ValueError("no server"), SystemExit(3)], ids=["an error", "an exit"])
@pytest.mark.parametrize("hook", ["started", "evaluated", "finished"])
def test_a_tracker_that_raises_is_a_warning_and_dropped(job, tmp_path, caplog, hook, error):
    broken, other = breaking(hook, error), Recording()
    search(job("random", 3, trackers=(broken, other)), tmp_path / "run")
    assert [call[0] for call in other.calls] == ["started", *["evaluated"] * 3, "finished"]
    assert [call[0] for call in broken.calls] == [call[0] for call in other.calls][: len(broken.calls)]
    assert broken.calls[-1][0] == hook
    assert len(broken.of(hook)) == 1
    warning = f"the tracker Breaking raised {type(error).__name__}: {error} when it was told what was {hook}"
    assert warning in caplog.text
    assert warning in (tmp_path / "run" / "events.jsonl").read_text()


def test_what_a_tracker_does_with_what_it_gets_changes_no_result(job, tmp_path):
    class Writing:
        def started(self, facts):
            facts["dense"].clear()

        def evaluated(self, evaluation, n, total):
            evaluation.values.clear()

        def finished(self, rows):
            for row in rows:
                row.clear()

    search(job("random", 4), tmp_path / "a")
    result = search(job("random", 4, trackers=(Writing(), Writing())), tmp_path / "b")
    assert all(member["macs"] > 0 for member in result.members)
    first, second = ((tmp_path / name / "front.csv").read_bytes() for name in "ab")
    assert first == second


def test_a_tracker_may_be_made_when_the_run_starts_and_one_that_cannot_be_is_a_warning(job, caplog):
    made = []

    def make(fails):
        if fails:
            raise ConnectionError("no server at token=abcdef123")
        made.append(Recording())
        return made[-1]

    search(job("random", 2, trackers=(functools.partial(make, True), functools.partial(make, False))), None)
    assert [call[0] for call in made[0].calls] == ["started", "evaluated", "evaluated", "finished"]
    assert "make raised ConnectionError: no server at token=*** when it was made" in caplog.text.replace(
        "test_a_tracker_may_be_made_when_the_run_starts_and_one_that_cannot_be_is_a_warning.<locals>.", ""
    )


class NoEnd:
    def started(self, facts):
        pass

    def evaluated(self, evaluation, n, total):
        pass


@pytest.mark.parametrize(
    ("tracker", "error", "message"),
    [
        (
            NoEnd,
            PluginError,
            "expected the tracker NoEnd to be an object with started, evaluated, finished.*no finished",
        ),
        (lambda: Recording, PluginError, "which is not made yet"),
        (lambda: None, PluginError, "has no started and no evaluated and no finished"),
        ("log.csv", ConfigError, "trackers: expected objects with started, .* got a str among them"),
    ],
)
def test_what_is_no_tracker_is_told_before_anything_is_written(job, tmp_path, tracker, error, message):
    with pytest.raises(error, match=message):
        search(job("random", 2, trackers=(tracker,)), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_class_of_trackers_is_a_tracker_that_is_made():
    assert isinstance(Recording(), Tracker)
    assert not isinstance(NoEnd(), Tracker)


def test_a_job_file_names_trackers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_tracker.py").write_text(
        "class Log:\n    def __init__(self, path):\n        self.path = path\n\n"
        "    def started(self, facts): pass\n    def evaluated(self, evaluation, n, total): pass\n"
        "    def finished(self, rows): pass\n"
    )
    (tmp_path / "job.yaml").write_text(
        "version: 1\nmodel: {call: 'autoprune.zoo:digits_resnet'}\ndata: {call: 'autoprune.data:digits'}\n"
        "objectives: [{name: accuracy, direction: max}]\nspace: {version: 1, units: [{match: '*', levels: 4}]}\n"
        "run: {trackers: [{call: 'my_tracker.py:Log', path: log.csv}]}\n"
    )
    spec = load("job.yaml", ())
    (make,) = spec.resolve().trackers
    assert make().path == "log.csv"
    assert spec.document()["run"]["trackers"][0]["path"] == "log.csv"
    with pytest.raises(ConfigError, match=r"run.trackers.0.path: expected the argument 'path', it is missing"):
        load("job.yaml", ["run.trackers=[{call: 'my_tracker.py:Log'}]"])
    assert "my_tracker" not in sys.modules
