"""Export, and load in a fresh process: it needs the code of the model, and neither the search nor a pickle.

python examples/fresh_process.py [EVALUATIONS]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import autoprune
from autoprune.data import digits
from autoprune.zoo import digits_resnet

LOADER = """\
import sys, torch, autoprune
from autoprune.zoo import digits_resnet

folder, images, outputs = sys.argv[1:]
small = autoprune.load(digits_resnet(), folder)  # a fresh model of the same class; its weights do not matter
with torch.no_grad():
    torch.save(small(torch.load(images)), outputs)
print(sum(p.numel() for p in small.parameters()), "optuna" in sys.modules)
"""


def main() -> None:
    evaluations = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    data = digits()
    front = autoprune.search(digits_resnet(), data, evaluations=evaluations, seed=0)
    for member in front:
        print(f"{member['macs_ratio']:.3f} of the MACs, accuracy {member['accuracy']:.3f}")
    picked = front.pick("macs<=0.4")
    images = data.report[0].inputs[0]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        picked.export(folder / "small")
        torch.save(images, folder / "images.pt")
        command = [sys.executable, "-c", LOADER, *(str(folder / name) for name in ("small", "images.pt", "outputs.pt"))]
        parameters, searching = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        outputs = torch.load(folder / "outputs.pt")
    with torch.no_grad():
        difference = (picked.build()(images) - outputs).abs().max() / outputs.abs().max()
    print(f"loaded: {parameters} of {picked['params']:.0f} parameters, a searcher in memory: {searching}")
    print(f"largest difference of its outputs: {difference:.1e}")


if __name__ == "__main__":
    main()
