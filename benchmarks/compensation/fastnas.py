"""FastNAS of NVIDIA's Model Optimizer: widths by the largest drop that a unit alone would cause.

https://github.com/NVIDIA/Model-Optimizer, modelopt/torch/prune/fastnas.py. It measures the score of every width of
every layer alone, once for a network, and then looks for the least threshold on the drop that meets the limit. Score:
accuracy on the selection images. Before every score it re-estimates batch norms from what its data loader gave, here
the calibration images. By default widths are multiples of 32, with which these networks of 16 to 64 channels hardly
get smaller; see WIDTHS. The residual stream is left alone by the tool itself.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import modelopt
import modelopt.torch.prune as mtp
import torch
from modelopt.torch.prune.fastnas import FastNASConfig
from torch import nn

from autoprune.measure.batch_norms.recalibrate import recalibrate
from compensation.setting import Pruned, Setting, Spent, accuracy, timed

WIDTHS = 4  # widths tried are multiples of it
BATCHES = 50  # of calibration images: with fewer, the tool leaves batch norms as they are and says so in a warning


@dataclass(frozen=True)
class Score:
    """The score of a network, its batch norms re-estimated; `record` is a file of what all scores took so far."""

    setting: Setting
    record: Path

    def __call__(self, model: nn.Module) -> float:
        score, spent = timed(lambda: accuracy(model, self.setting.data.select))
        self.record.write_text(json.dumps(asdict(self.spent() + spent)))
        return score

    def spent(self) -> Spent:
        return Spent(**json.loads(self.record.read_text())) if self.record.exists() else Spent()


def prune(setting: Setting, target: float, checkpoints: Path) -> Pruned:
    """The network FastNAS returns under a limit on FLOPs, with the batch norms it would have been scored with.

    `checkpoints` is a folder of this network's own: the scores of single layers are kept there, with the time they
    took, for other targets. Nothing else is scored.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    score = Score(setting, checkpoints / "spent.json")
    earlier = score.spent()
    network = searched(setting, target, score, checkpoints / "search.pth")
    recalibrate(network, setting.calibrate)
    return Pruned(network, f"ModelOpt {modelopt.__version__} FastNAS", score.spent(), earlier)


def searched(setting: Setting, target: float, score: Score, checkpoint: Path) -> nn.Module:
    images = torch.cat([inputs for (inputs,) in setting.calibrate])
    network, _ = mtp.prune(
        copy.deepcopy(setting.model).to(memory_format=torch.contiguous_format),  # it refuses channels-last weights
        mode=[("fastnas", rules())],
        constraints={"flops": f"{target:%}"},
        dummy_input=setting.data.example,
        config={
            "data_loader": images.split(len(images) // BATCHES),
            "collect_func": lambda batch: batch,  # unlabelled
            "score_func": score,
            "checkpoint": str(checkpoint),
            "verbose": False,
        },
    )
    return network


def rules() -> dict[str, Any]:
    config: dict[str, Any] = FastNASConfig().model_dump()
    config["nn.Conv2d"]["*"]["channel_divisor"] = WIDTHS
    config["nn.BatchNorm2d"]["*"]["feature_divisor"] = WIDTHS
    return config
