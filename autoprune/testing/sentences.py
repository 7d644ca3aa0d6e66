"""Messages of the checks: every exception of a plug-in becomes an AssertionError with a sentence."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from autoprune.errors import AutopruneError


@contextmanager
def keeping(subject: str, advice: str) -> Iterator[None]:
    """Turns an exception inside the block into an AssertionError that names the exception, its place and the advice."""
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
            f"expected {subject} to keep its contract, but it raised {type(error).__name__}: {error} in {frame.name} "
            f"({frame.filename}:{frame.lineno}). {advice}"
        ) from error


def check_values(values: Mapping[str, float]) -> None:
    """Asserts that measured values are a mapping from names to finite numbers."""
    assert isinstance(values, Mapping), f"expected values by name, got a {type(values).__name__}"
    assert values, "expected at least one measured value, got none"
    for name, value in values.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        assert isinstance(name, str), f"expected values by name, got the key {name!r}"
        assert number, f"expected {name} to be a number, got {value!r} of type {type(value).__name__}"
        assert math.isfinite(value), f"expected {name} to be finite, got {value}"
