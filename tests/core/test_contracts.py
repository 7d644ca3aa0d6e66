"""What a searcher may also be: its optional contracts, and what is read of one that is neither."""

from __future__ import annotations

import typing

import pytest

from autoprune.core.contracts import Comparing, MultiFidelity, Remarking, Searcher, fidelities_of, reads_parts
from autoprune.core.levels import LevelRule
from autoprune.core.unit import KINDS, SPARSE_KINDS, Unit
from autoprune.searchers import make_searcher
from autoprune.testing import synthetic_problem


@pytest.mark.parametrize(
    ("name", "options", "fidelities", "parts"),
    [
        ("random", {}, (), False),
        ("screening", {"share": 0.25}, (0.25, 1.0), False),
        ("racing", {"parts": 4}, (0.25, 0.5, 0.75, 1.0), True),
        ("optuna", {}, (), False),
    ],
)
def test_optional_contracts_of_searchers_are_told_by_what_they_have(name, options, fidelities, parts):
    searcher = make_searcher(name, synthetic_problem(budget=0.5).problem, **options)
    assert isinstance(searcher, Searcher)
    assert fidelities_of(searcher) == fidelities
    assert isinstance(searcher, MultiFidelity) == bool(fidelities)
    assert reads_parts(searcher) == isinstance(searcher, Comparing) == parts


def test_an_object_with_none_of_them_is_none_of_them():
    assert fidelities_of(object()) == ()
    assert not reads_parts(object())
    assert not isinstance(object(), Remarking)


def test_the_kinds_of_units_are_listed_in_one_place():
    for owner in (Unit, LevelRule):
        kind = typing.get_type_hints(owner)["kind"]
        assert set(KINDS) <= {
            *typing.get_args(kind),
            *(k for part in typing.get_args(kind) for k in typing.get_args(part)),
        }
    assert set(SPARSE_KINDS) < set(KINDS)
