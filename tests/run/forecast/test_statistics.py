"""What second moments take, by shapes."""

import torch
from torch import nn

from autoprune.prune.moments.consumers import SCARCE, find_consumers
from autoprune.prune.structure.trace import trace
from autoprune.run.forecast.bare import bare_pass
from autoprune.run.forecast.statistics import held_out_bytes


def test_moments_of_held_out_rows_count_where_a_weight_has_few_rows():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(4, 6)
    consumers, _ = find_consumers(model, trace(model, (x,)), ["2.weight", "4.weight"])
    reads = bare_pass(model, (x,), ["2", "4"]).reads
    fifth = 4 * 4 * 8  # bytes of 4 of 20 rows, of 8 columns
    assert held_out_bytes(consumers, reads, 20) == 2 * fifth
    few = SCARCE * 8 - 1
    moments = sum(consumer.nbytes for consumer in consumers.values())
    assert held_out_bytes(consumers, reads, few) == moments + 2 * 4 * 8 * 8
    assert held_out_bytes(consumers, reads, few + 1) == 0
