"""The first examples of batches."""

import pytest
import torch

from autoprune.prune.passes.examples import first_examples


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (3, [3]), (4, [4]), (6, [4, 2]), (9, [4, 3])])
def test_the_first_examples_stay_in_their_batches(count, sizes):
    x = torch.arange(7.0)
    taken = first_examples([(x[:4], -x[:4]), (x[4:], -x[4:])], count)
    assert [len(inputs) for inputs, _ in taken] == sizes
    assert [value for inputs, _ in taken for value in inputs.tolist()] == x[:count].tolist()
    assert all(torch.equal(inputs, -others) for inputs, others in taken)
