"""Forms: the same examples in another layout, precision, number at once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoprune.errors import DataError
from autoprune.measure.batch import Batch, divided, rebatched, shuffled
from autoprune.measure.form import DEFAULT_FORM, Form

CPU = torch.device("cpu")


def batches(*sizes):
    start = 0
    made = []
    for size in sizes:
        numbers = torch.arange(start, start + size)
        made.append(Batch((numbers[:, None].float(),), numbers, numbers[:, None] * 2.0))
        start += size
    return made


@pytest.mark.parametrize(("size", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (100, [7])])
def test_rebatching_keeps_examples_and_their_order(size, sizes):
    made = rebatched(batches(2, 4, 1), size)
    assert [len(batch.target) for batch in made] == sizes
    for part in (torch.cat([b.inputs[0][:, 0] for b in made]), torch.cat([b.target for b in made])):
        assert part.tolist() == list(range(7))
    assert torch.cat([b.dense for b in made]).flatten().tolist() == [2.0 * i for i in range(7)]


def test_shuffling_keeps_examples_together_and_the_sizes_of_batches():
    made, again, other = shuffled(batches(3, 4, 2)), shuffled(batches(3, 4, 2)), shuffled(batches(3, 4, 2), seed=1)
    assert [batch.examples for batch in made] == [3, 4, 2]
    order = torch.cat([batch.target for batch in made])
    assert sorted(order.tolist()) == list(range(9))
    assert order.tolist() != list(range(9))
    assert torch.equal(order, torch.cat([b.target for b in again]))
    assert not torch.equal(order, torch.cat([b.target for b in other]))
    for batch in made:
        assert torch.equal(batch.inputs[0][:, 0], batch.target.float())
        assert torch.equal(batch.dense[:, 0], batch.target * 2.0)


@pytest.mark.parametrize(
    ("ends", "sizes"),
    [((4,), [4, 3]), ((1, 5), [1, 4, 2]), ((3, 7), [3, 4]), (range(8), [1] * 7), ((), [3, 4])],
)
def test_dividing_ends_batches_where_it_should_and_leaves_no_small_rests(ends, sizes):
    made = divided(batches(3, 4), ends)
    assert [batch.examples for batch in made] == sizes
    assert torch.cat([batch.target for batch in made]).tolist() == list(range(7))


def test_what_lies_between_two_ends_is_divided_evenly():
    made = divided(batches(*[10] * 20), [13, 100])
    sizes = [batch.examples for batch in made]
    assert sizes[0] == 13
    assert sum(sizes[1:10]) == 87
    assert set(sizes[1:]) == {9, 10}


def test_no_batches_stay_none():
    assert rebatched([], 3) == []


def test_batches_that_are_not_alike_are_an_error():
    with pytest.raises(DataError, match="expected batches that can be joined"):
        rebatched([*batches(2), Batch((torch.zeros(2, 1),))], 3)


def test_the_plain_form_leaves_batches_as_they_are():
    made = batches(2, 3)
    assert all(a is b for a, b in zip(DEFAULT_FORM.batches(made), made, strict=True))


@pytest.mark.parametrize(
    ("layout", "memory"), [("channels_last", torch.channels_last), ("contiguous", torch.contiguous_format)]
)
def test_a_layout_is_that_of_images_and_weights(layout, memory):
    form = Form(layout)
    (batch,) = form.batches([Batch((torch.randn(2, 3, 4, 5), torch.randn(2, 3)))])
    network = form.dress(nn.Conv2d(3, 4, 3))
    assert batch.inputs[0].is_contiguous(memory_format=memory)
    assert network.weight.is_contiguous(memory_format=memory)


def test_statistics_are_estimated_in_the_batches_there_are():
    inputs = [(torch.randn(2, 3, 4, 5),), (torch.randn(4, 3, 4, 5),)]
    assert [len(x) for (x,) in Form("channels_last", batch=3).inputs(inputs)] == [2, 4]


@torch.no_grad()
def test_bfloat16_computes_low_and_returns_float32():
    network, seen = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), []
    x = torch.randn(3, 4)
    expected = network(x)
    network[0].register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    form = Form(dtype="bfloat16")
    with form.running(CPU):
        got = form.dress(network)(x)
    assert (seen, got.dtype) == ([torch.bfloat16], torch.float32)
    torch.testing.assert_close(got, expected, atol=0.05, rtol=0.05)


def test_threads_come_back():
    before = torch.get_num_threads()
    with Form(threads=before + 1).running(CPU):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
