"""A network for the embedded digits: trained in seconds on first use, then read from a cache."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from autoprune.data import digits_train
from autoprune.errors import ConfigError
from autoprune.prune.modules.borrowed import torch_threads
from autoprune.zoo.resnet import ResNet, build

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingRecipe:
    """Everything that determines the weights; its hash is part of the cache's file name."""

    seed: int
    epochs: int
    blocks: tuple[int, int, int] = (2, 2, 2)
    widths: tuple[int, int, int] = (16, 32, 64)
    batch_size: int = 50
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    shift: int = 1
    version: int = 1  # version of the code below; increased whenever it would train other weights

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def digits_resnet(seed: int = 0, epochs: int = 30, cache: str | Path | None = None) -> ResNet:
    """A residual network with 1x1 shortcuts for `autoprune.data.digits`, trained on its train set; in eval mode.

    It maps (b, 1, 8, 8) inputs to (b, 10) logits and classifies 97 % or more of the report set correctly. The first
    call trains it in seconds on a CPU. The same seed gives the same network on the same machine; global random state is
    restored. A damaged cache file is reported and replaced.

    Args:
        seed: seed of the training.
        epochs: the number of training epochs.
        cache: the folder of cached weights; None for $XDG_CACHE_HOME/autoprune or ~/.cache/autoprune.

    Returns:
        The network.

    Raises:
        ConfigError: `epochs` is below 1.
    """
    if epochs < 1:
        raise ConfigError(f"expected epochs of at least 1 for digits_resnet, got {epochs}")
    recipe = TrainingRecipe(seed, epochs)
    folder = _cache_folder() if cache is None else Path(cache).expanduser()
    path = folder / f"digits_resnet-{recipe.key}.safetensors"
    network = build(seed, lambda: ResNet(recipe.blocks, recipe.widths, channels=1, projection=True))
    state = _read(path)
    if state is None:
        _train(network, recipe)
        _write(path, network.state_dict())
    else:
        network.load_state_dict(state)
    return network.eval()


def _train(network: ResNet, recipe: TrainingRecipe) -> None:
    """SGD with Nesterov momentum, a one-cycle learning rate, and random shifts of the images."""
    _log.info("training digits_resnet for %d epochs (seed %d)", recipe.epochs, recipe.seed)
    started = time.perf_counter()
    inputs, labels = digits_train()
    generator = torch.Generator().manual_seed(recipe.seed)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    steps = recipe.epochs * (len(inputs) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps)
    network.train()
    # one thread: the network is small, and on a busy machine several threads are far slower
    with torch.enable_grad(), torch_threads(1):
        for rows in _batches(len(inputs), recipe, generator):
            loss = F.cross_entropy(network(_shift(inputs[rows], recipe.shift, generator)), labels[rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    _log.info("trained digits_resnet in %.1f s, last loss %.4f", time.perf_counter() - started, loss.item())


def _batches(count: int, recipe: TrainingRecipe, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Shuffled indices; the few examples that do not fill a batch are left to other epochs."""
    for _ in range(recipe.epochs):
        order = torch.randperm(count, generator=generator)
        yield from (rows for rows in torch.split(order, recipe.batch_size) if len(rows) == recipe.batch_size)


def _shift(images: torch.Tensor, most: int, generator: torch.Generator) -> torch.Tensor:
    """The batch shifted by up to `most` pixels along each side, padded with its least value, the background."""
    down, right = torch.randint(0, 2 * most + 1, (2,), generator=generator).tolist()
    padded = F.pad(images, (most,) * 4, value=images.min().item())
    height, width = images.shape[2:]
    return padded[:, :, down : down + height, right : right + width]


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autoprune"


def _read(path: Path) -> dict[str, torch.Tensor] | None:
    """The cached weights; None if there are none, or, with a warning, if the file cannot be trusted."""
    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            expected = (file.metadata() or {}).get("sha256")
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError) as error:
        cause = str(error)
    else:
        if expected == _digest(state):
            return state
        cause = "its content does not match its checksum"
    _log.warning("%s: the cached network cannot be used (%s); training it again", path, cause)
    return None


def _write(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Writes a temporary file and renames it, so that no reader sees an incomplete one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            draft = Path(folder) / path.name
            draft.write_bytes(
                save(state, metadata={"sha256": _digest(state)})
            )  # save_file creates a file that only its owner can read
            os.replace(draft, path)
    except OSError as error:
        _log.warning("%s: cannot keep the trained network here (%s); it is trained again next time", path, error)


def _digest(state: dict[str, torch.Tensor]) -> str:
    content = hashlib.sha256()
    for name in sorted(state):
        x = state[name]
        content.update(f"{name} {x.dtype} {tuple(x.shape)} ".encode())
        content.update(x.contiguous().numpy().tobytes())
    return content.hexdigest()
