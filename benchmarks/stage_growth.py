"""How the seconds and memory of each stage grow with examples, depth, width and tokens, as exponents.

    python benchmarks/stage_growth.py

A Llama of transformers with random weights (4 blocks, hidden width 128, MLPs of 512, four heads, 32 sequences of 64
tokens) grows along one axis at a time, in steps of two. One thread; every size has a process of its own.

    bare       a forward pass of the dense network over all examples
    structure  the analysis of what can be removed
    moments    second moments of every consumer, of all examples
    order      the order of removal by the optimal brain surgeon
    candidate  the first network with half of every width, assembled
    fit        the fit of this network to the dense one, on all examples

`core_seconds` are processor seconds; `peak_mib` is by how much the process grew at most in that stage. `of_seconds` and
`of_mib` are the exponents e of a growth as size ** e from half the size to this one; none for a few MiB. Rows go to
results/stage_growth.csv.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from compensation.setting import forget_peak, peak_mb
from processes import in_new_process
from tables import write_table
from torch import nn

from autoprune.pretrained import named_inputs
from autoprune.prune.bank.channels import Bank
from autoprune.prune.compensation.compensate import compensate
from autoprune.prune.compensation.reference import make_reference
from autoprune.prune.criteria.ordering import order_units
from autoprune.prune.criteria.surgeon import obs
from autoprune.prune.moments.consumers import consumers_of
from autoprune.prune.moments.moments import collect_moments
from autoprune.prune.structure.trace import trace

BATCH = 8
LEAST_MIB = 16.0  # growth of the process below which an exponent would be noise


class Size(NamedTuple):
    """The size of a problem."""

    examples: int = 32
    depth: int = 4
    width: int = 128
    tokens: int = 64


GROWN = {"examples": (32, 64, 128, 256), "depth": (4, 8, 16), "width": (128, 256, 512), "tokens": (64, 128, 256, 512)}


class Taken(NamedTuple):
    """What a stage took."""

    core_seconds: float
    peak_mib: float


def main() -> None:
    rows: list[dict[str, Any]] = []
    for axis, sizes in GROWN.items():
        before: Mapping[str, Taken] = {}
        for size in sizes:
            taken = in_new_process(stages, Size()._replace(**{axis: size})).result
            for stage, now in taken.items():
                rows.append({"axis": axis, "size": size, "stage": stage, **columns(now, before.get(stage))})
                print(rows[-1], flush=True)
            before = taken
    write_table("stage_growth.csv", f"python benchmarks/stage_growth.py (torch {torch.__version__}, 1 thread)", rows)


def columns(now: Taken, before: Taken | None) -> dict[str, Any]:
    """The figures of a row, beside those of half the size."""
    return {
        "core_seconds": f"{now.core_seconds:.3f}",
        "peak_mib": round(now.peak_mib),
        "of_seconds": "" if before is None else exponent(now.core_seconds, before.core_seconds),
        "of_mib": "" if before is None else exponent(now.peak_mib, before.peak_mib, LEAST_MIB),
    }


def exponent(now: float, before: float, least: float = 0.0) -> str:
    """The exponent of a growth between two sizes; empty if a figure is too small to tell."""
    return f"{math.log2(now / before):.2f}" if min(now, before) > least else ""


def stages(size: Size) -> dict[str, Taken]:
    """What each stage takes."""
    torch.set_num_threads(1)
    model, batches = made(size)
    taken: dict[str, Taken] = {}

    def timed(stage: str, call: Callable[[], Any]) -> Any:
        forget_peak()
        held, start = peak_mb(), time.process_time()
        result = call()
        taken[stage] = Taken(time.process_time() - start, (peak_mb() - held) * 1e6 / 2**20)
        return result

    forward(model, batches[:1])  # what a process computes once
    timed("bare", lambda: forward(model, batches))
    structure = timed("structure", lambda: trace(model, (batches[0][0][:1],)))
    units = [unit for unit in structure.units if not unit.is_branch]
    moments, reasons = timed("moments", lambda: collect_moments(model, structure, consumers_of(units), batches))
    orders, _ = timed("order", lambda: order_units(model, structure, units, obs, moments, batches))
    bank = Bank(model, structure, orders, moments, reasons)
    subnet = bank.subnet({unit.name: max(unit.least, unit.width // 2) for unit in units})
    network = timed("candidate", lambda: bank.build(subnet))
    timed("fit", lambda: compensate(network, structure, make_reference(model, structure, batches), subnet.indices))
    return taken


def made(size: Size) -> tuple[nn.Module, list[tuple[torch.Tensor, ...]]]:
    """A Llama with random weights, and batches of random tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=size.width,
        intermediate_size=4 * size.width,
        num_hidden_layers=size.depth,
        num_attention_heads=4,
        use_cache=False,
    )
    model = named_inputs(LlamaForCausalLM(config).eval())
    tokens = torch.randint(0, 512, (size.examples, size.tokens))
    return model, [(part,) for part in tokens.split(BATCH)]


@torch.no_grad()
def forward(model: nn.Module, batches: list[tuple[torch.Tensor, ...]]) -> None:
    for batch in batches:
        model(*batch)


if __name__ == "__main__":
    main()
