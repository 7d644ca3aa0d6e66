"""What published training-free methods make of a language model within shares of its MACs and of its parameters.

    python benchmarks/language_rivals.py FOLDER TEXT [--seeds 0 1 2] [--methods NAME ...]

FOLDER and TEXT, the sequences and the report set are those of benchmarks/language_models.py; a seed draws the
calibration and selection sequences. The methods (language_rivals/) were written from their descriptions. Each makes
networks in all of its forms and, where it has parameters, with several values; of those within a share the row has the
one that is best on the selection set. `auto` is a search over widths with its front, as in
benchmarks/language_models.py. Perplexities are those on the report set, which no method sees. Costs are as autoprune
counts them, at the length of the sequences; `seconds` of processor time are those of a method for all shares of one or
both costs. Rows are written as they come; those of other seeds, methods and costs in the table stay.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import language_models
import torch
from language_rivals import depth, linear_map, slicing, two_stage, widths
from language_rivals.setting import Budget, Pruned, Setting, best_within, perplexity
from tables import read_table, write_table
from torch import nn

from autoprune.data import text

METHODS: dict[str, Callable[[Setting], Iterable[Pruned]]] = {
    "Wanda-sp": widths.wanda_sp,
    "Wanda with least squares": widths.wanda_least_squares,
    "FLAP": widths.flap,
    "LLM-Pruner": widths.llm_pruner,
    "SliceGPT": slicing.slice_gpt,
    "2SSP": two_stage.two_stage,
    "BlockPruner": depth.block_pruner,
    "BlockPruner by layers": depth.iterative_layers,
    "FinerCut": depth.finercut,
    "FinerCut by layers": depth.finercut_layers,
    "Shortened LLaMA": depth.shortened_llama,
    "ShortGPT": depth.shortgpt,
    "Removed spans": linear_map.removed_spans,
    "ReplaceMe": linear_map.replace_me,
}
SHARES = 0.8, 0.65, 0.5
COSTS = "macs", "params"
EVALUATIONS = 200
TABLE = "language_rivals.csv"
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("text")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--costs", nargs="+", default=list(COSTS), choices=COSTS)
    parser.add_argument("--methods", nargs="+", default=["auto", *METHODS], choices=["auto", *METHODS])
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {key(row): row for row in read_table(TABLE)}
    for row in rows(options):
        print(row, flush=True)
        found[key(row)] = row
        write_table(TABLE, command(list(found.values())), list(found.values()))


def command(found: Sequence[Row]) -> str:
    """The command that makes the rows."""
    seeds = " ".join(sorted({str(row["seed"]) for row in found}))
    costs = " ".join(cost for cost in COSTS if any(row["cost"] == cost for row in found))
    return f"python benchmarks/language_rivals.py stories260K tinystories.txt --seeds {seeds} --costs {costs}"


def key(row: Row) -> tuple[str, ...]:
    """What a row is about."""
    return tuple(str(row[name]) for name in ("cost", "within", "method", "seed"))


def rows(options: argparse.Namespace) -> Iterator[Row]:
    for seed in options.seeds:
        if "auto" in options.methods:
            for cost in options.costs:
                yield from auto_rows(options, cost, seed)
        yield from rival_rows(options, seed)


def auto_rows(options: argparse.Namespace, cost: str, seed: int) -> Iterator[Row]:
    started = time.process_time()
    front = language_models.searched(options.folder, options.text, EVALUATIONS, cost=cost, seed=seed)
    seconds = round(time.process_time() - started)
    for share in SHARES:
        member = min((m for m in front if m[f"{cost}_ratio"] <= share), key=lambda m: m["select_perplexity"])
        ratios = {cost: member[f"{cost}_ratio"] for cost in COSTS}
        yield row(
            seed, "auto", Budget(cost, share), ratios, member["perplexity"], seconds, f"{EVALUATIONS} evaluations"
        )


def rival_rows(options: argparse.Namespace, seed: int) -> Iterator[Row]:
    data = text(options.text, tokenizer=options.folder, separator="\n\n\n", seed=seed, **language_models.COUNTS)
    budgets = [Budget(cost, share) for cost in options.costs for share in SHARES]
    calibrate = [batch.inputs[0] for batch in data.calibrate]
    setting = Setting(network(options.folder), calibrate, data.select, budgets)
    for name in (name for name in options.methods if name in METHODS):
        started = time.process_time()
        best = best_within(setting, METHODS[name](setting))
        seconds = round(time.process_time() - started)
        for budget, chosen in best.items():
            found = perplexity(chosen.pruned.network, data.report)
            yield row(seed, name, budget, chosen.pruned.ratios, found, seconds, chosen.pruned.options)


def row(
    seed: int, method: str, budget: Budget, ratios: Mapping[str, float], found: float, seconds: int, options: str
) -> Row:
    return {
        "seed": seed,
        "method": method,
        "cost": budget.cost,
        "within": budget.share,
        **{cost: round(ratios[cost], 3) for cost in COSTS},
        "perplexity": round(found, 3),
        "seconds": seconds,
        "options": options,
    }


def network(folder: str) -> nn.Module:
    from transformers import AutoModelForCausalLM

    found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    found.config.use_cache = False
    return found


if __name__ == "__main__":
    main()
