"""A cache with a limit in bytes."""

import pickle

import pytest

from autoprune.core.cache import ByteCache


def test_the_oldest_values_are_dropped_above_the_limit():
    cache = ByteCache(10)
    assert [cache.put(key, key.upper(), 4) for key in "abc"] == [[], [], ["a"]]
    assert (list(cache), cache.held, cache["b"], "a" in cache) == (["b", "c"], 8, "B", False)


def test_a_value_put_again_is_the_newest_and_counts_once():
    cache = ByteCache(10)
    for key in "aba":
        cache.put(key, key, 5)
    assert (cache.held, cache.put("c", "c", 5)) == (10, ["b"])
    assert (cache.put("a", "longer", 6), cache["a"], cache.size("a"), cache.held) == (["c"], "longer", 6, 6)


def test_values_that_must_stay_exceed_the_limit_and_others_do_not():
    assert ByteCache(3).put("a", 1, 4) == ["a"]
    cache = ByteCache(3, least=1)
    assert (cache.put("a", 1, 4), cache.put("b", 2, 5), list(cache), cache.held) == ([], ["a"], ["b"], 5)


def test_what_goes_first_is_chosen_by_key():
    cache = ByteCache(10, first=min)
    for key in (3, 1, 2):
        cache.put(key, str(key), 4)
    assert list(cache) == [3, 2]
    assert cache.put(0, "0", 4) == [0]


def test_a_value_is_taken_out_with_its_bytes():
    cache = ByteCache(10)
    cache.put("a", 1, 4)
    assert (cache.pop("a"), cache.held, cache.size("a")) == (1, 0, 0)
    with pytest.raises(KeyError):
        cache.pop("a")


def test_a_cache_can_be_pickled():
    cache = ByteCache(10, first=min)
    cache.put("a", 1, 4)
    copy = pickle.loads(pickle.dumps(cache))
    assert (copy["a"], copy.held, copy.put("b", 2, 7)) == (1, 4, ["a"])
