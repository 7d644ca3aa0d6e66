"""The public surface is what it says it is."""

import subprocess
import sys

import pytest

import autoprune


@pytest.mark.parametrize("name", autoprune.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(autoprune, name)
    assert name == "__version__" or value.__doc__


def test_an_unknown_name_is_an_attribute_error_that_lists_the_known_ones():
    with pytest.raises(AttributeError, match=r"no attribute 'prunify'; it has \['AutopruneError'"):
        _ = autoprune.prunify


def test_importing_autoprune_needs_numpy_alone():
    heavy = ["torch", "optuna", "deap", "ray", "moocore", "scipy", "sklearn", "pydantic", "typer", "rich"]
    code = f"import sys, autoprune; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
