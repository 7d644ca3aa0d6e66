"""How a check says what is wrong: AssertionErrors that are sentences, whatever a plug-in raises."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from autoprune.errors import AutopruneError


@contextmanager
def keeping(subject: str, advice: str) -> Iterator[None]:
    """Turns what is raised inside into an AssertionError: which exception, of which function, and what to do."""
    try:
        yield
    except AssertionError as error:
        if str(error):
            raise
        raise AssertionError(f"{subject} failed an assertion of its own without a message. {advice}") from error
    except AutopruneError as error:  # a sentence already
        raise AssertionError(f"{str(error).rstrip('.')}. {advice}") from error
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise AssertionError(
            f"expected {subject} to keep its contract, it raised {type(error).__name__}: {error} in {frame.name} "
            f"({frame.filename}:{frame.lineno}). {advice}"
        ) from error


def check_values(values: Mapping[str, float]) -> None:
    """Asserts that measured values are finite numbers by name."""
    assert isinstance(values, Mapping), f"expected values by name, got a {type(values).__name__}"
    assert values, "expected at least one measured value, got none"
    for name, value in values.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        assert isinstance(name, str), f"expected values by name, got the key {name!r}"
        assert number, f"expected {name} to be a number, got {value!r} of type {type(value).__name__}"
        assert math.isfinite(value), f"expected {name} to be finite, got {value}"
