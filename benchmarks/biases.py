"""What the biases that layers get are worth: uniform networks of a language model without and with them.

    python benchmarks/biases.py FOLDER TEXT

FOLDER is a checkpoint of transformers (benchmarks/llama2c.py writes one of stories260K), TEXT a UTF-8 file whose
documents are separated by two empty lines. Widths are uniform: the largest networks within each share of the dense
MACs that keep at most the same share of every unit, in sixteenths. Perplexities are those of the report set.

    assembled  optimal brain surgeon and least squares (the bank): what a search scores
    fitted     every layer fitted to the dense network's outputs on all calibration sequences: what a front has

Rows go to results/biases.csv.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from smollm2 import uniform
from tables import write_table
from training_free import fit

from autoprune.core.levels import LevelRule
from autoprune.core.objective import Objective
from autoprune.core.space import Candidate
from autoprune.data import text
from autoprune.measure.fitness import language_model
from autoprune.pretrained import causal_lm
from autoprune.run.session.job import Job, silent
from autoprune.run.session.session import Session, open_session
from autoprune.searchers import make_searcher

COUNTS = {"length": 128, "calibrate": 200, "select": 150, "report": 200, "batch_size": 25}
LEVELS = tuple(step / 16 for step in range(4, 16))
SPACES = {"heads and neurons": ("*mlp*", "*heads*"), "all widths": ("*",)}
SHARES = 0.8, 0.65, 0.5
BIASES = "none", "configured"


def rows(folder: str, file: str, widths: str, share: float) -> Iterator[dict[str, object]]:
    for which in BIASES:
        session = opened(folder, file, which, SPACES[widths])
        chosen = within(session, share)
        measured = {"assembled": session.scorer.network(chosen), "fitted": fit(session, chosen)}
        macs = session.problem.costs_of(chosen)["macs"] / session.dense_costs["macs"]
        perplexity = {
            name: round(session.scorer.measure(network, session.reported)["perplexity"], 2)
            for name, network in measured.items()
        }
        yield {"widths": widths, "within": share, "macs": round(macs, 3), "biases": which, **perplexity}


def opened(folder: str, file: str, biases: str, patterns: tuple[str, ...]) -> Session:
    data = text(file, tokenizer=folder, separator="\n\n\n", **COUNTS)
    job = Job(
        name="biases",
        model=lambda: causal_lm(folder, biases=biases),
        data=lambda: data,
        rules=tuple(LevelRule(pattern, LEVELS) for pattern in patterns),
        objectives=(Objective("perplexity", "min"), Objective("macs", "min")),
        searcher=lambda problem, seed: make_searcher("random", problem, seed=seed),
        fitness=language_model,
    )
    return open_session(job, silent)


def within(session: Session, share: float) -> Candidate:
    """The largest uniform network within a share of the dense MACs."""
    macs = {c: session.problem.costs_of(c)["macs"] for c in (uniform(session, kept) for kept in LEVELS)}
    return max((c for c in macs if macs[c] <= share * session.dense_costs["macs"]), key=macs.__getitem__)


def main() -> None:
    torch.set_num_threads(1)
    found = [row for widths in SPACES for share in SHARES for row in rows(*sys.argv[1:3], widths, share)]
    write_table("biases.csv", "python benchmarks/biases.py stories260K tinystories.txt (1 thread)", found)
    for row in found:
        print(row)


if __name__ == "__main__":
    main()
