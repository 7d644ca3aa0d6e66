"""Data: how arrays and loaders become batches, what is refused, what is recorded."""

import hashlib
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.data import Data
from autoprune.errors import DataError
from autoprune.measure.batch import Batch


def images(n, seed=0, shape=(1, 2, 2)):
    return np.random.default_rng(seed).normal(size=(n, *shape)).astype(np.float32)


def labels(n):
    return np.arange(n) % 3


def sets(n=6, **changes):
    given = {"calibrate": (images(n, 1),), "select": (images(n, 2), labels(n)), "report": (images(n, 3), labels(n))}
    return given | changes


@given(n=st.integers(1, 40), batch_size=st.integers(1, 50))
@settings(max_examples=25, deadline=None)
def test_batches_joined_again_are_the_arrays_in_their_order(n, batch_size):
    x, y = images(n, 2), labels(n)
    select = Data.from_arrays(**sets(select=(x, y)), batch_size=batch_size).select
    np.testing.assert_array_equal(torch.cat([batch.inputs[0] for batch in select]).numpy(), x)
    np.testing.assert_array_equal(torch.cat([batch.target for batch in select]).numpy(), y)
    assert [len(batch.target) for batch in select[:-1]] == [batch_size] * (len(select) - 1)


def test_all_but_the_last_array_are_inputs():
    x, z = images(4, 2), images(4, 5, (7,))
    both = {
        name: (x + i, z + i, *(() if name == "calibrate" else (labels(4),)))
        for i, name in enumerate(("calibrate", "select", "report"))
    }
    data = Data.from_arrays(**both)
    assert [len(batches[0].inputs) for batches in (data.calibrate, data.select, data.report)] == [2, 2, 2]
    assert [tuple(part.shape) for part in data.example] == [(1, 1, 2, 2), (1, 7)]
    assert data.calibrate[0].target is None
    assert data.select[0].target.tolist() == [0, 1, 2, 0]


def test_example_is_the_first_row_of_calibrate():
    x = images(6, 1)
    np.testing.assert_array_equal(Data.from_arrays(**sets()).example[0].numpy(), x[:1])


def test_a_lone_array_will_do_for_calibrate():
    assert len(Data.from_arrays(**sets(calibrate=images(6, 1))).calibrate[0].inputs) == 1


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.int64])
def test_integer_labels_become_int64(kind):
    assert Data.from_arrays(**sets(select=(images(6, 2), labels(6).astype(kind)))).select[0].target.dtype == torch.int64


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32])
def test_input_types_a_network_may_take_stay_as_they_are(kind):
    given = {name: (torch.arange(12).reshape(6, 2) + 20 * i).to(kind) for i, name in enumerate("csr")}
    data = Data.from_arrays((given["c"],), (given["s"], labels(6)), (given["r"], labels(6)))
    assert torch.equal(data.report[0].inputs[0], given["r"])
    assert data.report[0].inputs[0].dtype == kind


def test_what_the_caller_does_to_an_array_later_does_not_reach_the_sets():
    x, y = images(6, 2), torch.arange(6)
    data = Data.from_arrays(**sets(select=(x, y)))
    x[:], y[:] = 0, 0
    np.testing.assert_array_equal(data.select[0].inputs[0].numpy(), images(6, 2))
    assert data.select[0].target.tolist() == [0, 1, 2, 3, 4, 5]


def test_read_only_reversed_and_big_endian_arrays_are_read():
    x = images(6, 2)
    x.setflags(write=False)
    for array in (x, x[::-1].copy()[::-1], x.astype(">f4")):
        np.testing.assert_array_equal(
            Data.from_arrays(**sets(select=(array, labels(6)))).select[0].inputs[0].numpy(), x
        )


def with_nan(x, *rows, value=np.nan):
    x = x.copy()
    x[list(rows), 0, 1, 1] = value
    return x


WRONG = {
    "no example": (sets(calibrate=(images(0),)), r"calibrate: expected at least one batch of examples, got none"),
    "no array": (sets(calibrate=()), r"calibrate: expected arrays of one length, .* got lengths \[\]"),
    "no target": (
        sets(select=(images(6, 2),)),
        r"select: expected inputs and, as the last .* got 1 array.*Pass select=",
    ),
    "lengths": (sets(report=(images(6, 3), labels(5))), r"report: expected arrays of one length.*got lengths \[6, 5\]"),
    "shapes": (
        sets(report=(images(6, 3, (1, 3, 3)), labels(6))),
        r"report, batch 0: expected examples like .* float32 \(1, 2, 2\), got float32 \(1, 3, 3\)",
    ),
    "more inputs": (
        sets(select=(images(6, 2), images(6, 4), labels(6))),
        r"select, batch 0: expected .*got float32 \(1, 2, 2\), float32 \(1, 2, 2\)",
    ),
    "raw images": (
        sets(select=(np.zeros((6, 1, 2, 2), np.uint8), labels(6))),
        r"select, batch 0, input 0: expected float32.*got torch.uint8. Raw images must be normalised",
    ),
    "doubles": (
        sets(calibrate=(images(6, 1).astype(float),)),
        r"calibrate, batch 0, input 0: expected float32.*got torch.float64. Convert with .astype",
    ),
    "complex": (sets(calibrate=(images(6, 1) * 1j,)), r"got torch.complex64. Convert to one of them"),
    "strings": (sets(calibrate=(np.array(["a"] * 6),)), r"calibrate\[0\]: expected a numeric .*got ndarray"),
    "ragged": (sets(calibrate=([[1.0], [1.0, 2.0]],)), r"calibrate\[0\]: expected a numeric .*got list"),
    "a number": (sets(calibrate=(np.float32(1),)), r"calibrate\[0\]: expected an array whose first dimension"),
    "empty rows": (sets(calibrate=(np.zeros((6, 0), np.float32),)), r"at least one example and one value.*\(6, 0\)"),
    "column labels": (
        sets(select=(images(6, 2), labels(6)[:, None])),
        r"select\[1\]: expected one class index per example, shape \(6,\), got \(6, 1\). Pass labels.ravel\(\)",
    ),
    "NaN target": (
        sets(select=(images(6, 2), np.array([0, 1, np.nan, 3, 4, np.inf], np.float32))),
        r"select, target: expected finite values, got NaN or .* in 2 of the 6 examples 0 to 5, first in example 2",
    ),
    "batch size 0": (sets(batch_size=0), r"expected batch_size as a whole number of at least 1, got 0"),
    "batch size 2.5": (sets(batch_size=2.5), r"expected batch_size as a whole number of at least 1, got 2.5"),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arrays_are_refused_with_a_sentence(given, message):
    with pytest.raises(DataError, match=message):
        Data.from_arrays(**given)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["calibrate", "select", "report"])
def test_the_first_example_that_is_not_finite_is_named(name, value):
    given = sets()
    given[name] = (with_nan(given[name][0], 4, 5, value=value), *given[name][1:])
    with pytest.raises(DataError, match=rf"{name}, input 0: .* in 2 of the 3 examples 3 to 5, first in example 4"):
        Data.from_arrays(**given, batch_size=3)


def test_one_shared_example_in_a_hundred_is_recorded_as_a_duplicate():
    x, y = images(100, 1), images(100, 2)
    y[7] = x[3]
    data = Data.from_arrays(**sets(100, calibrate=(x,), select=(y, labels(100))))
    assert data.description["shared"] == {"calibrate/select": 1}


def test_more_shared_examples_than_that_are_refused():
    x, y = images(100, 2), images(120, 3)
    y[[7, 8]] = x[[3, 4]]
    with pytest.raises(DataError, match=r"expected select and report to be disjoint, got 2 examples in both \(2.0% of"):
        Data.from_arrays(**sets(100, select=(x, labels(100)), report=(y, labels(120))))


def test_training_examples_may_calibrate_but_never_score():
    given = sets()
    train = (given["calibrate"][0], labels(6))
    assert Data.from_arrays(**given, train=train).description["shared"] == {}
    with pytest.raises(DataError, match=r"expected report and train to be disjoint, got 6 examples in both"):
        Data.from_arrays(**given, train=given["report"])


def test_train_that_is_no_tuple_is_kept_as_it_is():
    loader = object()
    assert Data.from_arrays(**sets(), train=loader).train is loader
    assert Data.from_arrays(**sets()).train is None


def test_the_hash_is_that_of_layout_example_hashes_and_targets():
    x, y = images(6, 2), labels(6)
    rows = b"".join(hashlib.sha256(row.tobytes()).digest() for row in x)
    expected = hashlib.sha256(b"float32 (1, 2, 2)" + rows + y.astype(np.int64).tobytes()).hexdigest()
    for batch_size in (1, 4, 100):
        facts = Data.from_arrays(**sets(select=(x, y)), batch_size=batch_size).description["sets"]["select"]
        assert facts == {"examples": 6, "batches": -(-6 // batch_size), "sha256": expected}


def test_the_hash_changes_with_a_pixel_a_label_and_the_order():
    x, y = images(6, 2), labels(6)
    variants = [(x, y), (with_nan(x, 0, value=9), y), (x, (y + 1) % 3), (x[::-1], y[::-1])]
    hashes = {Data.from_arrays(**sets(select=v)).description["sets"]["select"]["sha256"] for v in variants}
    assert len(hashes) == 4


def test_the_description_is_plain_json_and_keeps_what_the_reader_says():
    description = Data.from_arrays(**sets(), description={"reader": "mine"}).description
    assert json.loads(json.dumps(description)) == description
    assert description["reader"] == "mine"


def test_loaders_give_what_their_arrays_give():
    given = sets()

    def loader(name):
        columns = [torch.from_numpy(column) for column in given[name]]
        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*columns), batch_size=4)

    loaded = Data.from_loaders(*(loader(name) for name in given))
    assert loaded.description == Data.from_arrays(**given, batch_size=4).description


def test_every_kind_of_item_is_understood_and_calibrate_loses_its_targets():
    x, y = torch.from_numpy(images(4, 1)), torch.arange(4)
    forms = [x, x.numpy(), (x,), [x, y], Batch((x,)), Batch((x,), y)]
    other = sets()
    for form in forms:
        data = Data.from_loaders([form], [other["select"]], [list(other["report"])])
        assert torch.equal(data.calibrate[0].inputs[0], x)
        assert data.calibrate[0].target is None


def test_a_generator_is_read_once_and_kept():
    data = Data.from_loaders(([images(2, i)] for i in range(10, 13)), [sets()["select"]], [sets()["report"]])
    assert [len(batch.inputs[0]) for batch in data.calibrate] == [2, 2, 2]
    assert torch.equal(data.calibrate[2].inputs[0], torch.from_numpy(images(2, 12)))


WRONG_ITEMS = {
    "dict": ({"x": images(2)}, r"select, batch 0: expected a dictionary with input_ids, .* which .* required, got x"),
    "text": ("x", r"select, batch 0: expected a tensor, a tuple .* got str"),
    "empty tuple": ((), r"select, batch 0: expected a tensor, a tuple .* got tuple"),
    "unlabelled": (images(2), r"select, batch 0: expected inputs and a target, got inputs alone"),
    "lengths": ((images(2), labels(3)), r"select, batch 0: expected inputs and target of one length, got .*\[2, 3\]"),
}


@pytest.mark.parametrize(("item", "message"), WRONG_ITEMS.values(), ids=WRONG_ITEMS)
def test_wrong_items_of_a_loader_are_refused_with_a_sentence(item, message):
    with pytest.raises(DataError, match=message):
        Data.from_loaders([images(2, 1)], [item], [(images(2, 3), labels(2))])


def test_sets_made_by_hand_are_checked_too():
    batch = Batch((torch.zeros(2, 3),), torch.zeros(2))
    with pytest.raises(DataError, match=r"select, batch 0: expected an autoprune Batch, got tuple"):
        Data((batch,), ((torch.zeros(2, 3), torch.zeros(2)),), (batch,))
    with pytest.raises(DataError, match=r"report, batch 0: expected a target for every example, got none"):
        Data((Batch((torch.ones(2, 3),)),), (batch,), (Batch((torch.full((2, 3), 2.0),)),))


def test_repr_says_sizes_and_prints_no_tensor():
    assert repr(Data.from_arrays(**sets())) == "Data(calibrate=6, select=6, report=6 examples)"


def test_training_examples_are_all_of_a_tuple_and_the_first_batches_of_a_loader():
    x, y = images(30), labels(30)
    loader = [(x[start : start + 6], y[start : start + 6]) for start in range(0, 30, 6)]
    whole, digest = Data.from_arrays(**sets(train=(x, y)), batch_size=6).training(2)
    first, other = Data.from_arrays(**sets(train=iter(loader))).training(2)
    assert [batch.examples for batch in whole] == [6] * 5
    assert [batch.examples for batch in first] == [6, 6]
    assert all(torch.equal(a.inputs[0], b.inputs[0]) for a, b in zip(whole, first, strict=False))
    assert digest != other
    assert digest == Data.from_arrays(**sets(train=iter(loader))).training(5)[1]


def test_a_loader_without_targets_or_batches_is_nothing_to_train_on():
    unlabelled = Data.from_arrays(**sets(train=iter([torch.zeros(4, 1, 2, 2)])))
    with pytest.raises(DataError, match="train, batch 0: expected inputs and a target, got inputs alone"):
        unlabelled.training(1)
    with pytest.raises(DataError, match="train: expected at least one batch of examples, got none"):
        Data.from_arrays(**sets(train=iter([]))).training(1)


def test_groups_go_with_their_examples_and_into_the_hash():
    x, y = np.random.default_rng(0).standard_normal((3, 5, 2)).astype(np.float32), np.arange(5) % 2
    sets = (x[0],), (x[1], y), (x[2], y)
    data = Data.from_arrays(*sets, batch_size=3, groups={"report": np.array([0, 2, 1, 1, 0])})
    assert [batch.group.tolist() for batch in data.report] == [[0, 2, 1], [1, 0]]
    assert data.select[0].group is None
    plain = Data.from_arrays(*sets, batch_size=3).description["sets"]
    assert data.description["sets"]["select"] == plain["select"]
    assert data.description["sets"]["report"]["sha256"] != plain["report"]["sha256"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"report": np.arange(4)}, r"groups\['report'\]: expected a group for each of the 5 examples, got 4 groups"),
        ({"report": np.full(5, 0.5)}, "expected one whole number from 0 on for each example, got .* of float64"),
        ({"report": np.full(5, -1)}, "expected one whole number from 0 on for each example, got .* from -1 on"),
        ({"train": np.arange(5)}, r"groups: expected arrays for the sets select and report, .* the sets \['train'\]"),
    ],
)
def test_groups_of_another_kind_are_refused(groups, message):
    x, y = np.random.default_rng(0).standard_normal((3, 5, 2)).astype(np.float32), np.arange(5) % 2
    with pytest.raises(DataError, match=message):
        Data.from_arrays((x[0],), (x[1], y), (x[2], y), groups=groups)


def test_a_batch_brings_its_groups():
    x, y = torch.rand(3, 4, 2), torch.arange(4)
    report = [Batch((x[2],), y, group=torch.tensor([1, 0, 1, 0]))]
    assert Data.from_loaders([x[0]], [(x[1], y)], report).report[0].group.tolist() == [1, 0, 1, 0]
    with pytest.raises(DataError, match="report, batch 0, group: expected a group for each of the 4 examples, got 3"):
        Data.from_loaders([x[0]], [(x[1], y)], [Batch((x[2],), y, group=torch.arange(3))])
