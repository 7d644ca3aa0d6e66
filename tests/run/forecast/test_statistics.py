"""What second moments take, by shapes."""

import torch
from torch import nn

from autoprune.prune.moments.consumers import SCARCE, find_consumers
from autoprune.prune.moments.moments import collect_moments
from autoprune.prune.structure.trace import trace
from autoprune.run.forecast.bare import bare_pass
from autoprune.run.forecast.statistics import held_out_bytes, kept_bytes


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


class Gated(nn.Module):
    """Two layers that read the same tensor, and one that reads their product."""

    def __init__(self):
        super().__init__()
        self.first, self.gate, self.up, self.down = (nn.Linear(6, 6, bias=False) for _ in range(4))

    def forward(self, x):
        x = self.first(x).relu()
        return self.down(self.gate(x).sigmoid() * self.up(x))


def test_moments_that_weights_share_are_kept_once():
    model, x = Gated(), torch.randn(4, 6)
    names = ["gate.weight", "up.weight", "down.weight"]
    structure = trace(model, (x,))
    consumers, _ = find_consumers(model, structure, names)
    moments, _ = collect_moments(model, structure, names, [(x,)])
    tensors = {own.stored.data_ptr(): own.stored.nbytes + own.mean.nbytes for own in moments.values()}
    reads = bare_pass(model, (x,), ["gate", "up", "down"]).reads
    assert kept_bytes(consumers, reads) == sum(tensors.values())
