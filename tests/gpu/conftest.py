"""The accelerators that tests marked `gpu` run on: those of this machine, and one that is simulated if asked for."""

from __future__ import annotations

import os

import pytest
import torch

SIMULATED = "AUTOPRUNE_SIMULATED_DEVICE"  # 1: also test on a device in host memory, which is compiled (simulated.py)


def accelerators() -> list[str]:
    found = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    return [*found, "simulated", "simulated without float64"] if os.environ.get(SIMULATED) else found


@pytest.fixture(params=accelerators() or ["none"])
def accelerator(request, monkeypatch):
    """Each accelerator, as a torch.device."""
    if request.param == "none":
        pytest.skip(f"no accelerator: torch finds neither cuda nor mps. {SIMULATED}=1 simulates one")
    if not request.param.startswith("simulated"):
        yield torch.device(request.param)
        return
    from simulated import simulated

    from autoprune.prune.devices import precision

    extension = simulated()
    if request.param.endswith("float64"):
        monkeypatch.setattr(precision, "has_float64", lambda device: device.type == "cpu")
        extension.set_doubles(False)
    yield torch.device("simulated")
    extension.set_doubles(True)
