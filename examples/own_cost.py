"""Your own cost: the memory that feature maps need on a small device, traded off against accuracy.

python examples/own_cost.py [EVALUATIONS]

A cost is a function of the kept counts by unit. This one is the number of bytes that the input, the inside and the
output of a residual block take together, of the block that takes most. Early blocks decide it, because their feature
maps are large; late blocks, which have most of the weights, may stay wide.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch
from torch import nn

import autoprune
from autoprune.data import digits
from autoprune.zoo import digits_resnet

PIXELS = {"conv1": 64, "layer1": 64, "layer2": 16, "layer3": 4}  # of one channel, by the beginning of a unit's name
BLOCKS = (  # the units that a block reads, has inside and writes
    ("conv1", "layer1.0.conv1", "conv1"),
    ("conv1", "layer1.1.conv1", "conv1"),
    ("conv1", "layer2.0.conv1", "layer2.0.conv2"),
    ("layer2.0.conv2", "layer2.1.conv1", "layer2.0.conv2"),
    ("layer2.0.conv2", "layer3.0.conv1", "layer3.0.conv2"),
    ("layer3.0.conv2", "layer3.1.conv1", "layer3.0.conv2"),
)


def peak_bytes(kept: Mapping[str, int]) -> float:
    """The most that the feature maps of one block take, in bytes of float32."""
    return float(max(sum(4 * PIXELS[unit.split(".")[0]] * kept[unit] for unit in block) for block in BLOCKS))


def measured_bytes(model: nn.Module, image: torch.Tensor) -> float:
    """The same, of the tensors that pass through a network while it runs."""
    peaks = []

    def note(block: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        peaks.append(4 * (inputs[0].numel() + inside[block] + output.numel()))

    inside: dict[nn.Module, int] = {}
    for block in (block for stage in (model.layer1, model.layer2, model.layer3) for block in stage):
        block.conv1.register_forward_hook(lambda _, __, output, block=block: inside.update({block: output.numel()}))
        block.register_forward_hook(note)
    with torch.no_grad():
        model(image)
    return float(max(peaks))


def main() -> None:
    evaluations = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    data = digits()
    front = autoprune.search(
        digits_resnet(),
        data,
        objectives=("accuracy", autoprune.Objective("peak_bytes", "min", "bytes")),
        costs={"peak_bytes": peak_bytes},
        rules=[autoprune.LevelRule("*", tuple(step / 8 for step in range(1, 8)), kind="channels")],
        evaluations=evaluations,
        seed=0,
    )
    for member in front:
        share = member.ratios["params"]
        print(f"{member['peak_bytes']:7,.0f} bytes, accuracy {member['accuracy']:.3f}, {share:.3f} of the weights")
    small = front.pick("peak_bytes<=0.5")
    print(f"picked:   {small['peak_bytes']:.0f} bytes at {small['params_ratio']:.3f} of the weights")
    print(f"measured: {measured_bytes(small.build(), data.report[0].inputs[0][:1]):.0f} bytes")


if __name__ == "__main__":
    main()
