"""The forecast of a run: what it says, what it follows from, and when it refuses a run."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from autoprune.errors import ConfigError, RunFailed
from autoprune.run.drive import resume, search
from autoprune.run.forecast import advice, forecaster, memory
from autoprune.run.forecast.bare import bare_pass
from autoprune.run.forecast.forecast import Forecast, Stage
from autoprune.run.forecast.forecaster import make_forecast
from autoprune.run.inspection import inspect_job
from autoprune.run.session.job import Executor, silent
from autoprune.run.session.session import open_session

STAGES = ["structure", "dense outputs", "moments", "order", "evaluations", "fits", "report"]
# (columns^2 + columns) float64 for 3 x 3 convolutions of 4, 8 and 16 channels and the classifier's 16 inputs
MOMENTS = 8 * sum(k * k + k for k in (36, 36, 36, 72, 72, 144, 16))


@pytest.fixture
def compensation():
    return "sequential"


def forecast_of(job):
    return make_forecast(open_session(job, silent), 1.5)


def stage(forecast, name):
    return next(one for one in forecast.stages if one.name == name)


def test_a_search_says_what_it_will_take_before_it_scores_and_keeps_it(job, tmp_path):
    said = []
    search(job(evaluations=3), tmp_path / "run", progress=said.append)
    phases = [step.phase for step in said]
    assert phases.index("forecast") < phases.index("dense") < phases.index("statistics")
    (text,) = [step.message for step in said if step.phase == "forecast" and step.done]
    first, *rows = text.splitlines()
    assert first.startswith("forecast: about ")
    assert " with 1 worker " in first
    assert [row.split("  ")[0] for row in rows] == ["stage", *STAGES]
    kept = json.loads((tmp_path / "run" / "forecast.json").read_text())
    assert [one["name"] for one in kept["stages"]] == STAGES


def test_the_inspection_has_the_forecast(job):
    found = inspect_job(job(evaluations=3))
    assert [one.name for one in found.forecast.stages] == STAGES
    assert found.to_json()["forecast"]["workers"] == 1


def test_a_network_without_weights_is_forecast_with_them_and_not_searched(job):
    here, there = (inspect_job(job(device=device)).forecast for device in ("cpu", "meta"))
    for name in ("moments", "order"):
        assert stage(there, name).memory == stage(here, name).memory
    assert any("times are those of the other work" in note for note in there.notes)
    with pytest.raises(ConfigError, match="got 'meta', where autoprune inspect forecasts"):
        search(job(device="meta"), None)


def test_moments_take_the_bytes_of_their_shapes_besides_the_examples(job):
    found = stage(forecast_of(job()), "moments")
    assert MOMENTS <= found.memory < MOMENTS + 20 * 2**20


def test_more_evaluations_and_fewer_workers_take_longer(job):
    few, many = (stage(forecast_of(job(evaluations=n)), "evaluations") for n in (10, 1000))
    assert many.seconds > 10 * few.seconds
    shared = stage(forecast_of(job(evaluations=1000, executor=Executor("processes", workers=4))), "evaluations")
    assert shared.duration < many.duration
    assert shared.memory > 4 * 300 * 2**20


def test_workers_share_the_fits_of_the_front(job):
    own, shared = (
        stage(forecast_of(job(front_size=8, executor=executor)), "fits")
        for executor in (Executor(), Executor("processes", workers=4))
    )
    assert shared.duration < own.duration / 2


@pytest.mark.slow
def test_a_front_of_open_size_is_forecast_and_built_with_the_size_that_is_chosen(job, tmp_path, monkeypatch):
    monkeypatch.setattr(forecaster, "chosen_front_size", lambda building, search: 3)
    open_size, said = job("random", 12, front_size=None, compensation="none"), []
    result = search(open_size, tmp_path / "run", progress=said.append)
    (text,) = [step.message for step in said if step.phase == "forecast" and step.done]
    assert "\nfront_size: at most 3 networks are built, as building 32 would take " in text
    assert json.loads((tmp_path / "run" / "forecast.json").read_text())["front_size"] == 3
    monkeypatch.undo()
    front = (tmp_path / "run" / "front.csv").read_bytes()
    assert len(result.members) <= 3 < len(resume(replace(open_size, front_size=32), tmp_path / "run").members)
    resume(open_size, tmp_path / "run")
    assert (tmp_path / "run" / "front.csv").read_bytes() == front


def test_a_front_is_built_smaller_only_if_the_job_leaves_it_open(job, monkeypatch):
    monkeypatch.setattr(advice, "LONG_BUILDING", 0.0)
    few = job(evaluations=40, front_size=None)
    short = replace(few, stop=replace(few.stop, seconds=1e-6))
    assert forecast_of(short).front_size == 12
    assert stage(forecast_of(short), "fits").seconds < stage(forecast_of(replace(short, front_size=32)), "fits").seconds
    assert forecast_of(replace(short, front_size=32)).front_size == 32
    assert forecast_of(replace(short, front_size=32)).notes == ()


def test_a_search_of_limited_time_takes_no_longer(job):
    limited = job(evaluations=10**6)
    limited = replace(limited, stop=replace(limited.stop, seconds=7.0))
    assert stage(forecast_of(limited), "evaluations").duration <= 7.0


def test_without_a_fit_no_time_is_for_fits(job):
    found = forecast_of(job(compensation="none"))
    assert stage(found, "fits").seconds == 0
    assert stage(forecast_of(job()), "fits").seconds > 0
    assert stage(forecast_of(job(criterion="l2")), "order").seconds == 0


@pytest.mark.parametrize("free", [0, 10**5])
def test_a_run_that_memory_will_not_hold_is_refused_before_anything_is_scored(job, tmp_path, monkeypatch, free):
    said = []
    monkeypatch.setattr(memory, "available_bytes", lambda: free)
    with pytest.raises(ConfigError) as refused:
        search(job(), tmp_path / "run", progress=said.append)
    text = str(refused.value)
    assert "evaluations: expected " in text
    assert "Take fewer workers" in text
    assert "Give fewer calibration examples" in text
    assert "dense" not in [step.phase for step in said]
    assert not (tmp_path / "run").exists()


def test_an_inspection_of_such_a_run_still_shows_everything(job, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 0)
    assert any(problem.startswith("moments: ") for problem in inspect_job(job()).forecast.problems)


def test_a_device_and_the_disk_are_checked_too():
    fits = Stage("fits", 1.0, 1.0, memory=10, device_memory=3 * 2**30)
    found = Forecast((fits,), 1, 1, (0.1, 0.1), 0, 10, 2 * 2**30, 5 * 2**30, 2**30, 32)
    short, disk = found.problems
    assert "3.0 GiB of memory on the device for this stage, 2.0 GiB are available" in short
    assert "5.0 GiB on the disk" in disk
    assert "TMPDIR" in disk
    assert replace(found, device_available=4 * 2**30, disk=6 * 2**30).problems == []


def test_the_forecast_leaves_model_and_random_state_as_they_were(job, model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    session = open_session(job(), silent)
    state = torch.get_rng_state()
    make_forecast(session, 0.0)
    assert torch.equal(torch.get_rng_state(), state)
    for network in (model, session.model):
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
        assert not any(module._forward_pre_hooks for module in network.modules())


def test_a_model_that_does_not_run_on_calibration_examples_is_refused_with_the_cause(job, model):
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            if len(x) > 5:
                raise ValueError("five at most")
            return self.inner(x)

    with pytest.raises(RunFailed, match="calibration examples: ValueError: five at most"):
        inspect_job(job(model=Picky))


class Slow(nn.Module):
    """A network whose work grows with the examples."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 3)
        self.same = nn.Linear(64, 5)

    def forward(self, x):
        return self.linear(x) + self.same(x).sum(dim=1, keepdim=True)


def test_a_pass_counts_examples_outputs_and_who_reads_the_same_tensor():
    found = bare_pass(Slow(), (torch.randn(8, 64),), ["linear", "same"])
    assert found.output_bytes == 12
    assert {name: tuple(read.x.shape) for name, read in found.reads.items()} == {"linear": (2, 64), "same": (2, 64)}
    assert len({read.tensor for read in found.reads.values()}) == 1
    assert 0 < found.seconds < math.inf
