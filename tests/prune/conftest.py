from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def same_weights():
    """Layers draw their weights from the global generator: the same ones for a test whichever ran before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
