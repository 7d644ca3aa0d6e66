"""Sentence embeddings of a pruned encoder against those of the dense one, beside torch-pruning.

    python benchmarks/encoder.py FOLDER TEXT

FOLDER is a checkpoint of a BERT with its tokenizer, such as all-MiniLM-L6-v2, and TEXT the validation part of
WikiText-2 at word level, which is cut into sentences. Embeddings are the means of the outputs over tokens. 500
sentences are for moments and fits, 200 for the search, and 200 for the report, which nothing else sees.

    uniform l2       the same share of every layer's heads and neurons, those of largest L2 norm
    torch-pruning    the same with the group importances of torch-pruning
    auto             the member of a front of 16, after a search of 200 evaluations over heads, their size and neurons,
                     that is best on the selection sentences

`cosine` is the mean cosine between the embeddings of both networks. `tau` is Kendall's rank correlation of retrieval:
the other report sentences in the order of their similarity to a query, mean over all report sentences as queries.
Rows go to results/encoder.csv.
"""

from __future__ import annotations

import argparse
import copy
import re
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from compensation.setting import largest_within, macs
from scipy.stats import kendalltau
from smollm2 import prose
from tables import write_table
from torch import nn
from torch.nn.functional import cosine_similarity, normalize
from zoo.models import declare_torchvision_operators

import autoprune
from autoprune.api.front import PrunedFront
from autoprune.data import Data, sentences
from autoprune.measure.fitness import embedding
from autoprune.pretrained import encoder
from autoprune.prune.find import find_structure
from autoprune.prune.shrink import shrink
from autoprune.prune.structure.structure import Structure

SHARES = (0.75, 0.5)
COUNTS = {"length": 48, "calibrate": 500, "select": 200, "report": 200, "batch_size": 50}
EVALUATIONS, FRONT = 200, 16
SHORTEST = 40  # characters of a sentence

Inputs = tuple[torch.Tensor, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("text", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    declare_torchvision_operators()  # torch-pruning imports torchvision
    data = read(options.text, options.folder)
    start = time.process_time()
    front = searched(options.folder, data)
    rows: list[dict[str, Any]] = []
    seconds = round(time.process_time() - start)
    dense = encoder(options.folder).eval()
    example, structure = data.example, find_structure(dense, data.example)
    removing = {"uniform l2": partial(uniform, dense, structure), "torch-pruning": partial(rival, dense, example)}
    for share in SHARES:
        budget = share * macs(dense, example)
        networks = {name: largest_within(make, budget, example) for name, make in removing.items()}
        networks["auto"] = member(front, share)
        rows += [row(method, share, network, dense, data) for method, network in networks.items()]
    command = f"python benchmarks/encoder.py FOLDER TEXT (torch {torch.__version__}, 1 thread)"
    write_table("encoder.csv", command, [*rows, {"method": "search", "core_seconds": seconds}])


def read(text: Path, folder: str) -> Data:
    """Sentences of the text, as examples of their own."""
    found = (line for line in re.split(r"(?<=[.!?])\s+", prose(text.read_text())))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(dict.fromkeys(line for line in found if len(line) >= SHORTEST)))
        file.flush()
        return sentences(file.name, folder, **COUNTS)


def searched(folder: str, data: Data) -> PrunedFront:
    return autoprune.search(
        encoder(folder), data, objectives=("cosine", "macs"), fitness=embedding, evaluations=EVALUATIONS,
        front_size=FRONT, threads=1,
    )  # fmt: skip


def member(front: PrunedFront, share: float) -> nn.Module:
    within = [member for member in front if member["macs_ratio"] <= share]
    return max(within, key=lambda member: member["select_cosine"]).build()


def uniform(dense: nn.Module, structure: Structure, ratio: float) -> nn.Module:
    """Heads and neurons of largest L2 norm, weights as they were."""
    units = [unit for unit in structure.units if unit.kind in ("heads", "neurons")]
    return shrink(dense, structure, {unit.name: max(unit.least, round((1 - ratio) * unit.width)) for unit in units})


def rival(dense: nn.Module, example: Inputs, ratio: float) -> nn.Module:
    """Heads and neurons by torch-pruning.

    Fang et al. 2023, https://arxiv.org/abs/2301.12900.
    """
    import torch_pruning as tp

    network = copy.deepcopy(dense)
    attentions = [module for name, module in network.named_modules() if name.endswith("attention.self")]
    roots = {module for attention in attentions for module in (attention.query, attention.key, attention.value)}
    roots |= {module for name, module in network.named_modules() if name.endswith("intermediate.dense")}
    pruner = tp.pruner.BasePruner(
        network,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=[m for m in network.modules() if isinstance(m, nn.Linear) and m not in roots],
        num_heads={attention.query: attention.num_attention_heads for attention in attentions},
        prune_num_heads=True,
        head_pruning_ratio=ratio,
        output_transform=lambda output: output.last_hidden_state.sum(),
    )
    pruner.step()
    for attention in attentions:
        attention.num_attention_heads = pruner.num_heads[attention.query]
        attention.all_head_size = attention.query.out_features
    return network


def row(method: str, share: float, network: nn.Module, dense: nn.Module, data: Data) -> dict[str, Any]:
    """How alike the embeddings of both networks are on the report sentences."""
    full, small = embeddings(dense, data), embeddings(network, data)
    ratio = macs(network, data.example) / macs(dense, data.example)
    return {
        "share": share,
        "method": method,
        "macs_ratio": f"{ratio:.3f}",
        "cosine": f"{float(cosine_similarity(full, small).mean()):.4f}",
        "tau": f"{retrieval_tau(full, small):.3f}",
        "core_seconds": "",
    }


@torch.no_grad()
def embeddings(network: nn.Module, data: Data) -> torch.Tensor:
    """(n, d) means of the outputs over the tokens of each report sentence."""
    found = []
    for batch in data.report:
        output = network(*batch.inputs)
        tokens = getattr(output, "last_hidden_state", output)
        mask = batch.inputs[1][:, :, None].to(tokens)
        found.append((tokens * mask).sum(dim=1) / mask.sum(dim=1))
    return torch.cat(found)


def retrieval_tau(full: torch.Tensor, small: torch.Tensor) -> float:
    """The mean over queries of Kendall's tau between the similarities of the other sentences in both networks."""
    dense, pruned = (normalize(x, dim=1) @ normalize(x, dim=1).T for x in (full, small))
    others = ~torch.eye(len(full), dtype=torch.bool)
    taus = [kendalltau(a[rest], b[rest]).statistic for a, b, rest in zip(dense, pruned, others, strict=True)]
    return float(sum(taus) / len(taus))


if __name__ == "__main__":
    main()
