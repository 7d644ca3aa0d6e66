"""What a Llama of 1.1 billion parameters takes, stage by stage, and what larger ones take by forecast.

    python benchmarks/real_size_llama.py measure --layers 1
    python benchmarks/real_size_llama.py forecast

The network has TinyLlama's shape, random weights in bfloat16, and 16 sequences of 512 tokens; one thread. `measure`
runs every stage of a search with so many of the 22 layers: the structure, second moments, the order by `obs`, one
candidate with half of each unit, and its fit. `passes` are processor seconds as a multiple of a bare pass over all
sequences. `peak_mib` is the largest resident memory of the stage less what it was before the model was made; everything
that a search keeps is kept. `whole_mib` adds the weights, second moments and networks of the layers that were left out,
and `whole_seconds` is the time for 22 layers if all of it grows with them, so it is too large where a part belongs to
the embedding or the output. Second moments of 22 layers may take 3 GiB, a quarter of a machine with 12 GiB.

`forecast` is the largest memory that the forecast of a run says, in `peak_mib`, for networks on the meta device, which
have no weights; the weights are counted. Rows go to results/real_size_llama.csv, those of other networks stay.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import Any

import torch
from real_size_memory import MIB, Meter, llama
from tables import read_table, write_table
from torch import nn

from autoprune import Objective, Scoring
from autoprune.core.levels import LevelRule
from autoprune.data import Data
from autoprune.measure.fitness import language_model
from autoprune.pretrained import named_inputs
from autoprune.prune.bank.channels import Bank
from autoprune.prune.compensation.compensate import compensate
from autoprune.prune.compensation.reference import make_reference
from autoprune.prune.criteria.ordering import order_units
from autoprune.prune.criteria.surgeon import obs
from autoprune.prune.find import find_structure
from autoprune.prune.moments.consumers import consumers_of, measured_weights
from autoprune.prune.moments.held_out import EVERY
from autoprune.prune.moments.moments import Moments, collect_moments
from autoprune.run.inspection import inspect_job
from autoprune.run.session.job import Job, NamedSearcher
from autoprune.searchers import SEARCHERS

TABLE = "real_size_llama.csv"
COLUMNS = ("network", "layers", "stage", "seconds", "passes", "peak_mib", "whole_seconds", "whole_mib", "detail")
LAYERS, SEQUENCES, LENGTH, BATCH = 22, 16, 512, 8
LIMIT = 3 << 30  # bytes of the second moments of all 22 layers
CONFIGS = {
    "Llama 1.1B": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
    "Llama 7B": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
}
Row = dict[str, object]


class Stages:
    """Measures stages of one process, and writes a row for each.

    Args:
        layers: the number of layers of the network.
        size: the bytes of the network.
    """

    def __init__(self, layers: int, size: int, meter: Meter) -> None:
        self.layers, self.size, self.meter = layers, size, meter
        self.bare = 0.0

    def run(
        self, stage: str, call: Callable[[], Any], grows: Callable[[Any], int], detail: Callable[[Any], str]
    ) -> Any:
        """Runs a stage; `grows` are the bytes by which its peak grows with each layer."""
        with self.meter.part(stage, self.size):
            result = call()
        seconds, peak = self.meter.row[f"{stage}_seconds"], self.meter.row[f"{stage}_mib"]
        self.bare = self.bare or seconds
        more = LAYERS - self.layers
        row = {
            "network": "Llama 1.1B",
            "layers": self.layers,
            "stage": stage,
            "seconds": seconds,
            "passes": round(seconds / self.bare, 2),
            "peak_mib": peak,
            "whole_seconds": round(seconds * LAYERS / self.layers),
            "whole_mib": round(peak + more * grows(result) / MIB),
            "detail": detail(result),
        }
        print(*(f"{key} {value}" for key, value in row.items()), sep=", ", flush=True)
        write([row])
        return result


def measure(layers: int) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    meter = Meter()
    model = llama(LENGTH, layers)[0].eval()
    model.config.use_cache = False
    ids = torch.randint(0, 32000, (SEQUENCES, LENGTH))
    batches = [(part,) for part in ids.split(BATCH)]
    layer = nbytes(model.model.layers[0])
    stages = Stages(layers, nbytes(model), meter)

    def forward() -> None:
        with torch.no_grad():
            for batch in batches:
                model(*batch)

    stages.run("forward", forward, lambda _: layer, lambda _: f"{nbytes(model) / MIB:.0f} MiB of weights")
    structure = stages.run(
        "structure",
        lambda: find_structure(model, ids[:1]),
        lambda _: 2 * layer,
        lambda found: f"{len(found.units)} units",
    )
    units = [unit for unit in structure.units if not unit.is_branch]
    limit = LIMIT * layers // LAYERS
    moments, sliced = stages.run(
        "moments",
        lambda: collect_moments(model, structure, measured_weights(units), batches, limit),
        lambda found: layer + moments_bytes(found[0], layers, held=True),
        lambda found: f"{len(found[0])} weights with moments, {max(own.blocks for own in found[0].values())} blocks",
    )
    kept = layer + moments_bytes(moments, layers, held=False)
    orders, _ = stages.run(
        "order",
        lambda: order_units(model, structure, units, obs, moments, batches),
        lambda _: kept,
        lambda found: f"{len(found[1])} units by l2",
    )
    bank = Bank(model, structure, orders, moments, {n: sliced[n] for n in consumers_of(units) if n in sliced})
    subnet = bank.subnet({unit.name: unit.allowed(unit.width // 2) for unit in units})
    small = stages.run(
        "candidate",
        lambda: bank.build(subnet),
        lambda net: kept + 2 * nbytes(net.model.layers[0]),  # its weights, and solutions that the bank keeps
        lambda net: f"{nbytes(net) / MIB:.0f} MiB of weights",
    )
    own = nbytes(small.model.layers[0])
    reference = make_reference(model, structure, batches)
    stages.run(
        "fit",
        lambda: compensate(small, structure, reference, subnet.indices),
        lambda _: kept + 3 * own,
        lambda done: f"{len(done.fits)} layers fitted, {sum(fit.kept for fit in done.fits.values())} of them kept",
    )


def without_weights(config: dict[str, int]) -> nn.Module:
    """A network in bfloat16 on the meta device."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(vocab_size=32000, **config)).to(torch.bfloat16)
    return named_inputs(model.eval())


def tokens() -> Data:
    """16 sequences for calibration and for each other set."""
    return Data.from_tokens(
        torch.arange(3 * SEQUENCES * LENGTH) % 32000, LENGTH, SEQUENCES, SEQUENCES, SEQUENCES, BATCH
    )


def forecast(name: str, config: dict[str, int]) -> None:
    """Writes the largest memory of a run with a network without weights."""
    make = functools.partial(without_weights, config)
    job = Job(
        name=name,
        model=make,
        data=tokens,
        rules=(LevelRule("*", tuple(eighth / 8 for eighth in range(1, 9))),),
        objectives=(Objective("perplexity", "min"), Objective("macs", "min")),
        searcher=NamedSearcher(SEARCHERS["auto"]),
        fitness=language_model,
        scoring=Scoring(batch_norm_examples=SEQUENCES),
        device="meta",
        threads=1,
    )
    found = inspect_job(job).forecast
    most = max(found.stages, key=lambda stage: stage.memory)
    row = {
        "network": name,
        "layers": config["num_hidden_layers"],
        "stage": "forecast",
        "peak_mib": round((found.held + most.memory) / MIB),
        "detail": f"{nbytes(make()) / MIB:.0f} MiB of weights; "
        + ", ".join(f"{s.name} {s.memory / MIB:.0f}" for s in found.stages),
    }
    print(*(f"{key} {value}" for key, value in row.items()), sep=", ", flush=True)
    write([row])


def nbytes(network: Any) -> int:
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))


def moments_bytes(moments: dict[str, Moments], layers: int, *, held: bool) -> int:
    """The bytes of the second moments of one layer, with the rows that are held out where there are any."""
    apart = {own.stored.data_ptr(): own for name, own in moments.items() if ".layers." in name}
    rows = sum(2 * own.rows // EVERY * own.design.columns for own in apart.values() if own.blocks == 1) if held else 0
    return (sum(own.stored.nbytes for own in apart.values()) + rows) // layers


def write(rows: list[Row]) -> None:
    """Replaces the rows of the same network, layers and stage."""
    new = {tuple(str(row[key]) for key in COLUMNS[:3]) for row in rows}
    known = [row for row in read_table(TABLE) if tuple(row[key] for key in COLUMNS[:3]) not in new]
    every = [{key: row.get(key, "") for key in COLUMNS} for row in (*known, *rows)]
    write_table(TABLE, "python benchmarks/real_size_llama.py measure --layers 1; and forecast", every)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("measure", "forecast"))
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--networks", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    arguments = parser.parse_args()
    if arguments.part == "measure":
        measure(arguments.layers)
    else:
        for name in arguments.networks:
            forecast(name, CONFIGS[name])


if __name__ == "__main__":
    main()
