"""Networks in which the data decide what runs: routers, exits, numbers of steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import autoprune
from autoprune.prune.passes.compare import outputs
from autoprune.prune.passes.examples import as_examples
from autoprune.prune.structure.structure import Structure
from autoprune.prune.surgery.masked import Masked
from autoprune.prune.surgery.probes import random_probe, randomised


class Experts(nn.Module):
    """Top-1 routing over a list of experts."""

    def __init__(self, d: int = 16, n: int = 8) -> None:
        super().__init__()
        self.gate = nn.Linear(d, n, bias=False)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(d, 32), nn.ReLU(), nn.Linear(32, d)) for _ in range(n))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, chosen = self.gate(x).softmax(-1).max(-1)
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            rows = torch.where(chosen == i)[0]
            if len(rows):
                out[rows] = weight[rows, None] * expert(x[rows])
        return x + out


class TopTwo(nn.Module):
    """Top-2 routing that adds up by index."""

    def __init__(self, d: int = 16, n: int = 4) -> None:
        super().__init__()
        self.gate = nn.Linear(d, n)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(d, 12), nn.GELU(), nn.Linear(12, d)) for _ in range(n))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(2, dim=-1)
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            rows, place = torch.where(chosen == i)
            if rows.numel() == 0:
                continue
            out.index_add_(0, rows, expert(x[rows]) * weights[rows, place, None])
        return out


class EarlyExit(nn.Module):
    """Leaves after the first block whose answer is sure enough."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.ReLU()) for _ in range(4))
        self.heads = nn.ModuleList(nn.Linear(16, 5) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block, head in zip(self.blocks, self.heads, strict=True):
            x = block(x)
            y = head(x)
            if y.softmax(-1).amax(-1).mean() > 0.9:
                break
        return y


class Adaptive(nn.Module):
    """Repeats one block until what halts adds up to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.halt = nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 16)), nn.Linear(16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total, steps = torch.zeros(()), 0
        while total < 1 and steps < 12:
            x = x + self.block(x)
            total = total + torch.sigmoid(self.halt(x)).mean() * 0.3
            steps += 1
        return x


class ByMean(nn.Module):
    """Takes one of two ways by the mean of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.bright, self.dark = nn.Linear(16, 20), nn.Linear(16, 20)
        self.join = nn.Linear(20, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.join(F.relu(self.bright(x) if x.mean() > 0.05 else self.dark(x)))


class Skipping(nn.Module):
    """Skips the blocks that would change their input least, as its gates say."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16)) for _ in range(5))
        self.gates = nn.ModuleList(nn.Linear(16, 1) for _ in range(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.go(x, 0)

    def go(self, x: torch.Tensor, index: int) -> torch.Tensor:
        if index == len(self.blocks):
            return x
        if self.gates[index](x).mean() > 0:
            x = x + self.blocks[index](x)
        return self.go(x, index + 1)


def around(middle: nn.Module, outputs: int = 16) -> nn.Module:
    return nn.Sequential(nn.Linear(10, 16), middle, nn.Linear(outputs, 5)).eval()


def found(make: Callable[[], nn.Module], tokens: int, seed: int = 0) -> tuple[nn.Module, torch.Tensor, Structure]:
    torch.manual_seed(seed)
    model, x = make(), torch.randn(tokens, 10)
    return model, x, autoprune.find_structure(model, x)


@pytest.mark.parametrize("tokens", [64, 512])
def test_a_list_of_experts_has_units_around_and_in_each_expert(tokens: int) -> None:
    model, x, structure = found(lambda: around(Experts()), tokens)
    names = {unit.name for unit in structure.units}
    assert names >= {"0", *(f"1.experts.{i}.0" for i in range(8))}
    assert structure.unmet == ()
    small = autoprune.shrink(model, structure, 0.5)
    assert autoprune.verify(model, small, structure, x).ok
    other = torch.randn(tokens, 10)
    assert autoprune.verify(model, small, structure, other).ok  # other tokens, other experts


def test_experts_that_no_token_reached_are_listed_and_keep_the_width_around_them() -> None:
    model, x, structure = found(lambda: around(Experts()), 4)
    ran = {unit.name for unit in structure.units if unit.kind == "neurons"}
    missing = {row.name.rpartition(".")[0] for row in structure.unmet}
    assert ran | {name for name in missing if name.endswith(".0")} == {f"1.experts.{i}.0" for i in range(8)}
    small = autoprune.shrink(model, structure, 0.5)
    assert autoprune.verify(model, small, structure, x).ok
    assert small(torch.randn(64, 10)).shape == (64, 5)  # all experts run


@pytest.mark.parametrize(
    ("middle", "tokens", "expected"),
    [
        (TopTwo, 64, {"0", "1.experts.0.0", "1.experts.3.0"}),
        (EarlyExit, 32, {"1.blocks.0.0", "1.blocks.1.0", "1.blocks.2.0"}),
        (Adaptive, 32, {"0", "1.block.0"}),
        (Skipping, 32, set()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("seed", [0, 1])
def test_what_the_data_decide_is_proved_on_other_data_as_well(
    middle: type[nn.Module], tokens: int, expected: set[str], seed: int
) -> None:
    inner = (5, 5) if middle is EarlyExit else (16, 16)
    model, x, structure = found(lambda: around(middle(), inner[0]), tokens, seed)
    assert expected <= {unit.name for unit in structure.units}
    assert not any("random" in row.reason or "parts" in row.reason for row in structure.frozen)
    small = autoprune.shrink(model, structure, 0.5)
    assert autoprune.verify(model, small, structure, x).ok
    for other in torch.randn(5, tokens, 10):
        small(other * 2 + other.mean())  # runs, whatever the data decide


def test_probes_run_what_the_model_runs_and_have_no_zeros() -> None:
    torch.manual_seed(0)
    model, x = around(Experts()), torch.randn(48, 10)
    nn.init.zeros_(model[0].bias)
    structure = autoprune.find_structure(model, x)
    probe = random_probe(model, structure, x, seed=0)
    ran = [i for i, expert in enumerate(model[1].experts) if runs(expert, model, x)]
    assert ran == [i for i, expert in enumerate(probe[1].experts) if runs(expert, probe, x)]
    assert (probe[0].bias != 0).all()
    far = randomised(model, 0)
    assert len([1 for expert in far[1].experts if runs(expert, far, x)]) <= len(ran)


def runs(module: nn.Module, model: nn.Module, x: torch.Tensor) -> bool:
    calls: list[int] = []
    handle = module.register_forward_hook(lambda *_: calls.append(1))
    model(x)
    handle.remove()
    return bool(calls)


def test_both_ways_of_a_switch_are_units_when_examples_take_both() -> None:
    torch.manual_seed(0)
    model, x = around(ByMean()), torch.randn(32, 10)
    with torch.no_grad():
        model[0].bias.fill_(0.05)  # so that the mean of the input decides
        model[0].weight.abs_()
    examples = [x - x.mean() - 1, x - x.mean() + 1]
    structure = autoprune.find_structure(model, examples)
    assert {"0", "1.bright"} <= {unit.name for unit in structure.units}
    assert "1.dark.weight" in {slot.tensor for unit in structure.units for slot in unit.slots}
    assert autoprune.verify(model, autoprune.shrink(model, structure, 0.5), structure, examples).ok


class BySum(nn.Module):
    """Takes one of two ways by a number that its code computes outside of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(64, 16), nn.Linear(64, 16)
        self.least = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(x) if abs(x.detach().numpy()).sum() > self.least else self.right(x)


def test_a_choice_that_falls_differently_in_the_small_network_is_the_reason() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 64, bias=False), BySum(), nn.Linear(16, 5)).eval()
    x = torch.randn(8, 10)
    model[1].least = 0.9 * model[0](x).detach().abs().sum().item()  # fewer channels of the first example fall below it
    structure = autoprune.find_structure(model, [x, 0.5 * x])
    assert structure.unmet == ()
    (row,) = [row for row in structure.frozen if row.what == "0"]
    assert "they take different ways from '1.right' on: what the data decide" in row.reason


class Shared(nn.Module):
    """One line of code that reads another unit each time it comes."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(12, 10)), nn.Parameter(torch.randn(5, 12))])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for weight in self.weights:
            x = F.relu(F.linear(x, weight))
        return x


def test_calls_at_one_line_are_told_apart_by_the_parameter_they_read() -> None:
    torch.manual_seed(0)
    model, x = Shared(), torch.randn(4, 10)
    structure = autoprune.find_structure(model, x)
    assert [(unit.width, len(unit.slots)) for unit in structure.units] == [(12, 2)]
    sites = {(read.site.parameters, read.visit, read.visits) for read in structure.reads}
    assert sites == {(("weights.1",), 1, 1)}
    assert autoprune.verify(model, autoprune.shrink(model, structure, 0.5), structure, x).ok


def test_the_masked_run_takes_any_number_of_turns() -> None:
    model, x, structure = found(lambda: around(Adaptive()), 32)
    short = torch.zeros_like(x) + 5.0
    positions = {unit.name: list(range(max(unit.least, unit.width // 2))) for unit in structure.units}
    (example,) = as_examples(short)
    mask = Masked(structure, {name: torch.tensor(kept).numpy() for name, kept in positions.items()})
    small = autoprune.shrink(model, structure, positions)
    left, right = outputs(small, example), outputs(model, example, mask)
    assert torch.allclose(left[0], right[0], atol=1e-4)
