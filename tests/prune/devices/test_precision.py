import pytest
import torch

from autoprune.prune.criteria.loss import drawn_classes
from autoprune.prune.devices import precision
from autoprune.prune.devices.precision import PreciseSum, doubled, precise_dtype, solvable
from autoprune.prune.modules.borrowed import without_tf32


def test_mps_has_no_float64_and_others_do():
    found = {kind: precise_dtype(torch.device(kind)) for kind in ("cpu", "cuda", "mps")}
    assert found == {"cpu": torch.float64, "cuda": torch.float64, "mps": torch.float32}


def test_tensors_that_can_be_solved_for_where_they_are_stay_there():
    tensor = torch.ones(3)
    assert solvable(tensor) is tensor
    assert doubled(tensor).dtype == torch.float64


@pytest.mark.parametrize("there", [True, False])
def test_a_sum_of_many_numbers_is_as_precise_as_in_float64(there, monkeypatch):
    monkeypatch.setattr(precision, "has_float64", lambda device: there)
    values = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1e4]) + 1e4
    total, naive = PreciseSum((2,), torch.device("cpu")), torch.zeros(2)
    for row in values:
        total.add(row)
        naive += row
    exact = values.double().sum(dim=0)
    torch.testing.assert_close(total.value(), exact, rtol=1e-12, atol=0)
    assert (naive.double() / exact - 1).abs().max() > 1e-7  # plain float32 is not


@pytest.mark.parametrize("classes", [2, 10, 5000])
def test_classes_are_drawn_as_multinomial_draws_them(classes):
    ours, theirs = (torch.Generator().manual_seed(3) for _ in range(2))
    for chances in torch.randn(20, 1, classes, generator=torch.Generator().manual_seed(4)).softmax(dim=2):
        assert torch.equal(drawn_classes(chances, ours), torch.multinomial(chances, 1, generator=theirs)[:, 0])


def test_products_of_proofs_and_fits_are_in_full_float32():
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before, products.allow_tf32 = products.allow_tf32, True
    try:
        with without_tf32():
            assert (products.allow_tf32, convolutions.allow_tf32) == (False, False)
        assert (products.allow_tf32, convolutions.allow_tf32) == (True, True)
    finally:
        products.allow_tf32 = before
