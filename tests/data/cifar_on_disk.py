"""Eighteen images and their labels, written in every form CIFAR-10 takes on a disk."""

import pickle
import struct

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)
TRAIN, TEST = (RNG.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for n in (12, 6))
TRAIN_LABELS, TEST_LABELS = np.repeat([0, 1, 2], [4, 5, 3]), np.repeat([0, 1, 2], [3, 2, 1])  # the order folders give


def planes(images):
    """(n, 3072): all red, all green, all blue, as the python batches keep them."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), 3072)


def python2_batch(images, labels):
    """The bytes Python 2 wrote for {"data": array, "labels": list}, opcode by opcode."""
    raw = planes(images).tobytes()
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"J" + struct.pack("<i", len(images)) + b"J" + struct.pack("<i", 3072) + b"\x86"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(U\x04data" + array + b"U\x06labels" + numbers + b"u."


def write_python2(root):
    _python(root, python2_batch)


def write_python_nested(root):
    (root / "cifar-10-batches-py").mkdir()
    _python(root / "cifar-10-batches-py", lambda x, y: pickle.dumps({"data": planes(x), "labels": y.tolist()}, 5))


def _python(folder, dump):
    (folder / "data_batch_1").write_bytes(dump(TRAIN[:7], TRAIN_LABELS[:7]))
    (folder / "data_batch_2").write_bytes(dump(TRAIN[7:], TRAIN_LABELS[7:]))
    (folder / "test_batch").write_bytes(dump(TEST, TEST_LABELS))


def write_folders(root):
    for split, images, labels in (("train", TRAIN, TRAIN_LABELS), ("test", TEST, TEST_LABELS)):
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{i:04}.png")


def write_npy(root):
    _npy(root, lambda images: images)


def write_npy_channels_first(root):
    _npy(root, lambda images: images.transpose(0, 3, 1, 2))


def _npy(root, arrange):
    for split, images, labels in (("train", TRAIN, TRAIN_LABELS), ("test", TEST, TEST_LABELS)):
        np.save(root / f"{split}_images.npy", arrange(images))
        np.save(root / f"{split}_labels.npy", labels.astype(np.uint8))


def write_npz(root):
    np.savez(root / "cifar.npz", x_train=TRAIN, y_train=TRAIN_LABELS[:, None], x_test=TEST, y_test=TEST_LABELS)


def write_mosaics_png(root):
    _mosaics(root, "png", {})


def write_mosaics_webp(root):
    _mosaics(root, "webp", {"lossless": True})


def _mosaics(root, kind, options):
    for name, images in (("train_2", TRAIN[:6]), ("train_10", TRAIN[6:]), ("test", TEST)):  # 10 comes after 2
        rows = [np.concatenate(list(images[start : start + 3]), axis=1) for start in (0, 3)]
        Image.fromarray(np.concatenate(rows)).save(root / f"{name}.{kind}", **options)
    np.save(root / "train_labels.npy", TRAIN_LABELS.astype(np.uint8))
    np.save(root / "test_labels.npy", TEST_LABELS.astype(np.uint8))


WRITERS = {
    "python batches": write_python2,
    "python batches, nested": write_python_nested,
    "image folders": write_folders,
    "arrays": write_npy,
    "arrays, channels first": write_npy_channels_first,
    "arrays, one archive": write_npz,
    "mosaics": write_mosaics_png,
    "mosaics, webp": write_mosaics_webp,
}
