"""Recoveries of a tiny run: checkpoints, resumption, results in the folder, and requests that are refused."""

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import autoprune
from autoprune.errors import ConfigError, JournalLocked, RunDamaged, RunExists, RunFailed, RunNotFound
from autoprune.run import read_front, read_recovered, recover, search, write_report
from autoprune.run.recovery.checkpoints import CHECKPOINT
from autoprune.run.recovery.written import folder_name

pytestmark = pytest.mark.slow

OPTIONS = autoprune.Recovery(steps=6, lr=0.05, evaluate=2, batch_size=16, ema=0.3)


class Stopped(Exception):
    """A process that ended."""


@pytest.fixture
def make(job, trainable):
    return lambda **changes: job(evaluations=8, data=lambda: trainable, recover=OPTIONS, **changes)


@pytest.fixture
def run(make, made_once, tmp_path):
    return made_once("run", lambda path: search(make(), path), tmp_path / "run")


def weights(run, name):
    return load_file(run / "recovered" / name / "network" / "weights.safetensors")


def stopping(done):
    """Progress that ends the process after a step."""

    def report(progress):
        if progress.phase == "recovery" and progress.done == done:
            raise Stopped

    return report


def test_a_network_is_recovered_measured_and_exported_and_the_front_stays(make, run, tmp_path):
    front = (run / "front.csv").read_bytes(), (run / "front.json").read_bytes()
    before = read_front(run)[0]
    seen = []
    found = recover(make(), run, "#1", tmp_path / "out", progress=seen.append)
    steps = [progress.done for progress in seen if progress.phase == "recovery"]
    assert steps == list(range(7))
    assert "best at step" in seen[-2].message
    assert front == ((run / "front.csv").read_bytes(), (run / "front.json").read_bytes())
    assert read_recovered(run) == [found]
    points = found.recovered["history"]
    assert [point["step"] for point in points] == [0, 2, 4, 6]
    values = [(-point["values"]["accuracy"], point["values"]["kl"]) for point in points]
    assert found.recovered["best_step"] == points[values.index(min(values))]["step"]
    assert found.select["accuracy"] >= before.select["accuracy"]
    assert (found.candidate, found.costs) == (before.candidate, before.costs)
    network = autoprune.load(make().model(), tmp_path / "out")
    images = make().data().report
    hits = sum((network(*batch.inputs).argmax(1) == batch.target).sum().item() for batch in images)
    assert found.report["accuracy"] == pytest.approx(hits / 60)
    assert found.intervals["accuracy"][0] < found.report["accuracy"] < found.intervals["accuracy"][1]
    assert not (run / "recovered" / found.candidate / CHECKPOINT).exists()


def test_a_complete_recovery_is_not_trained_again(make, run, tmp_path):
    found = recover(make(), run, "#1")
    phases = []
    again = recover(make(), run, "#1", tmp_path / "out", progress=lambda progress: phases.append(progress.phase))
    assert again == found
    assert "recovery" not in phases
    assert load_file(tmp_path / "out" / "weights.safetensors").keys() == weights(run, found.candidate).keys()


@pytest.mark.parametrize("step", [0, 3])
def test_a_recovery_that_was_stopped_goes_on_to_the_same_bits(make, run, step, monkeypatch):
    whole = recover(make(), run, "#1", name="whole")
    monkeypatch.setattr("autoprune.run.recovery.checkpoints.SECONDS", 0.0)
    with pytest.raises(RunFailed, match="Stopped"):
        recover(make(), run, "#1", name="halves", progress=stopping(step))
    started = []
    halves = recover(make(), run, "#1", name="halves", progress=lambda p: started.append(p))
    assert next(p.done for p in started if p.phase == "recovery") == step + 1
    assert halves.report == whole.report
    assert halves.recovered["history"] == whole.recovered["history"]
    assert all(torch.equal(weights(run, "halves")[name], tensor) for name, tensor in weights(run, "whole").items())


def test_other_options_are_refused_and_named(make, run):
    with pytest.raises(RunFailed):
        recover(make(), run, "#1", progress=stopping(4))
    other = replace(make(), recover=replace(OPTIONS, lr=0.1))
    with pytest.raises(ConfigError, match=r"started with, got others: lr was 0\.05, not 0\.1\. Take those to go on"):
        recover(other, run, "#1")
    recover(make(), run, "#1")
    with pytest.raises(ConfigError, match=r"lr was 0\.05, not 0\.1"):
        recover(other, run, "#1")
    assert recover(other, run, "#1", name="other").recovered["options"]["lr"] == 0.1


def test_a_full_disk_is_a_sentence_and_the_last_checkpoint_stays(make, run, full_disk, monkeypatch):
    monkeypatch.setattr("autoprune.run.recovery.checkpoints.SECONDS", 0.0)
    with pytest.raises(RunFailed):
        recover(make(), run, "#1", progress=stopping(2))
    folder = run / "recovered" / read_front(run)[0].candidate
    kept = (folder / CHECKPOINT).read_bytes()
    with pytest.raises(OSError, match="checkpoint.safetensors") as error, full_disk(1000):
        recover(make(), run, "#1")
    assert "after step 3. The last checkpoint stays; the same command goes on from it" in error.value.__notes__[-1]
    assert (folder / CHECKPOINT).read_bytes() == kept
    recover(make(), run, "#1")


def test_a_damaged_checkpoint_is_a_sentence(make, run):
    with pytest.raises(RunFailed):
        recover(make(), run, "#1", progress=stopping(4))
    path = run / "recovered" / read_front(run)[0].candidate / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunDamaged, match=r"cannot be read: .* Remove .* to start again"):
        recover(make(), run, "#1")


def test_two_processes_do_not_recover_one_network(make, run):
    def second(progress):
        if progress.phase == "recovery" and progress.done == 1:
            recover(make(), run, "#1")

    with pytest.raises(JournalLocked, match="another process recovers this network"):
        recover(make(), run, "#1", progress=second)


def test_a_loss_that_becomes_nan_keeps_the_best_network_and_says_the_step(make, run):
    def loss(output, batch):
        calls.append(1)
        return output.square().mean() * (math.nan if len(calls) == 4 else 1.0)

    calls = []
    found = recover(replace(make(), recover=replace(OPTIONS, loss=loss)), run, "#1")
    assert "the training ended at step 4 of 6 with a loss of nan" in found.recovered["remark"]
    assert found.recovered["best_step"] in (0, 2)


def test_without_a_train_set_a_loss_without_labels_trains_on_calibration_examples(job, run, make, data, tmp_path):
    bare = job(evaluations=8, recover=OPTIONS)
    search(bare, tmp_path / "bare")
    with pytest.raises(ConfigError, match="expected data with a train set for the loss distillation"):
        recover(bare, tmp_path / "bare", "#1")
    found = recover(replace(bare, recover=replace(OPTIONS, loss="mimic")), tmp_path / "bare", "#1")
    assert found.recovered["examples"] == data.description["sets"]["calibrate"]["sha256"]


def test_requests_that_cannot_be_met_are_refused_before_anything_is_loaded(make, run, tmp_path):
    with pytest.raises(RunNotFound, match="expected a run folder"):
        recover(make(), tmp_path / "none", "#1")
    with pytest.raises(RunExists, match="expected a new folder for the export"):
        recover(make(), run, "#1", run)
    with pytest.raises(ConfigError, match="expected the number of epochs or steps"):
        recover(replace(make(), recover=None), run, "#1")
    with pytest.raises(ConfigError, match=r"expected a name of a recovery .* got '\.\./x'"):
        recover(make(), run, "#1", name="../x")
    (run / "front.json").unlink()
    with pytest.raises(RunNotFound, match="has no front yet"):
        recover(make(), run, "#1")


def test_a_network_that_cannot_be_trained_is_a_sentence(make, run):
    def loss(output, batch):
        raise ValueError("no")

    with pytest.raises(RunFailed, match="cannot be trained: ValueError: no"):
        recover(replace(make(), recover=replace(OPTIONS, loss=loss)), run, "#1")


def test_the_report_and_the_row_in_the_folder_show_recovered_networks(make, run):
    found = recover(make(), run, "#1", name="mine")
    row = json.loads((run / "recovered" / "mine" / "recovered.json").read_text())
    assert row["accuracy"] == found.report["accuracy"]
    page = write_report(run).read_text()
    assert "<h2>Recovered networks</h2>" in page
    assert page.count('circle class="recovered"') == 1
    assert (run / "front.csv").read_text().count("\n") == 1 + len(read_front(run))


def test_members_in_python_are_recovered_with_and_without_a_folder(model, trainable, tmp_path):
    given = {"evaluations": 6, "compensation": "none", "progress": False, "front_size": 3}
    kept = autoprune.search(model, trainable, out=tmp_path / "run", **given)
    loose = autoprune.search(model, trainable, **given)
    one, other = (front[0].recover(OPTIONS, name="mine") for front in (kept, loose))
    assert one == other
    assert (kept.recovered, loose.recovered) == ((one,), ())
    x = trainable.report[0].inputs[0]
    again = autoprune.open_run(tmp_path / "run", model, trainable).recovered[0]
    assert torch.equal(one.build()(x), other.build()(x))
    assert torch.equal(one.build()(x), again.build()(x))
    again.export(tmp_path / "small")
    assert torch.equal(autoprune.load(model, tmp_path / "small")(x), one.build()(x))
    with pytest.raises(ConfigError, match=r"expected a Recovery, got 3\. Write autoprune\.Recovery\(epochs=10\)"):
        kept[0].recover(3)


def test_long_names_are_shortened_to_one_folder(run):
    member = replace(read_front(run)[0], candidate="-".join(["64"] * 100))
    assert folder_name(member, None) != folder_name(replace(member, candidate=member.candidate + "-1"), None)
    assert len(folder_name(member, None)) < 60
