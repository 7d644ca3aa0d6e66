"""How often values are fetched from an accelerator, which then waits: never more often for more batches."""

from __future__ import annotations

import pytest
import torch
from pretended import Pretended
from stages import CRITERION_KINDS, Convolutional, Setting, Transformer, score

from autoprune.measure.batch import Batch
from autoprune.measure.fitness import classification
from autoprune.measure.scorer import with_dense_outputs
from autoprune.prune.compensation.compensate import compensate
from autoprune.prune.compensation.reference import make_reference


def fetches(work, *given):
    with Pretended() as device:
        work(*given)
    return device.fetches


def halved(setting):
    """The same examples in twice as many batches."""
    parts = [
        Batch((x,), y)
        for batch in setting.batches
        for x, y in zip(batch.inputs[0].chunk(2), batch.target.chunk(2), strict=True)
    ]
    return Setting(setting.model, parts, setting.structure)


@pytest.fixture(scope="module", params=[Convolutional, Transformer], ids=lambda network: network.__name__)
def few(request):
    return Setting.on("cpu", request.param)


@pytest.fixture(scope="module")
def bank(few):
    return few.bank("l2")


def test_moments_take_as_many_fetches_for_more_batches(few):
    assert fetches(few.moments) == fetches(halved(few).moments) > 0


@pytest.mark.parametrize("criterion", CRITERION_KINDS)
def test_orders_take_as_many_fetches_for_more_batches(few, bank, criterion):
    assert fetches(few.orders, bank, criterion) == fetches(halved(few).orders, bank, criterion)


def test_a_score_takes_as_many_fetches_for_more_batches(few, bank):
    """It fetches whether each tensor is the dense network's, at once, what each least squares needs, and two values."""
    first, second = few.scorer(bank), halved(few).scorer(bank)
    for scorer in (first, second):  # what all candidates share
        score(scorer)
    assert fetches(score, first) == fetches(score, second)


def test_dense_outputs_are_not_fetched(few):
    assert fetches(with_dense_outputs, few.model, few.batches, classification) == 0


def test_counting_sees_a_fetch_for_each_batch(few):
    """So the tests above can fail."""

    def fetching(setting):
        return [float(setting.model(*inputs).sum()) for inputs in setting.inputs]

    with torch.no_grad():
        assert (fetches(fetching, few), fetches(fetching, halved(few))) == (3, 6)


@pytest.mark.parametrize("jointly", [False, True], ids=["alone", "jointly"])
def test_a_fit_takes_as_many_fetches_for_more_chunks(few, bank, jointly):
    """The choice of each ridge and the steps of a joint fit depend on values, of all chunks together."""
    subnet = bank.subnet({unit.name: max(unit.least, unit.width // 2) for unit in few.structure.units})

    def fitting(reference, network):
        compensate(network, few.structure, reference, subnet.indices, jointly=jointly)

    one, many = (make_reference(few.model, few.structure, few.inputs, chunk_bytes=size) for size in (1 << 27, 1))
    assert (len(one.chunks), len(many.chunks)) == (1, 24)
    assert fetches(fitting, many, bank.build(subnet)) == fetches(fitting, one, bank.build(subnet))
