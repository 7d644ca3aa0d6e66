"""Thirty-nine families of transformers: search, export as a checkpoint, load without autoprune, compare.

    python benchmarks/families.py [FAMILY ...]

Every network is small and random. A search of five evaluations over widths and branches finds a front, of which the
network nearest to half of the MACs is exported in the format `transformers`. Another process (families_reload.py),
which does not import autoprune, loads all exports: the outputs have to be the same to the bit, and so have the tokens
that decoders generate. With names of families only those rows are printed, and no table is written.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import transformers
from tables import write_table
from torch import nn

import autoprune
from autoprune import Data
from autoprune.measure.fitness import embedding, language_model
from autoprune.pretrained import named_inputs
from autoprune.pretrained.networks import padded_inputs
from autoprune.prune.find import find_structure
from autoprune.prune.passes.examples import Example

TOKENS, LENGTH = 64, 12
WIDTHS = {"match": "*", "levels": 4}
BRANCHES = {"match": "*", "kind": "branches", "keep": [1, 0]}
HEADS = {"num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.2}
COMMON = HEADS | {"hidden_size": 16, "intermediate_size": 24, "max_position_embeddings": 64}
GROUPED = COMMON | {"num_key_value_heads": 2}
WINDOWS = GROUPED | {"head_dim": 4, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = GROUPED | {"num_experts_per_tok": 2}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2}

DECODERS: dict[str, dict[str, Any]] = {
    "Llama": GROUPED,
    "Mistral": GROUPED,
    "Qwen2": GROUPED,
    "Qwen3": GROUPED | {"head_dim": 4},
    "Gemma": GROUPED | {"head_dim": 4},
    "Gemma2": WINDOWS | {"query_pre_attn_scalar": 4},
    "Gemma3": WINDOWS | {"query_pre_attn_scalar": 4},
    "Phi": GROUPED,
    "Phi3": GROUPED,
    "GPT2": GPT2,
    "GPTNeoX": COMMON,
    "GPTNeo": {"hidden_size": 16, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]],
               "max_position_embeddings": 64, "window_size": 8, "initializer_range": 0.2},
    "OPT": HEADS | {"hidden_size": 16, "ffn_dim": 24, "word_embed_proj_dim": 16, "max_position_embeddings": 64,
                    "init_std": 0.2},
    "Bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 4, "initializer_range": 0.2},
    "Falcon": HEADS | {"hidden_size": 16, "new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False},
    "StableLm": GROUPED,
    "Olmo": GROUPED,
    "Olmo2": GROUPED,
    "Cohere": GROUPED,
    "Granite": GROUPED,
    "SmolLM3": GROUPED,
    "Starcoder2": GROUPED,
    "Mpt": {"d_model": 16, "n_layers": 2, "n_heads": 4, "expansion_ratio": 2, "max_seq_len": 64,
            "initializer_range": 0.2},
    "CodeGen": GPT2 | {"rotary_dim": 4},
    "GPTJ": GPT2 | {"rotary_dim": 4},
    "GPTBigCode": GPT2,
    "Mixtral": EXPERTS | {"num_local_experts": 4},
    "Qwen3Moe": EXPERTS | {"head_dim": 4, "num_experts": 4, "moe_intermediate_size": 12},
}  # fmt: skip
ENCODERS: dict[str, dict[str, Any]] = {
    "Bert": COMMON,
    "MiniLM": COMMON | {"num_hidden_layers": 3},
    "Roberta": COMMON,
    "XLMRoberta": COMMON,
    "DistilBert": {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64,
                   "initializer_range": 0.2},
    "Electra": COMMON | {"embedding_size": 16},
    "Albert": COMMON | {"embedding_size": 16},
    "DebertaV2": COMMON | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "MPNet": COMMON,
    "ModernBert": COMMON,
    "RoFormer": COMMON | {"embedding_size": 16},
}  # fmt: skip
CLASSES = {"GPT2": "GPT2LMHeadModel", "MiniLM": "BertModel", "Gemma3": "Gemma3ForCausalLM"}
CONFIGS = {"MiniLM": "BertConfig", "Gemma3": "Gemma3TextConfig"}


def network(family: str) -> nn.Module:
    decoder = family in DECODERS
    sizes = (DECODERS if decoder else ENCODERS)[family]
    name = CLASSES.get(family, f"{family}{'ForCausalLM' if decoder else 'Model'}")
    config = getattr(transformers, CONFIGS.get(family, f"{family}Config"))
    torch.manual_seed(0)
    tokens = {"vocab_size": TOKENS, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
    return named_inputs(getattr(transformers, name)(config(**sizes, **tokens)).eval())


def data() -> Data:
    """Random tokens; none is the padding token."""
    ids = torch.randint(2, TOKENS, (24 * LENGTH,), generator=torch.Generator().manual_seed(0))
    return Data.from_tokens(ids, length=LENGTH, calibrate=8, select=8, report=8, batch_size=4)


def row(family: str, folder: Path) -> dict[str, Any]:
    """Prunes and exports one network, and saves its outputs beside."""
    started, dense = time.process_time(), network(family)
    (ids,) = data().example
    structure = find_structure(dense, (Example((ids,)), Example(padded_inputs(dense, (ids,)), name="padded")))
    kinds = Counter(unit.kind for unit in structure.units)
    largest = max(structure.frozen, key=lambda part: part.share, default=None)
    found: dict[str, Any] = {
        "family": family,
        "class": type(dense).__name__,
        "units": "; ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())),
        "left_alone": f"{largest.what}: {largest.reason}" if largest else "",
        "left_share": round(sum(part.share for part in structure.frozen), 3),
    }
    result = {"macs": "", "code": "", "outputs": "", "tokens": ""}
    try:
        result |= exported(family, dense, [BRANCHES, WIDTHS] if "branches" in kinds else [WIDTHS], folder)
    except Exception as error:  # each family has its row, with the error as its result
        result["outputs"] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return found | result | {"seconds": round(time.process_time() - started, 1)}


def exported(family: str, dense: nn.Module, rules: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    fitness, quality = (language_model, "perplexity") if family in DECODERS else (embedding, "cosine")
    front = autoprune.search(
        dense, data(), objectives=(quality, "macs"), fitness=fitness, rules=rules, evaluations=5, front_size=5,
        compensation="none", threads=1, progress=False,
    )  # fmt: skip
    member = min(front, key=lambda m: abs(m["macs_ratio"] - 0.5))
    small: Any = member.build()
    (ids,) = data().example
    with torch.no_grad():
        expected = {"ids": ids, "outputs": small(ids)[0], "tokens": None}
        if family in DECODERS:
            expected["tokens"] = small.generate(ids, max_new_tokens=8, do_sample=False)
    member.export(folder / family, format="transformers")
    torch.save(expected, folder / f"{family}.pt")
    own = any((folder / family).glob("modeling_*.py"))
    return {"macs": round(member["macs_ratio"], 3), "code": "own" if own else "plain"}


def reloaded(folder: Path) -> dict[str, dict[str, str]]:
    """What the other process says about each export: whether outputs and tokens are equal, or the error."""
    script = Path(__file__).with_name("families_reload.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], cwd=folder, text=True, capture_output=True, check=True,
        env=environment | {"HF_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    return {family: {"outputs": outputs, "tokens": tokens} for family, outputs, tokens in lines}


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for family in sys.argv[1:] or [*DECODERS, *ENCODERS]:
            rows.append(row(family, Path(folder)))
            print(rows[-1], flush=True)
        said = reloaded(Path(folder))
    rows = [found | said.get(found["family"], {}) for found in rows]
    for found in rows:
        print(found["family"], found["code"], found["outputs"], found["tokens"])
    if not sys.argv[1:]:
        write_table("families.csv", "python benchmarks/families.py", rows)


if __name__ == "__main__":
    main()
