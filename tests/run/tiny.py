"""Small data sets and free ports for tests of runs."""

import contextlib
import socket

import numpy as np

from autoprune.data import Data


def random_data(seed, train=0):
    """Labelled images of four classes, of which so many are to train on."""
    rng = np.random.default_rng(seed)

    def images(n):
        return rng.standard_normal((n, 3, 8, 8)).astype(np.float32)

    def labelled(n):
        return images(n), rng.integers(0, 4, n)

    sets = (images(40),), labelled(40), labelled(60)
    return Data.from_arrays(*sets, train=labelled(train) if train else None, batch_size=20)


def free_ports(count):
    """So many different ports on which nothing listens."""
    with contextlib.ExitStack() as listening:
        listeners = [listening.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]
