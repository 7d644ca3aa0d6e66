from __future__ import annotations

import itertools
import json
import pickle

import numpy as np
import pytest

from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate, SearchSpace
from autoprune.core.unit import Slot, Span, Unit
from autoprune.errors import SpaceError

SPACE = SearchSpace(("a", "b"), ((8, 4, 2), (3, 1)))


def test_kept_counts_are_looked_up_level_by_level():
    grid = list(itertools.product(range(3), range(2)))
    assert SPACE.kept(grid).tolist() == [[SPACE.levels[0][i], SPACE.levels[1][j]] for i, j in grid]
    assert SPACE.kept((2, 1)).tolist() == [2, 1]
    assert SPACE.kept(np.zeros((0, 2))).shape == (0, 2)


def test_the_ends_and_the_size_of_the_space():
    assert SPACE.key(SPACE.dense) == (8, 3)
    assert SPACE.key(SPACE.smallest) == (2, 1)
    assert SPACE.count == 6
    assert SPACE.sizes.tolist() == [3, 2]


def test_every_candidate_names_another_network():
    keys = {SPACE.key(Candidate(levels)) for levels in itertools.product(range(3), range(2))}
    assert len(keys) == SPACE.count


@pytest.mark.parametrize("levels", [(0, 2), (-1, 0), (3, 0)])
def test_level_indices_that_do_not_exist_are_refused_in_arrays_too(levels):
    """Unit b has two levels: index 2 must not be read from the padding of the table."""
    with pytest.raises(SpaceError, match=r"expected level indices from 0 to \[2, 1\]"):
        SPACE.kept([levels])


@pytest.mark.parametrize("levels", [(), (0,), (0, 0, 0), (0, 2), (3, 0), (-1, 0), (0.0, 0), (np.int64(0), 0)])
def test_a_candidate_of_another_space_is_refused(levels):
    with pytest.raises(SpaceError, match=r"expected 2 level indices, each from 0 to \[2, 1\], got"):
        SPACE.check(Candidate(levels))


@pytest.mark.parametrize("fidelity", [0.0, -0.5, 1.01, float("nan")])
def test_a_fidelity_that_is_no_share_is_refused(fidelity):
    with pytest.raises(SpaceError, match="expected a fidelity above 0 and at most 1"):
        SPACE.check(Candidate((0, 0), fidelity))


@pytest.mark.parametrize("since", [-0.1, 0.5, 0.6, float("nan")])
def test_what_was_scored_before_is_less_than_the_fidelity(since):
    SPACE.check(Candidate((0, 0), 0.5, since=0.4))
    with pytest.raises(SpaceError, match="expected since from 0 to below the fidelity 0.5"):
        SPACE.check(Candidate((0, 0), 0.5, since=since))


@pytest.mark.parametrize("counts", [(), (4, 4), (2, 4), (4, -1), (-1,), (0,)])
def test_levels_that_do_not_decrease_to_none_or_more_are_refused(counts):
    with pytest.raises(SpaceError, match=r"unit 'a': expected kept counts that strictly decrease"):
        SearchSpace(("a",), (counts,))


def test_a_space_without_units_or_with_a_name_twice_is_refused():
    with pytest.raises(SpaceError, match="expected at least one unit"):
        SearchSpace((), ())
    with pytest.raises(SpaceError, match="no name twice"):
        SearchSpace(("a", "a"), ((2, 1), (2, 1)))
    with pytest.raises(SpaceError, match="one list of levels per unit"):
        SearchSpace(("a", "b"), ((2, 1),))


@pytest.mark.parametrize(
    "noun",
    [
        SPACE,
        Evaluation(Candidate((1, 0), 0.25), {"accuracy": 0.1 + 0.2}, seconds=1e-9, worker="w"),
        Evaluation(Candidate((0, 1)), status="failed", cause="ValueError: \u00e4 \n"),
        Unit("a.b", "channels", 4, (Slot("a.b.weight", 0, "out"), Slot("c", 1, "in", Span(3, 2, ((2, 8), (5, 1)))))),
        Unit("", "channels", 2, ()),
    ],
)
def test_nouns_survive_json_and_pickle(noun):
    assert type(noun).from_json(json.loads(json.dumps(noun.to_json()))) == noun
    assert pickle.loads(pickle.dumps(noun)) == noun


def test_nouns_are_frozen():
    with pytest.raises(AttributeError, match="cannot assign"):
        SPACE.units = ()
    with pytest.raises(AttributeError, match="cannot assign"):
        Candidate((0,)).fidelity = 0.5
