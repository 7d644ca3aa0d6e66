"""The policies for batch norms, by name."""

from __future__ import annotations

from autoprune.measure.batch_norms.batch import OfBatch
from autoprune.measure.batch_norms.contract import BatchNorms, PolicyName
from autoprune.measure.batch_norms.eagleeye import EagleEye
from autoprune.measure.batch_norms.two_pass import Anchored, Reestimated

POLICIES: dict[PolicyName, type[BatchNorms]] = {
    "anchored": Anchored,
    "reestimated": Reestimated,
    "eagleeye": EagleEye,
    "batch": OfBatch,
}
