"""Adaptive batch norm by hand arithmetic, and what it must leave alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoprune.errors import DataError
from autoprune.measure.batch_norms.recalibrate import recalibrate


def norm(features=1, **options):
    """A batch norm whose statistics are far from those of any batch here."""
    module = nn.BatchNorm1d(features, **options).eval()
    module.running_mean.fill_(77.0)
    module.running_var.fill_(77.0)
    module.num_batches_tracked.fill_(77)
    return module


def column(*values):
    return (torch.tensor(values)[:, None],)


def test_the_mean_is_the_cumulative_average_of_batch_means():
    module = norm()
    recalibrate(module, [column(m - 1.0, m + 1.0) for m in (1, 2, 3, 4)])
    assert module.running_mean.item() == pytest.approx(2.5)  # a momentum of 0.1 from 0 would give 0.9049
    assert module.num_batches_tracked.item() == 4


def test_the_variance_is_the_average_of_unbiased_batch_variances():
    module = norm()
    recalibrate(module, [column(-(v**0.5), 0.0, v**0.5) for v in (1, 2, 3, 4)])
    assert module.running_var.item() == pytest.approx(2.5)  # a momentum of 0.1 from 1 would give 1.561


def test_variance_between_batches_is_not_seen():
    module = norm()
    recalibrate(module, [column(0.0, 2.0), column(4.0, 6.0)])
    assert (module.running_mean.item(), module.running_var.item()) == pytest.approx((3, 2))


def test_batches_count_alike_whatever_their_size():
    module = norm()
    recalibrate(module, [column(0.0, 2.0), column(4.0, 4.0, 4.0)])
    assert module.running_mean.item() == pytest.approx(2.5)


def test_nothing_of_the_old_statistics_remains_and_twice_is_once():
    batches = [(torch.randn(8, 3, generator=torch.Generator().manual_seed(s)),) for s in range(3)]
    modules = [norm(3), nn.BatchNorm1d(3).eval(), norm(3)]
    for module in modules:
        recalibrate(module, batches)
    recalibrate(modules[2], batches)
    for other in modules[1:]:
        assert torch.equal(modules[0].running_mean, other.running_mean)
        assert torch.equal(modules[0].running_var, other.running_var)


def test_a_constant_added_before_a_batch_norm_no_longer_shows():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    batches = [(torch.randn(16, 3),) for _ in range(3)]
    recalibrate(model, batches)
    before = model(batches[0][0])
    with torch.no_grad():
        model[0].bias += 5.0
    recalibrate(model, batches)
    assert torch.allclose(model(batches[0][0]), before, atol=1e-4)


def mixed():
    """Modes and momenta that are not all alike."""
    model = nn.Sequential(nn.Linear(4, 4), norm(4, momentum=0.3), nn.Dropout(0.5), norm(4, momentum=None), nn.ReLU())
    model[0].train()
    model[2].train()
    model[3].train()
    return model


def state(model):
    return [(m.training, getattr(m, "momentum", "none")) for m in model.modules()]


def test_modes_and_momenta_come_back():
    model = mixed()
    before = state(model)
    recalibrate(model, [(torch.randn(8, 4),)])
    assert state(model) == before


def test_modes_and_momenta_come_back_after_an_exception():
    model = mixed()
    before = state(model)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        recalibrate(model, [(torch.randn(8, 4),), (torch.randn(8, 5),)])
    assert state(model) == before


def test_only_batch_norms_are_in_train_mode_so_dropout_stays_off():
    model = mixed()
    modes = {}
    for name, module in model.named_children():
        module.register_forward_hook(lambda m, *_, name=name: modes.update({name: m.training}))
    recalibrate(model, [(torch.randn(8, 4),)])
    assert modes == {"0": False, "1": True, "2": False, "3": True, "4": False}


def test_parameters_do_not_change_and_no_gradients_appear():
    model = mixed()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    recalibrate(model, [(torch.randn(8, 4),)])
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_without_running_statistics_is_not_even_run():
    for model in (nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False))):
        recalibrate(model, [("no tensor at all",)])
        assert model.training


def test_no_batches_are_an_error_and_not_a_network_without_statistics():
    used = iter([(torch.randn(8, 1),)])
    recalibrate(norm(), used)
    with pytest.raises(DataError, match="expected at least one batch to re-estimate batch norms on, got none"):
        recalibrate(norm(), used)
