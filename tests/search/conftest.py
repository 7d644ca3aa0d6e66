"""The instances of allocation_instances as fixtures."""

from __future__ import annotations

import pytest
from allocation_instances import Instance, chain_instance, k1_instance


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
