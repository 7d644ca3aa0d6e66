"""The perplexity of a language model's front within shares of its MACs.

python benchmarks/language_models.py FOLDER TEXT [EVALUATIONS] [SEPARATOR]

FOLDER is a checkpoint of transformers (benchmarks/llama2c.py writes one of stories260K), TEXT a UTF-8 file, whose
documents are separated by SEPARATOR, two empty lines unless another one is given.
"""

from __future__ import annotations

import sys
import time

import autoprune
from autoprune.data import text
from autoprune.measure.fitness import language_model
from autoprune.pretrained import causal_lm

COUNTS = {"length": 128, "calibrate": 200, "select": 150, "report": 200, "batch_size": 25}
SHARES = 1.0, 0.8, 0.65, 0.5
LEVELS = [{"match": "*", "levels": 8}]


def main() -> None:
    folder, file = sys.argv[1:3]
    evaluations = int(sys.argv[3]) if len(sys.argv) > 3 else 100
    separator = sys.argv[4] if len(sys.argv) > 4 else "\n\n\n"
    data = text(file, tokenizer=folder, separator=separator, **COUNTS)
    started = time.process_time()
    front = autoprune.search(
        causal_lm(folder), data, objectives=("perplexity", "macs"), rules=LEVELS, fitness=language_model,
        evaluations=evaluations, front_size=16, threads=1,
    )  # fmt: skip
    print(f"{evaluations} evaluations, {time.process_time() - started:.0f} processor seconds")
    for share in SHARES:
        member = min((m for m in front if m["macs_ratio"] <= share), key=lambda m: m["select_perplexity"])
        low, high = member.intervals["perplexity"]
        found = f"{member['perplexity']:.2f} ({low:.2f} to {high:.2f})"
        print(f"MACs <= {share:.0%}: {member['macs_ratio']:.3f}, perplexity {found}")


if __name__ == "__main__":
    main()
