"""The queue of searchers: each item once, and an end."""

from autoprune.searchers.common.queue import OnceQueue


def queue_of(items):
    queue = OnceQueue()
    for item in items:
        queue.add(item)
    return queue


def test_items_are_handed_out_once_in_order_and_those_to_the_front_first():
    queue = OnceQueue()
    assert [queue.add("a"), queue.add("b"), queue.add("a"), queue.add("c", first=True)] == [True, True, False, True]
    assert (len(queue), queue.take(2), queue.take(5)) == (3, ["c", "a"], ["b"])
    assert not queue.add("a")


def test_items_lack_an_answer_until_it_comes():
    queue = queue_of("ab")
    queue.take(1)
    assert (queue.awaits("a"), queue.awaits("b"), queue.waiting) == (True, False, True)
    assert (queue.answer("a"), queue.answer("a")) == (True, False)
    assert (queue.awaits("a"), queue.waiting) == (False, False)


def test_an_item_answered_unasked_is_known_and_not_handed_out():
    queue = queue_of("ab")
    assert queue.answer("a")
    assert queue.answer("x")
    assert (queue.knows("x"), queue.add("x"), queue.take(2)) == (True, False, ["b"])


def test_an_empty_queue_ends_once_nothing_is_pending():
    queue = queue_of("a")
    queue.take(1)
    queue.take(1)
    assert queue.add("b")
    assert queue.take(0) == []
    assert queue.take(2) == ["b"]
    for item in "ab":
        queue.answer(item)
    assert queue.take(1) == []
    assert not queue.add("c")
