"""Loads the exports of families.py as a user of transformers would, and compares what they compute.

    python benchmarks/families_reload.py FOLDER

Prints a line for each export: its name, whether the outputs are equal to the bit, and whether the generated tokens are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import transformers


def compared(folder: Path) -> tuple[str, str]:
    expected = torch.load(folder.with_suffix(".pt"))
    decoder = expected["tokens"] is not None
    auto = transformers.AutoModelForCausalLM if decoder else transformers.AutoModel
    network = auto.from_pretrained(str(folder), trust_remote_code=True).eval()
    ids = expected["ids"]
    with torch.no_grad():
        outputs = network(input_ids=ids, **({"use_cache": False} if decoder else {}))[0]
        same = "equal" if torch.equal(outputs, expected["outputs"]) else "different"
        if not decoder:
            return same, ""
        tokens = network.generate(ids, max_new_tokens=8, do_sample=False)
    return same, "equal" if torch.equal(tokens, expected["tokens"]) else "different"


def main() -> None:
    torch.set_num_threads(1)
    for file in sorted(Path(sys.argv[1]).glob("*.pt")):
        try:
            outputs, tokens = compared(file.with_suffix(""))
        except Exception as error:  # each export has its line, with the error as its result
            outputs, tokens = " ".join(f"{type(error).__name__}: {error}".split())[:200], ""
        print(file.stem, outputs, tokens, sep="\t")
    assert not any(name.split(".")[0] == "autoprune" for name in sys.modules)


if __name__ == "__main__":
    main()
