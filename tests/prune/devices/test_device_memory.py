"""Limits follow from the memory of the device that tensors are on; here the CPU is one with memory of its own."""

import pytest
import torch
from torch import nn

from autoprune.prune.compensation import reference
from autoprune.prune.compensation.reference import KEPT_BYTES, make_reference
from autoprune.prune.devices.memory import device_of, free_bytes, machine_bytes, total_bytes
from autoprune.prune.find import find_structure
from autoprune.prune.moments import consumers

GIB = 1 << 30


@pytest.fixture(scope="module")
def fits():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    inputs = (torch.zeros(6, 4),)
    return make_reference(model, find_structure(model, *inputs), [inputs])


def test_the_cpu_has_no_memory_of_its_own():
    assert (total_bytes(torch.device("cpu")), free_bytes(torch.device("cpu"))) == (None, None)
    assert device_of(nn.Identity()) == torch.device("cpu")


@pytest.mark.parametrize(("total", "least"), [(None, machine_bytes()), (4096, 4096), (1 << 60, machine_bytes())])
def test_moments_may_take_a_quarter_of_the_smaller_memory(total, least, monkeypatch):
    monkeypatch.setattr(consumers, "total_bytes", lambda device: total)
    assert consumers.default_limit(torch.device("cpu")) == least // 4


@pytest.mark.parametrize(
    ("free", "size", "place"),
    [
        (None, KEPT_BYTES, "here"),
        (None, 2 * KEPT_BYTES, "half precision"),
        (None, 2 * KEPT_BYTES + 1, "disk"),
        (40 * GIB, 20 * GIB, "here"),
        (2 * GIB, GIB + 1, "host memory"),
        (2 * GIB, machine_bytes(), "disk"),
    ],
)
def test_activations_are_kept_where_there_is_room(fits, free, size, place, monkeypatch):
    monkeypatch.setattr(reference, "free_bytes", lambda device: free)
    assert fits.place(size) == place
