"""Networks with half the MACs of ResNet-20 and ResNet-32 / CIFAR-10 after mimicking and after some epochs of recovery.

    python benchmarks/recovery.py --data DIR --models DIR --networks resnet20 --epochs 1 3 10

Data, weights, prunable channels, calibration and selection images are those of training_free.py. Every row is a network
on the 10,000 test images, which are looked at once, and on the 2,000 selection images, on which the best measurement of
a training is chosen:

    autoprune                   planned widths, fitted: without training
    autoprune, mimic            after the 1,000 label-free steps of `compensation: mimic` on the calibration images
    autoprune, torch-pruning uniform, torch-pruning global, scratch
                                after `epochs` epochs on the 44,000 other training images: pruned networks mimic the
                                dense one (RECIPE), scratch, which has autoprune's widths and new random weights, has
                                the labels and the dense network's probabilities (SCRATCH)

`core_seconds` is the processor time of the training. Rows in the file are kept, and the missing ones are added as they
come. Needs: pip install torch-pruning
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from compensation.setting import NETWORKS, Setting, accuracy, channels_last, macs, open_setting, timed
from tables import read_table, write_table
from torch import nn
from training_free import Bench, additive_search, best_planned, fit, job

from autoprune.run.session.job import silent
from autoprune.run.session.session import Session, open_session
from autoprune.train.examples import TrainingSet
from autoprune.train.fresh import reinitialised
from autoprune.train.recovery.loop import Recovering
from autoprune.train.recovery.mimicking import Mimicking
from autoprune.train.recovery.options import Recovery
from autoprune.train.recovery.outcome import Judged

TABLE, TARGET = "recovery_cifar10.csv", 0.5
RIVALS = ("uniform", "global")
SCRATCH = Recovery(epochs=1, lr=0.1, weight_decay=5e-4, batch_size=128, augment="flip_crop")
RECIPE = replace(SCRATCH, loss="mimic", optimizer="adamw", lr=2e-3)

Row = dict[str, Any]


def main() -> None:
    options = arguments()
    command = "python benchmarks/recovery.py --data DIR --models DIR"
    rows: list[Row] = [*read_table(TABLE)]
    for name in options.networks:
        done = {(row["method"], int(row["epochs"])) for row in rows if row["network"] == name}
        for row in measured(name, options, done):
            rows.append(row)
            print(row, flush=True)
            write_table(TABLE, command, rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--models", required=True)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--methods", nargs="+", default=["autoprune", *RIVALS, "scratch"])
    parser.add_argument("--epochs", nargs="*", type=int, default=[1, 3, 10])
    return parser.parse_args()


def measured(name: str, options: argparse.Namespace, done: set[tuple[str, int]]) -> Iterator[Row]:
    """The rows of a network that are not there yet."""
    setting = open_setting(name, options.data, options.models)
    session = open_session(job(setting), silent)
    own = planned(name, setting, session)
    networks = {"autoprune": lambda: own, "scratch": partial(reinitialised, own, (), 0)}
    networks |= {scope: partial(rival, setting, scope) for scope in RIVALS}
    if ("autoprune", 0) not in done:
        yield row(name, "autoprune", 0, own, session, setting)
    if ("autoprune, mimic", 0) not in done:
        mimicked, spent = timed(partial(mimic, session, setting, own))
        yield row(name, "autoprune, mimic", 0, mimicked, session, setting) | {"core_seconds": f"{spent.core_s:.0f}"}
    for epochs in options.epochs:
        for method in options.methods:
            if (label(method), epochs) not in done:
                trained, spent = timed(partial(recovered, method, networks[method], epochs, session, setting))
                found = row(name, label(method), epochs, trained, session, setting)
                yield found | {"core_seconds": f"{spent.core_s:.0f}"}


def label(method: str) -> str:
    return f"torch-pruning {method}" if method in RIVALS else method


def planned(name: str, setting: Setting, session: Session) -> nn.Module:
    """The planned and fitted network within the target."""
    scored = additive_search(session)
    return fit(session, best_planned(Bench(name, setting, session, []), TARGET, scored))


def rival(setting: Setting, scope: Any) -> nn.Module:
    from compensation.torch_pruning import prune

    return prune(setting, TARGET, scope).network


def mimic(session: Session, setting: Setting, network: nn.Module) -> nn.Module:
    return Mimicking.of(setting.calibrate).mimicked(network, session.model, {})


def recovered(method: str, make: Callable[[], nn.Module], epochs: int, session: Session, setting: Setting) -> nn.Module:
    """The best network on the selection images after the measurements of a training."""
    options = replace(SCRATCH if method == "scratch" else RECIPE, epochs=epochs)
    assert setting.data.train is not None, "the reader of CIFAR-10 gives one"
    examples = TrainingSet.of([channels_last(batch) for batch in setting.data.train], size=options.batch_size)

    def judge(network: nn.Module) -> Judged:
        values = session.selected(network)
        return Judged((-values["accuracy"], values["kl"]), values)

    return Recovering(make(), session.model, options, examples).run(judge).network


def row(name: str, method: str, epochs: int, network: nn.Module, session: Session, setting: Setting) -> Row:
    values = session.selected(network)
    return {
        "network": name,
        "method": method,
        "epochs": epochs,
        "macs_ratio": f"{macs(network, setting.data.example) / macs(setting.model, setting.data.example):.4f}",
        "accuracy": f"{accuracy(network, setting.data.report):.4f}",
        "select_accuracy": f"{values['accuracy']:.4f}",
        "select_kl": f"{values['kl']:.4f}",
        "core_seconds": "",
    }


if __name__ == "__main__":
    main()
