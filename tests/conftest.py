"""For all tests: one torch thread, since the networks are tiny and threads that wait for each other are slow; and the
instances of allocation_instances as fixtures."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is loaded; processes that tests start inherit it

import pytest
import torch
from allocation_instances import Instance, chain_instance, k1_instance


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def k1() -> Instance:
    return k1_instance()


@pytest.fixture
def chain() -> Instance:
    return chain_instance(user_function=False)


@pytest.fixture
def opaque_chain() -> Instance:
    """The chain with its cost hidden in a user's function."""
    return chain_instance(user_function=True)
