"""CIFAR-10 in every form, on a few images the tests write themselves: the same pixels come out of each."""

import json
import pickle
import sys

import numpy as np
import pytest
import torch
from cifar_on_disk import TEST, TEST_LABELS, TRAIN, TRAIN_LABELS, WRITERS, write_folders, write_npy, write_npz

from autoprune.data import cifar10
from autoprune.errors import DataError

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def read(root, **changes):
    return cifar10(root, **({"calibrate": 3, "select": 5, "batch_size": 4} | changes))


@pytest.fixture
def written(tmp_path):
    write_npy(tmp_path)
    return tmp_path


def pixels(batches):
    """(n, 32, 32, 3) uint8 as they were before they were normalised."""
    x = torch.cat([batch.inputs[0] for batch in batches]).numpy().transpose(0, 2, 3, 1)
    return np.round((x * STD + MEAN) * 255).astype(np.uint8)


def targets(batches):
    return torch.cat([batch.target for batch in batches]).tolist()


@pytest.mark.parametrize("form", WRITERS)
def test_every_form_gives_exactly_the_pixels_and_labels_written(tmp_path, form):
    WRITERS[form](tmp_path)
    data = read(tmp_path)
    chosen = data.description["indices"]
    assert data.description["form"] == form.partition(",")[0]
    np.testing.assert_array_equal(pixels(data.calibrate), TRAIN[chosen["calibrate"]])
    np.testing.assert_array_equal(pixels(data.select), TRAIN[chosen["select"]])
    np.testing.assert_array_equal(pixels(data.report), TEST)
    assert targets(data.select) == TRAIN_LABELS[chosen["select"]].tolist()
    assert targets(data.report) == TEST_LABELS.tolist()


def test_all_forms_agree_to_the_last_bit(tmp_path):
    facts = []
    for name, write in WRITERS.items():
        root = tmp_path / name
        root.mkdir()
        write(root)
        facts.append(read(root).description["sets"])
    assert all(fact == facts[0] for fact in facts)


def test_pixels_are_normalised_by_the_published_mean_and_deviation(written):
    x = torch.cat([batch.inputs[0] for batch in read(written).report]).numpy()
    np.testing.assert_allclose(x.transpose(0, 2, 3, 1), (TEST / 255 - MEAN) / STD, atol=1e-6)
    assert x.dtype == np.float32


def test_an_archive_may_be_named_itself(tmp_path):
    write_npz(tmp_path)
    assert read(tmp_path / "cifar.npz").description == read(tmp_path).description


def test_calibrate_select_and_train_partition_the_training_images(written):
    data = read(written)
    parts = [pixels(part) for part in (data.calibrate, data.select, data.train)]
    assert [len(part) for part in parts] == [3, 5, 4]
    assert {image.tobytes() for part in parts for image in part} == {image.tobytes() for image in TRAIN}


def test_train_streams_the_same_batches_each_time_with_their_labels(written):
    train = read(written, batch_size=3).train
    first, second = list(train), list(train)
    assert [len(batch.target) for batch in first] == [3, 1]
    assert len(train) == 2
    assert all(torch.equal(a.inputs[0], b.inputs[0]) for a, b in zip(first, second, strict=True))
    label_of = {image.tobytes(): label for image, label in zip(TRAIN, TRAIN_LABELS, strict=True)}
    assert [label_of[image.tobytes()] for image in pixels(first)] == targets(first)


def test_no_image_left_over_means_no_train(written):
    assert read(written, calibrate=4, select=8).train is None


def test_the_seed_decides_which_images_and_nothing_else_does(written):
    first, again, other = read(written), read(written), read(written, seed=1)
    assert first.description == again.description
    assert other.description["indices"] != first.description["indices"]
    assert other.description["sets"]["report"] == first.description["sets"]["report"]


def test_a_smaller_report_is_a_recorded_choice_of_test_images(written):
    data = read(written, report=4)
    chosen = data.description["indices"]["report"]
    assert len(set(chosen)) == 4
    np.testing.assert_array_equal(pixels(data.report), TEST[chosen])
    assert read(written).description["indices"]["report"] == "all"


def test_the_sets_survive_the_way_to_another_process(written):
    data = read(written)
    copy = pickle.loads(pickle.dumps(data))
    assert copy.description == data.description
    np.testing.assert_array_equal(pixels(copy.train), pixels(data.train))


def test_the_description_is_plain_json(written):
    description = read(written).description
    assert json.loads(json.dumps(description)) == description


COUNTS = {
    "calibrate": ({"calibrate": 0}, r"expected calibrate as a whole number of at least 1, got 0"),
    "a share": ({"select": 0.5}, r"expected select as a whole number of at least 1, got 0.5"),
    "too many": ({"calibrate": 8}, r"expected at most the 12 examples there for calibrate \+ select, got 13"),
    "report": ({"report": 7}, r"expected at most the 6 examples there for report, got 7"),
    "seed": ({"seed": -1}, r"expected seed as a whole number of at least 0, got -1"),
    "batch": ({"batch_size": 0}, r"expected batch_size as a whole number of at least 1, got 0"),
}


@pytest.mark.parametrize(("changes", "message"), COUNTS.values(), ids=COUNTS)
def test_counts_that_cannot_be_had_are_refused(written, changes, message):
    with pytest.raises(DataError, match=message):
        read(written, **changes)


def test_an_unknown_folder_lists_the_forms_and_what_is_there(tmp_path):
    with pytest.raises(DataError, match=r"python batches .* image folders .* arrays .* mosaics .* got an empty folder"):
        read(tmp_path)
    for i in range(10):
        (tmp_path / f"file{i}").touch()
    with pytest.raises(DataError, match=r"got a folder of file0, file1, .*file7 and 2 more"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"got the file file0"):
        read(tmp_path / "file0")
    with pytest.raises(DataError, match=r"nowhere: expected a folder with CIFAR-10, got a path that does not exist"):
        read(tmp_path / "nowhere")


def test_without_pillow_the_error_says_what_to_install(tmp_path, monkeypatch):
    write_folders(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"expected Pillow.*pip install 'autoprune\[images\]'"):
        read(tmp_path)


def test_arrays_need_no_pillow(written, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert len(read(written).report) == 2
