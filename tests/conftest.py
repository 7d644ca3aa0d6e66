"""For all tests: one torch thread, since the networks are tiny and threads that wait for each other are slow."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)
