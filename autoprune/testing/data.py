"""The contract of data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoprune.testing.sentences import keeping

if TYPE_CHECKING:
    from autoprune.data import Data

_ADVICE = "docs/plugins.md#model-and-data has an example."


def check_data(make: Any) -> None:
    """Raises AssertionError, with a sentence, where data, or what makes them, break their contract.

    `make` is an autoprune.Data or a function without arguments that returns one: three disjoint sets of finite numbers,
    labelled but for calibrate, the same each time they are made. A train set can be read twice, with the same result.
    """
    with keeping("the data", _ADVICE):
        first, again = _made(make), _made(make)
        sets = [{name: facts["sha256"] for name, facts in data.description["sets"].items()} for data in (first, again)]
        differing = [name for name in sets[0] if sets[0][name] != sets[1].get(name)]
        assert not differing, (
            f"expected the same data each time they are made, {', '.join(differing)} differ. Draw examples from a "
            "generator with a fixed seed, and shuffle no loader"
        )
        if first.train is not None:
            digests = {first.training(2)[1] for _ in range(2)}
            assert len(digests) == 1, (
                "expected the train set to have the same first batches each time it is read, they differ. Give a "
                "sequence, or an iterable that begins anew with the same order"
            )


def _made(make: Any) -> Data:
    from autoprune.run.session.plugin_checks import expect_data

    data = make() if callable(make) else make
    expect_data(data)
    return data  # type: ignore[no-any-return]  # checked
