"""SmolLM2-135M with uniform widths and no search or training: what fits to the dense network add to assembled networks.

    python benchmarks/smollm2.py --model FOLDER --text FILE [--calibrate 12]

FOLDER is a transformers checkpoint of SmolLM2-135M-Instruct with its tokenizer, and FILE the validation part of
WikiText-2 at word level. Headings and sentences with unknown words are dropped and punctuation is put back, so
perplexities compare networks with each other and are not those of papers. Sequences have 256 tokens. The first
`--calibrate` ones are for moments and fits, the last 24 for the report, which nothing else sees. Widths are uniform:
at most the same share of the neurons of MLPs and of query heads, which go by thirds of each group.

    assembled  optimal brain surgeon and least squares (the bank): what a search scores
    fitted     every layer fitted to the dense network's outputs on all calibration sequences: what a front has

`peak_mib` is by how much the process has grown since before the model was loaded. Rows go to results/smollm2.csv.
"""

from __future__ import annotations

import argparse
import math
import re
import resource
import time
from pathlib import Path
from typing import Any

import torch
from processes import in_new_process
from tables import write_table
from torch import nn
from torch.nn import functional
from training_free import fit

from autoprune.core.levels import LevelRule
from autoprune.core.objective import Objective
from autoprune.core.space import Candidate
from autoprune.data import Data
from autoprune.measure.batch import Batch
from autoprune.measure.fitness import averaging
from autoprune.run.session.job import Job, silent
from autoprune.run.session.session import Session, open_session
from autoprune.searchers import make_searcher

SHARES = (0.8, 0.65)
LENGTH, REPORT, SELECT, BATCH = 256, 24, 4, 4
LEVELS = tuple(step / 48 for step in range(8, 48))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--calibrate", type=int, default=12, help="number of sequences for moments and fits")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of the dense MACs")
    options = parser.parse_args()
    rows = in_new_process(measured, options).result
    write(rows, options)


def measured(options: argparse.Namespace) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    before = peak_mib()
    session = open_session(job(options), silent)
    rows = [row(session, session.model, 1.0, "dense", None, 0.0, before)]
    for share in options.shares:
        chosen = uniform_within(session, share)
        for method, build in {"assembled": assembled, "fitted": fit}.items():
            start = time.process_time()
            network = build(session, chosen)
            rows.append(row(session, network, share, method, chosen, time.process_time() - start, before))
            print(rows[-1], flush=True)
    return rows


class Logits(nn.Module):
    """The network as a function from (b, n) tokens to (b, n, vocabulary) logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(input_ids=tokens, use_cache=False).logits
        return logits


def job(options: argparse.Namespace) -> Job:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    tokens = torch.tensor(tokenizer(prose(options.text.read_text()))["input_ids"])
    sequences = tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)
    first = options.calibrate
    data = Data(
        calibrate=batched(sequences[:first]),
        select=batched(sequences[first : first + SELECT]),
        report=batched(sequences[-REPORT:]),
    )
    model = Logits(AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)).eval()
    return Job(
        name="smollm2",
        model=lambda: model,
        data=lambda: data,
        rules=(LevelRule("*mlp*", LEVELS), LevelRule("*heads/2", (1 / 3, 2 / 3))),
        objectives=(Objective("loss", "min"), Objective("macs", "min")),
        searcher=lambda problem, seed: make_searcher("random", problem, seed=seed),
        fitness=token_loss,
    )


def prose(text: str) -> str:
    """Sentences without unknown words, with punctuation where it is written."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("=")]
    known = (" ".join(s for s in re.split(r"(?<= [.!?]) ", line) if "<unk>" not in s) for line in lines)
    joined = "\n".join(line for line in known if line)
    for pattern, written in {
        r" @([-,.])@ ": r"\1",
        r" ([.,;:!?)\]])": r"\1",
        r"([(\[]) ": r"\1",
        r" (n't|'(?:s|re|ve|ll|d|m))\b": r"\1",
        r'" (.*?) "': r'"\1"',
    }.items():
        joined = re.sub(pattern, written, joined)
    return joined


def batched(sequences: torch.Tensor) -> tuple[Batch, ...]:
    return tuple(Batch((tokens,), tokens) for tokens in sequences.split(BATCH))


@averaging
def token_loss(network: nn.Module, batches: Any) -> dict[str, float]:
    """The mean cross entropy of the next token, in nats."""
    total, count = 0.0, 0
    for batch in batches:
        logits, tokens = network(*batch.inputs)[:, :-1], batch.target[:, 1:]
        total += float(functional.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="sum"))
        count += tokens.numel()
    return {"loss": total / count}


def uniform_within(session: Session, share: float) -> Candidate:
    """The largest network within a share of the dense MACs that keeps at most the same share of every unit."""
    candidates = [uniform(session, kept) for kept in (*LEVELS, 1.0)]
    macs = {candidate: session.problem.costs_of(candidate)["macs"] for candidate in candidates}
    return max((c for c in candidates if macs[c] <= share * session.dense_costs["macs"]), key=macs.__getitem__)


def uniform(session: Session, kept: float) -> Candidate:
    """The candidate that keeps at most a share of every unit, and at least its smallest level."""
    most = ([c for c in counts if c <= kept * max(counts) + 1e-9] or [min(counts)] for counts in session.space.levels)
    pairs = zip(session.space.levels, most, strict=True)
    return Candidate(tuple(list(counts).index(max(within)) for counts, within in pairs))


def assembled(session: Session, candidate: Candidate) -> nn.Module:
    return session.scorer.network(candidate)


@torch.no_grad()
def row(
    session: Session,
    network: nn.Module,
    share: float,
    method: str,
    candidate: Candidate | None,
    seconds: float,
    before: float,
) -> dict[str, Any]:
    """The perplexity on the report sequences."""
    ratio = 1.0 if candidate is None else session.problem.costs_of(candidate)["macs"] / session.dense_costs["macs"]
    return {
        "share": share,
        "method": method,
        "macs_ratio": f"{ratio:.4f}",
        "perplexity": f"{math.exp(token_loss(network, session.data.report)['loss']):.2f}",
        "core_seconds": f"{seconds:.1f}",
        "peak_mib": round(peak_mib() - before),
    }


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    command = (
        f"python benchmarks/smollm2.py --model FOLDER --text FILE --calibrate {options.calibrate} "
        f"(torch {torch.__version__}, 1 thread)"
    )
    write_table("smollm2.csv", command, rows)


if __name__ == "__main__":
    main()
