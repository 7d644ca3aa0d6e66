"""The whole job in Python, on scikit-learn's digits: search, pick a budget, export, load again, verify.

python examples/digits.py [EVALUATIONS]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

import autoprune
from autoprune.data import digits
from autoprune.zoo import digits_resnet


def accuracy(model: torch.nn.Module, batches: tuple[autoprune.Batch, ...]) -> float:
    with torch.no_grad():
        hits = [model(*batch.inputs).argmax(dim=1) == batch.target for batch in batches]
    return torch.cat(hits).float().mean().item()


def main() -> None:
    evaluations = int(sys.argv[1]) if len(sys.argv) > 1 else 150
    model, data = digits_resnet(), digits()
    front = autoprune.search(model, data, evaluations=evaluations, seed=0)
    print(f"dense: accuracy {accuracy(model, data.report):.4f}; a front of {len(front)} networks")
    for budget in (0.7, 0.5, 0.3):
        member = front.pick(f"macs<={budget}")
        print(f"at most {budget:.0%} of the MACs: {member['macs_ratio']:.3f}, accuracy {member['accuracy']:.4f}")
    with tempfile.TemporaryDirectory() as folder:
        front.pick("macs<=0.5").export(Path(folder) / "small")
        small = autoprune.load(digits_resnet(), Path(folder) / "small")
    parameters = sum(p.numel() for p in small.parameters()), sum(p.numel() for p in model.parameters())
    print(f"loaded again: {parameters[0]:,} of {parameters[1]:,} parameters, {accuracy(small, data.report):.4f}")


if __name__ == "__main__":
    main()
