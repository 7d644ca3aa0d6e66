"""The perplexity of a language model's front within shares of its MACs, by the number of evaluations.

    python benchmarks/language_models.py FOLDER TEXT

FOLDER is a checkpoint of transformers (benchmarks/llama2c.py writes one of stories260K), TEXT a UTF-8 file whose
documents are separated by two empty lines. Of the networks of a front within a share, the row has the one that is best
on the selection set; perplexities and their 95 % confidence intervals are those on the report set.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from tables import write_table

import autoprune
from autoprune.data import text
from autoprune.measure.fitness import language_model
from autoprune.pretrained import causal_lm

COUNTS = {"length": 128, "calibrate": 200, "select": 150, "report": 200, "batch_size": 25}
EVALUATIONS = 50, 100, 200
SHARES = 1.0, 0.8, 0.65, 0.5


def rows(folder: str, file: str, evaluations: int) -> Iterator[dict[str, float]]:
    data = text(file, tokenizer=folder, separator="\n\n\n", **COUNTS)
    started = time.process_time()
    front = autoprune.search(
        causal_lm(folder), data, objectives=("perplexity", "macs"), rules=[{"match": "*", "levels": 8}],
        fitness=language_model, evaluations=evaluations, front_size=16, threads=1,
    )  # fmt: skip
    seconds = round(time.process_time() - started)
    for share in SHARES:
        member = min((m for m in front if m["macs_ratio"] <= share), key=lambda m: m["select_perplexity"])
        low, high = (round(end, 3) for end in member.intervals["perplexity"])
        yield {
            "evaluations": evaluations,
            "seconds": seconds,
            "within": share,
            "macs": round(member["macs_ratio"], 3),
            "perplexity": round(member["perplexity"], 3),
            "low": low,
            "high": high,
            "kl": round(member["kl"], 4),
        }


def main() -> None:
    found = [row for evaluations in EVALUATIONS for row in rows(*sys.argv[1:3], evaluations)]
    write_table("language_models.csv", "python benchmarks/language_models.py stories260K tinystories.txt", found)
    for row in found:
        print(row)


if __name__ == "__main__":
    main()
