"""Contract test of data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoprune.testing.sentences import keeping

if TYPE_CHECKING:
    from autoprune.data import Data

_ADVICE = "docs/plugins.md#model-and-data has an example."


def check_data(make: Any) -> None:
    """Checks that data keep their contract.

    Data must hold three disjoint sets of finite numbers, with targets in all but `calibrate`, and must be the same each
    time they are made. A train set must give the same batches each time it is read.

    Args:
        make: an `autoprune.Data`, or a function without arguments that returns one.

    Raises:
        AssertionError: the data break their contract; the message says how, and what to do.
    """
    with keeping("the data", _ADVICE):
        first, again = _made(make), _made(make)
        sets = [{name: facts["sha256"] for name, facts in data.description["sets"].items()} for data in (first, again)]
        differing = [name for name in sets[0] if sets[0][name] != sets[1].get(name)]
        assert not differing, (
            f"expected the same data each time they are made, but {', '.join(differing)} differ. Draw examples from a "
            "generator with a fixed seed, and do not shuffle loaders"
        )
        if first.train is not None:
            digests = {first.training(2)[1] for _ in range(2)}
            assert len(digests) == 1, (
                "expected the train set to have the same first batches each time it is read, but they differ. Pass a "
                "sequence, or an iterable that starts again in the same order"
            )


def _made(make: Any) -> Data:
    from autoprune.run.session.plugin_checks import expect_data

    data = make() if callable(make) else make
    expect_data(data)
    return data  # type: ignore[no-any-return]  # checked
