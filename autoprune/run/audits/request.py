"""What an audit is asked for, and the checks that need neither torch nor the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoprune.core.options import number, raise_problems, whole
from autoprune.errors import ConfigError
from autoprune.run.audits.band import Band
from autoprune.run.records.folder import RunFolder
from autoprune.run.results.front_file import FrontFile, read_front_file

LEAST = 3  # networks whose order says something
MOST = 1000
MOST_STEPS = 10_000_000
ORDERS = ("l1", "random")  # further orders of positions at the same widths


@dataclass(frozen=True)
class AuditRequest:
    """What an audit is asked for.

    Attributes:
        networks: the number of networks, half of them measured by the search, half random ones.
        band: the budget band, such as "macs=0.45..0.55"; None takes that around the middle member of the front.
        steps: training steps of each network.
        epochs: passes over the train set, in place of `steps`; one if neither is given.
        seeds: how often each network is trained, each time with the examples in another order.
        scratch: whether the networks are also trained from new random weights.
        orders: criteria whose orders of positions are compared at the widths of some of the networks.
        lr: the highest learning rate, as in Recovery.
        scratch_lr: the learning rate from new random weights; None takes `lr`.
        loss: the loss of training: cross_entropy, kl, distillation or mimic, as in Recovery.
        augment: random changes of the inputs: none, or flip_crop for images, as in Recovery.

    Raises:
        ConfigError: a value is out of bounds; the error lists all of them.
    """

    networks: int = 20
    band: str | None = None
    steps: int | None = None
    epochs: int | None = None
    seeds: int = 2
    scratch: bool = False
    orders: tuple[str, ...] = ORDERS
    lr: float = 0.01
    scratch_lr: float | None = None
    loss: str = "cross_entropy"
    augment: str = "none"

    def __post_init__(self) -> None:
        both = self.steps is not None and self.epochs is not None
        raise_problems(
            [
                *whole("networks", self.networks, LEAST, MOST),
                *([] if self.band is None or isinstance(self.band, str) else [f"band: expected text, got {self.band}"]),
                *([] if self.steps is None else whole("steps", self.steps, 1, MOST_STEPS)),
                *([] if self.epochs is None else whole("epochs", self.epochs, 1, MOST_STEPS)),
                *(["expected steps or epochs, got both. Give one of them."] if both else []),
                *whole("seeds", self.seeds, 1, MOST),
                *number("lr", self.lr, 0, 1e6, above=True),
                *([] if self.scratch_lr is None else number("scratch_lr", self.scratch_lr, 0, 1e6, above=True)),
            ]
        )

    def band_of(self, front: FrontFile) -> Band:
        """The band in the cost's own unit.

        Raises:
            ConfigError: the band is invalid, or there is none and the front has only the dense network.
        """
        if self.band is not None:
            return Band.parse(self.band, front.dense)
        pruned = [member for member in front.members if not member.is_dense]
        if not pruned:
            raise ConfigError(
                "expected a front with a pruned network to audit networks of its budget, got one without. Give a "
                "band, such as macs=0.45..0.55."
            )
        cost = next((o.name for o in front.followed if o.name in front.dense), next(iter(front.dense)))
        middle = sorted(pruned, key=lambda member: member.costs[cost])[len(pruned) // 2]
        return Band.around(cost, middle.costs[cost])


def check_audit(path: Path, request: AuditRequest) -> None:
    """Checks the request against the front of a run. RunNotFound if there is none, ConfigError for a wrong band."""
    request.band_of(read_front_file(RunFolder.open(path)))
