"""The perplexity of a language model's front within shares of its MACs, by the number of evaluations.

    python benchmarks/language_models.py FOLDER TEXT [PRESET ...]

With names of presets, such as shortgpt, it measures these instead, and writes language_presets.csv. FOLDER is a
checkpoint of transformers (benchmarks/llama2c.py writes one of stories260K), TEXT a UTF-8 file whose documents are
separated by two empty lines. Of the networks of a front within a share, the row has the one that is best on the
selection set; perplexities and their 95 % confidence intervals are those on the report set. Layers get no biases
(benchmarks/biases.py shows what these are worth).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tables import write_table

import autoprune
from autoprune.config import load
from autoprune.data import text
from autoprune.measure.fitness import language_model
from autoprune.pretrained import causal_lm
from autoprune.run import search
from autoprune.run.results.member import Member

COUNTS = {"length": 128, "calibrate": 200, "select": 150, "report": 200, "batch_size": 25}
EVALUATIONS = 50, 100, 200
WIDTHS = ({"match": "*", "levels": 8},)
DEPTH = ({"match": "*", "kind": "branches", "keep": (1, 0)}, *WIDTHS)
SHARES = 1.0, 0.8, 0.65, 0.5
PRESETS = Path(__file__).parents[1] / "configs" / "presets"


def searched(
    folder: str, file: str, evaluations: int, *, cost: str = "macs", seed: int = 0, depth: bool = False
) -> autoprune.PrunedFront:
    """The front of a search by `auto` over widths, or over depth and width."""
    data = text(file, tokenizer=folder, separator="\n\n\n", seed=seed, **COUNTS)
    return autoprune.search(
        causal_lm(folder, biases="none"), data, objectives=("perplexity", cost), rules=DEPTH if depth else WIDTHS,
        fitness=language_model, evaluations=evaluations, front_size=16, threads=1, seed=seed,
    )  # fmt: skip


def rows(folder: str, file: str, evaluations: int) -> Iterator[dict[str, Any]]:
    """The rows of a search by `auto` over widths."""
    started = time.process_time()
    front = searched(folder, file, evaluations)
    seconds = round(time.process_time() - started)
    return within_shares(front, {"evaluations": evaluations, "seconds": seconds})


def preset_rows(folder: str, file: str, preset: str) -> Iterator[dict[str, Any]]:
    """The rows of a preset, with the settings that its first comment names."""
    comment = (PRESETS / f"{preset}.yaml").read_text(encoding="utf-8").partition("\n#\n")[0]
    settings = [words[0] for part in comment.split("--set ")[1:] if (words := part.split())]
    settings += [
        f"model.path={folder}",
        "model.biases=none",
        f"data.text={file}",
        'data.separator="\\n\\n\\n"',
        "run.threads=1",
    ]
    settings += [f"data.{name}={count}" for name, count in COUNTS.items()]
    started = time.process_time()
    result = search(load("configs/llm.yaml", settings).resolve(), None)
    seconds = round(time.process_time() - started)
    return within_shares(result.members, {"preset": preset, "evaluations": len(result.evaluations), "seconds": seconds})


def within_shares(members: Iterable[Member], first: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """For each share of the MACs the network that is best on the selection set; none where no network is within it."""
    for share in SHARES:
        inside = [m for m in members if m["macs_ratio"] <= share]
        if not inside:
            continue
        member = min(inside, key=lambda m: m["select_perplexity"])
        low, high = (round(end, 3) for end in member.intervals["perplexity"])
        yield {
            **first,
            "within": share,
            "macs": round(member["macs_ratio"], 3),
            "perplexity": round(member["perplexity"], 3),
            "low": low,
            "high": high,
            "kl": round(member["kl"], 4),
        }


def main() -> None:
    folder, file, *presets = sys.argv[1:]
    found: list[dict[str, Any]] = []
    command = "python benchmarks/language_models.py stories260K tinystories.txt"
    for run in presets or EVALUATIONS:
        found += preset_rows(folder, file, run) if isinstance(run, str) else rows(folder, file, run)
    name = "language_presets.csv" if presets else "language_models.csv"
    write_table(name, " ".join([command, *presets]), found)
    for row in found:
        print(row)


if __name__ == "__main__":
    main()
