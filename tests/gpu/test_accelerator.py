"""Every stage on an accelerator gives what it gives on the CPU."""

from __future__ import annotations

import csv

import pytest
import torch
from stages import STAGES, Convolutional, Setting, Transformer, assert_close
from torch import nn

import autoprune
from autoprune.data import digits
from autoprune.prune.compensation import reference
from autoprune.prune.compensation.activations import in_host_memory
from autoprune.prune.devices.memory import device_of
from autoprune.zoo import digits_resnet

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]

TOLERANCE = 2e-2  # share of the largest value: sums are taken in another order on another device


@pytest.fixture(params=[Convolutional, Transformer], ids=lambda network: network.__name__)
def network(request) -> type[nn.Module]:
    return request.param


@pytest.fixture
def both(accelerator, network):
    """The setting on the accelerator, and that on the CPU."""
    return Setting.on(accelerator, network), Setting.on("cpu", network)


def test_the_structure_is_that_on_the_cpu(both):
    there, here = both
    assert there.structure.units == here.structure.units
    assert there.structure.frozen == here.structure.frozen


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_gives_what_it_gives_on_the_cpu(both, stage):
    found, expected = (STAGES[stage](setting, setting.bank()) for setting in both)
    assert_close(found, expected, TOLERANCE)


@pytest.mark.parametrize("masks", ["magnitude", "wanda", "obs"])
def test_zeros_in_weights_are_those_on_the_cpu(both, masks):
    assert_close(*(setting.outputs(setting.sparse(masks)) for setting in both), TOLERANCE)


def test_activations_in_host_memory_are_not_changed(accelerator):
    values = torch.randn(100, generator=torch.Generator().manual_seed(0)).to(accelerator)
    kept, expected = in_host_memory(values), values.cpu()
    values.zero_()
    kept(values)
    assert torch.equal(values.cpu(), expected)


@pytest.mark.parametrize("place", ["host memory", "disk"])
def test_a_fit_is_the_same_wherever_activations_are_kept(accelerator, network, place, monkeypatch):
    setting = Setting.on(accelerator, network)
    bank = setting.bank()
    expected = setting.fitted(bank, jointly=True)
    if place == "host memory":  # also of a device that shares it, for which half precision would be taken
        monkeypatch.setattr(reference, "free_bytes", lambda device: 1)
    found = setting.fitted(bank, jointly=True, kept_bytes=0)
    assert_close(found, expected, 1e-6)


def front(folder):
    lines = [line for line in (folder / "front.csv").read_text().splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


def on_digits(device, out, **options):
    model, data = digits_resnet(), digits()
    given = {"evaluations": 24, "front_size": 4, "device": str(device), "out": out, "progress": False} | options
    return model, autoprune.search(model, data, **given)


def test_a_job_on_the_digits_has_the_front_of_the_cpu(accelerator, tmp_path):
    model, found = on_digits(accelerator, tmp_path / "there", searcher="uniform")
    _, expected = on_digits("cpu", tmp_path / "here", searcher="uniform")
    ours, theirs = (front(tmp_path / name) for name in ("there", "here"))
    assert [row["macs"] for row in ours] == [row["macs"] for row in theirs]
    for row, other in zip(ours, theirs, strict=True):
        assert float(row["accuracy"]) == pytest.approx(float(other["accuracy"]), abs=0.02)
    found.pick("macs<=0.5").export(tmp_path / "small")
    small = autoprune.load(model, tmp_path / "small")  # on the CPU
    assert device_of(small) == torch.device("cpu")
    assert len(found) == len(expected)


def test_workers_build_the_front_of_one_process(accelerator, tmp_path):
    if accelerator.type == "simulated":
        pytest.skip("worker processes do not load the simulated device")
    on_digits(accelerator, tmp_path / "one", searcher="uniform", deterministic=True)
    two = autoprune.Executor("processes", workers=2)
    on_digits(accelerator, tmp_path / "two", searcher="uniform", deterministic=True, executor=two)
    ours, theirs = (front(tmp_path / name) for name in ("two", "one"))
    assert [row["macs"] for row in ours] == [row["macs"] for row in theirs]


def test_moments_of_a_device_that_runs_out_of_memory_are_those_of_smaller_batches(accelerator):
    setting = Setting.on(accelerator, Convolutional)
    expected = setting.moments()

    def refuse(module, args):
        if len(args[0]) > 3:
            raise torch.OutOfMemoryError(f"out of memory on {args[0].device}")

    setting.model.out.register_forward_pre_hook(refuse)
    assert_close(setting.moments(), expected, 1e-4)
