"""Every stage on a device without float64, such as mps, for which the CPU stands, gives what it gives in float64."""

from __future__ import annotations

import pytest
from pretended import Pretended
from stages import STAGES, Convolutional, Setting, Transformer, assert_close

from autoprune.prune.devices import precision


def results(network):
    setting = Setting.on("cpu", network, 48)
    bank = setting.bank()
    return setting.structure, {name: stage(setting, bank) for name, stage in STAGES.items()}


@pytest.fixture(scope="module", params=[Convolutional, Transformer], ids=lambda network: network.__name__)
def both(request):
    """The structure and the results of all stages, with float64 and without."""
    there = results(request.param)
    with pytest.MonkeyPatch.context() as patch, Pretended(doubles=False):
        patch.setattr(precision, "has_float64", lambda device: False)
        return there, results(request.param)


@pytest.mark.parametrize("stage", STAGES)
def test_a_device_without_float64_gives_the_same(both, stage):
    (_, expected), (_, found) = both
    assert_close(found[stage], expected[stage], 2e-3)


def test_the_structure_is_the_same(both):
    (expected, _), (found, _) = both
    assert found.units == expected.units
    assert found.frozen == expected.frozen


def test_a_device_with_float64_computes_in_it_there():
    """So the tests above can fail."""
    setting = Setting.on("cpu", Convolutional)
    with Pretended(doubles=False), pytest.raises(TypeError, match="makes a float64 tensor"):
        setting.bank()
