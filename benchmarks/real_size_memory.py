"""Peak memory and processor seconds of find_structure and verify for networks of real size, with random weights.

    python benchmarks/real_size_memory.py [--label NAME] [--cases CASE ...]

Every case runs in a process of its own, on one thread. A peak is the largest resident memory while the analysis runs,
less what it was before the model was made, so the model is part of it; `times` is its ratio to the bytes of the model.
`forward` is one bare pass without gradients. Rows of the same case and label in results/real_size_memory.csv are
replaced, the others stay. The networks are those of transformers, which has to be installed.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from processes import in_new_process
from torch import nn

import autoprune

RESULTS = Path(__file__).parents[1] / "results" / "real_size_memory.csv"
COMMAND = "python benchmarks/real_size_memory.py"
MIB = 1 << 20
Made = tuple[nn.Module, dict[str, Any]]
Row = dict[str, object]


def resnet50() -> Made:
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(ResNetConfig(num_labels=1000)), {"pixel_values": torch.randn(1, 3, 224, 224)}


def bert_base(tokens: int) -> Made:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig()), {"input_ids": torch.randint(0, 30000, (1, tokens))}


def llama(tokens: int, layers: int) -> Made:
    """The shape of TinyLlama 1.1B, which has 22 layers, with bfloat16 weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    heads = {"num_attention_heads": 32, "num_key_value_heads": 4}
    config = LlamaConfig(vocab_size=32000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=layers, **heads)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(config)
    torch.set_default_dtype(usual)
    return model, {"input_ids": torch.randint(0, 32000, (1, tokens)), "use_cache": False}


CASES: dict[str, tuple[Callable[..., Made], tuple[int, ...]]] = {
    "ResNet-50": (resnet50, ()),
    "BERT-base, 128 tokens": (bert_base, (128,)),
    "Llama 0.4B, 6 layers, 128 tokens": (llama, (128, 6)),
    "Llama 0.4B, 6 layers, 2048 tokens": (llama, (2048, 6)),
    "Llama 1.1B, 22 layers, 128 tokens": (llama, (128, 22)),
    "Llama 1.1B, 22 layers, 2048 tokens": (llama, (2048, 22)),
}


class Meter:
    """Measures parts of a process: the peak of its resident memory and its processor seconds."""

    def __init__(self) -> None:
        self.before, self.row = resident("VmRSS"), {}

    @contextlib.contextmanager
    def part(self, name: str, size: int) -> Iterator[None]:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        start = time.process_time()
        yield
        peak = resident("VmHWM") - self.before
        self.row[f"{name}_seconds"] = round(time.process_time() - start, 1)
        self.row |= {f"{name}_mib": round(peak / MIB), f"{name}_times": round(peak / size, 2)}


def resident(field: str) -> int:
    """Bytes of resident memory, now (VmRSS) or at its peak (VmHWM)."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def measured(case: str) -> Row:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    autoprune.find_structure(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), torch.randn(1, 4))  # imports its parts
    meter, (make, sizes) = Meter(), CASES[case]
    model, example = make(*sizes)
    model.eval()
    size = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    with meter.part("forward", size), torch.no_grad():
        model(**example)
    with meter.part("find", size):
        structure = autoprune.find_structure(model, example)
    small = autoprune.shrink(model, structure, 0.5)
    with meter.part("verify", size):
        report = autoprune.verify(model, small, structure, example)
    return {"model_mib": round(size / MIB), "units": len(structure.units), **meter.row, "ok": report.ok}


def write(rows: list[Row]) -> None:
    """Replaces the rows of the same case and label."""
    new = {(row["case"], row["label"]) for row in rows}
    if RESULTS.exists():
        with RESULTS.open(newline="") as file:
            known = list(csv.DictReader(file.readlines()[1:]))
        rows = [*(row for row in known if (row["case"], row["label"]) not in new), *rows]
    with RESULTS.open("w", newline="") as file:
        file.write(f"# {COMMAND}\n")
        writer = csv.DictWriter(file, list(rows[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--label", default="now", help="what is measured, such as a version")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    for case in options.cases:
        row = {"case": case, "label": options.label, **in_new_process(measured, case).result}
        print(row, flush=True)
        write([row])


if __name__ == "__main__":
    main()
