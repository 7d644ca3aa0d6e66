"""Experts of a small mixture by the criterion that orders them: eight trained experts a layer, of which four stay.

    python benchmarks/experts.py FOLDER TEXT

FOLDER is a checkpoint of transformers whose tokenizer is used (benchmarks/llama2c.py writes that of stories260K), TEXT
a UTF-8 file whose documents are separated by two empty lines. A Mixtral of two layers with eight experts each, of which
a token meets two, is trained on the text before the report set with a fixed seed. Then four experts of each layer stay,
as the criterion says. Perplexities are those of the report set.

    assembled  the router and the experts that stay, as they are
    fitted     every linear layer fitted to the dense network's outputs on the calibration sequences

Rows go to results/experts.csv.
"""

from __future__ import annotations

import functools
import sys

import torch
from tables import write_table
from torch import nn
from training_free import fit

from autoprune.core.levels import LevelRule
from autoprune.core.objective import Objective
from autoprune.core.space import Candidate
from autoprune.data import Data, text
from autoprune.measure.fitness import language_model
from autoprune.pretrained import named_inputs
from autoprune.prune.criteria import CRITERIA, Criterion, UnitStatistics, UnitWeights
from autoprune.run.session.job import Job, silent
from autoprune.run.session.session import Session, open_session
from autoprune.searchers import make_searcher

LENGTH = 128
COUNTS = {"length": LENGTH, "calibrate": 100, "select": 50, "report": 200, "batch_size": 25}
EXPERTS, KEPT = 8, 4
STEPS, BATCH, RATE = 400, 16, 3e-3
SEEDS = 0, 1, 2


def main() -> None:
    torch.set_num_threads(1)
    data = text(sys.argv[2], tokenizer=sys.argv[1], separator="\n\n\n", **COUNTS)
    network = trained(data, sys.argv[1])
    orders: dict[str, Criterion] = {name: CRITERIA[name] for name in ("reap", "mone", "l2")}
    orders |= {f"random, seed {seed}": functools.partial(drawn, seed) for seed in SEEDS}
    rows: list[dict[str, object]] = []
    for name, criterion in orders.items():
        session = opened(network, data, criterion)
        if not rows:
            perplexity = measured(session, session.model)
            rows = [{"order": "dense", "experts": EXPERTS, "assembled": perplexity, "fitted": perplexity}]
        rows.append({"order": name, "experts": KEPT, **pruned(session)})
        print(rows[-1], flush=True)
    write_table("experts.csv", "python benchmarks/experts.py stories260K tinystories.txt (1 thread)", rows)


def trained(data: Data, folder: str) -> nn.Module:
    """A mixture, trained on the sequences that neither the selection nor the report set has."""
    from transformers import AutoTokenizer, MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        num_local_experts=EXPERTS, num_experts_per_tok=2, max_position_embeddings=2 * LENGTH, router_aux_loss_coef=0.01,
        vocab_size=len(AutoTokenizer.from_pretrained(folder)), tie_word_embeddings=True, output_router_logits=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    network = MixtralForCausalLM(config)
    tokens = torch.cat([batch.inputs[0] for batch in (*(data.train or ()), *data.calibrate)])
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    for _ in range(STEPS):
        chosen = tokens[torch.randint(len(tokens), (BATCH,))]
        optimizer.zero_grad()
        network(input_ids=chosen, labels=chosen).loss.backward()
        optimizer.step()
        schedule.step()
    network.config.output_router_logits = False
    return named_inputs(network.eval())


def opened(network: nn.Module, data: Data, criterion: Criterion) -> Session:
    """A session that searches experts alone, whose order is that of the criterion."""
    job = Job(
        name="experts",
        model=lambda: network,
        data=lambda: data,
        rules=(LevelRule("*", (KEPT / EXPERTS,), kind="experts"),),
        objectives=(Objective("perplexity", "min"), Objective("params", "min")),
        searcher=lambda problem, seed: make_searcher("random", problem, seed=seed),
        criterion=criterion,
        fitness=language_model,
    )
    return open_session(job, silent)


def pruned(session: Session) -> dict[str, float]:
    """The perplexities of the networks with half of the experts."""
    chosen = Candidate((1,) * len(session.space.units))
    networks = {"assembled": session.scorer.network(chosen), "fitted": fit(session, chosen)}
    return {name: measured(session, small) for name, small in networks.items()}


def measured(session: Session, network: nn.Module) -> float:
    return round(session.scorer.measure(network, session.reported)["perplexity"], 2)


def drawn(seed: int, weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """A random order, another one for each seed."""
    return torch.rand(len(weights.producers[0]), generator=torch.Generator().manual_seed(seed))


if __name__ == "__main__":
    main()
