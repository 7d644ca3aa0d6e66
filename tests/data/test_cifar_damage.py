"""Damaged and hostile CIFAR-10 files: each refused with a sentence."""

import io
import os
import pickle

import numpy as np
import pytest
from cifar_on_disk import (
    TEST,
    TEST_LABELS,
    TRAIN,
    TRAIN_LABELS,
    planes,
    python2_batch,
    write_folders,
    write_mosaics_png,
    write_npy,
    write_npz,
    write_python2,
)
from PIL import Image

from autoprune.data import cifar10
from autoprune.errors import DataError


def read(root):
    return cifar10(root, calibrate=3, select=5)


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path):
    write_python2(tmp_path)
    (tmp_path / "test_batch").write_bytes(pickle.dumps({"data": Malicious(tmp_path / "ran")}))
    with pytest.raises(DataError, match=r"test_batch: expected a python batch of CIFAR-10, .*asks for \w+\.mkdir"):
        read(tmp_path)
    assert not (tmp_path / "ran").exists()


def dump(**content):
    return pickle.dumps(content)


def array_file(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _without(name):
    return lambda root: (root / name).unlink()


def _bytes(name, content):
    return lambda root: (root / name).write_bytes(content)


def _array(name, array):
    return lambda root: np.save(root / name, array)


def _image(name, size):
    return lambda root: Image.new("RGB", size).save(root / name)


def _rename_class(root):
    (root / "test" / "class1").rename(root / "test" / "klass")


def _no_test_folder(root):
    (root / "test").rename(root / "validation")


def _many_classes(root):
    for split in ("train", "test"):
        for i in range(20, 29):
            (root / split / f"class{i}").mkdir()
            Image.new("RGB", (32, 32)).save(root / split / f"class{i}" / "0.png")


DAMAGES = {
    "no test batch": (write_python2, _without("test_batch"), r"expected test_batch beside the training files"),
    "torn batch": (
        write_python2,
        _bytes("test_batch", python2_batch(TEST, TEST_LABELS)[:-40]),
        r"test_batch: expected",
    ),
    "no data": (write_python2, _bytes("test_batch", dump(x=1)), r"expected 'data' as an uint8 array .*got NoneType"),
    "a list": (write_python2, _bytes("test_batch", pickle.dumps([1])), r"expected 'data' as an uint8 .*got NoneType"),
    "floats": (
        write_python2,
        _bytes("test_batch", dump(data=planes(TEST) * 1.0)),
        r"expected 'data' as .*, got float64 \(6, 3072\)",
    ),
    "fine labels": (
        write_python2,
        _bytes("test_batch", dump(data=planes(TEST), fine_labels=[1] * 6)),
        r"expected 'labels' as a list, got NoneType. CIFAR-100 is not read here",
    ),
    "label 10": (
        write_python2,
        _bytes("test_batch", dump(data=planes(TEST), labels=[10] * 6)),
        r"expected labels from 0 to 9, got 10 to 10",
    ),
    "label -1": (write_npy, _array("test_labels.npy", np.full(6, -1)), r"labels from 0 to 9, got -1 to -1"),
    "labels missing": (write_npy, _without("test_labels.npy"), r"expected test_labels.npy beside the training files"),
    "fewer labels": (
        write_npy,
        _array("test_labels.npy", np.zeros(5, int)),
        r"test_labels.npy: expected 6 whole numbers, .* got int64 of shape \(5,\)",
    ),
    "float labels": (write_npy, _array("test_labels.npy", np.zeros(6)), r"expected 6 whole numbers.* got float64"),
    "float images": (
        write_npy,
        _array("test_images.npy", TEST / 255),
        r"test_images.npy: expected images as uint8 .* got float64 \(6, 32, 32, 3\)",
    ),
    "no array": (write_npy, _bytes("test_images.npy", b"no array"), r"test_images.npy: expected a numpy array"),
    "objects": (write_npy, _array("test_labels.npy", np.array([{}] * 6)), r"test_labels.npy: expected a numpy array"),
    "no archive": (write_npz, _bytes("cifar.npz", b"no zip"), r"cifar.npz: expected an .npz archive"),
    "an array for an archive": (
        write_npz,
        lambda root: (root / "cifar.npz").write_bytes(array_file(TEST)),
        r"cifar.npz: expected an .npz archive",
    ),
    "no y_test": (
        write_npz,
        lambda root: np.savez(root / "cifar.npz", x_train=TRAIN, y_train=TRAIN_LABELS, x_test=TEST),
        r"expected the arrays x_train, y_train, x_test, y_test, got no y_test",
    ),
    "odd mosaic": (write_mosaics_png, _image("test.png", (64, 33)), r"mosaic of 32 x 32 tiles, got 64 x 33 pixels"),
    "small mosaic": (write_mosaics_png, _image("test.png", (64, 32)), r"test_labels.npy: expected 2 whole numbers"),
    "no mosaic": (write_mosaics_png, _without("test.png"), r"expected mosaics test\*.webp or test\*.png .* got none"),
    "not a picture": (write_mosaics_png, _bytes("test.png", b"text"), r"test.png: expected an image, got a file that"),
    "large image": (
        write_folders,
        _image("test/class0/0000.png", (64, 48)),
        r"0000.png: expected 32 x 32 pixels, got 64 x 48",
    ),
    "broken image": (
        write_folders,
        _bytes("test/class0/0000.png", b"text"),
        r"0000.png: expected an image, got a file",
    ),
    "other classes": (
        write_folders,
        _rename_class,
        r"test: expected the 3 class folders of train, got .*class1.*klass",
    ),
    "no test folder": (write_folders, _no_test_folder, r"expected test beside the training files"),
    "12 classes": (write_folders, _many_classes, r"train: expected labels from 0 to 9, got 0 to 11"),
}


@pytest.mark.parametrize(("write", "damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_files_are_refused_with_a_sentence(tmp_path, write, damage, message):
    write(tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
        read(tmp_path)
