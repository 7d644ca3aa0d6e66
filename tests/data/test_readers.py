"""Readers for any network: image folders and .npz archives."""

import numpy as np
import pytest
import torch
from PIL import Image

from autoprune.data import arrays, image_folder
from autoprune.errors import DataError

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
RNG = np.random.default_rng(0)


def write_image(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_split(root, split, count, shape=(4, 8, 3)):
    """`count` random images in each of two classes; returns them in the order of class and name."""
    images = RNG.integers(0, 256, (2 * count, *shape), dtype=np.uint8)
    for i, image in enumerate(images):
        write_image(root / split / ("bird" if i < count else "cat") / f"{i:02}.png", image)
    return images


def read(root, **changes):
    return image_folder(
        root, **({"size": 4, "resize": 4, "calibrate": 2, "select": 2, "batch_size": 3} | PLAIN | changes)
    )


def pixels(batches):
    x = torch.cat([batch.inputs[0] for batch in batches]).numpy()
    return np.round(x.transpose(0, 2, 3, 1) * 255).astype(np.uint8)


def test_an_image_that_needs_no_resizing_is_cut_to_its_centre(tmp_path):
    write_split(tmp_path, "train", 3)
    images = write_split(tmp_path, "val", 2)
    data = read(tmp_path)
    np.testing.assert_array_equal(pixels(data.report), images[:, :, 2:6])
    assert torch.cat([batch.target for batch in data.report]).tolist() == [0, 0, 1, 1]


def test_resizing_keeps_the_proportions(tmp_path):
    write_split(tmp_path, "train", 3, (20, 30, 3))
    halves = np.zeros((20, 40, 3), np.uint8)
    halves[:, 20:] = 200  # shorter side 20 -> 10, so 20 wide; the centre of 10 has the edge in its middle
    for name in ("bird", "cat"):
        write_image(tmp_path / "val" / name / "0.png", halves + (name == "cat"))
    report = pixels(read(tmp_path, size=10, resize=10).report)[0]
    assert report.shape == (10, 10, 3)
    assert (report[:, :4] == 0).all()
    assert (report[:, 6:] == 200).all()


def test_resize_is_size_over_seven_eighths_unless_given(tmp_path):
    write_split(tmp_path, "train", 3, (8, 8, 3))
    images = write_split(tmp_path, "val", 2, (8, 8, 3))
    np.testing.assert_array_equal(pixels(read(tmp_path, size=7, resize=None).report)[0], images[0, :7, :7])


def test_report_comes_from_test_where_there_is_one(tmp_path):
    write_split(tmp_path, "train", 3)
    write_split(tmp_path, "val", 2)
    images = write_split(tmp_path, "test", 2)
    np.testing.assert_array_equal(pixels(read(tmp_path).report), images[:, :, 2:6])


def test_report_is_at_most_as_many_as_asked_for(tmp_path):
    write_split(tmp_path, "train", 3)
    write_split(tmp_path, "val", 4)
    assert read(tmp_path, report=5).description["sets"]["report"]["examples"] == 5
    assert read(tmp_path, report=9).description["indices"]["report"] == "all"


def test_mean_and_deviation_are_taken_per_channel(tmp_path):
    write_split(tmp_path, "train", 3)
    images = write_split(tmp_path, "val", 2)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    x = torch.cat([batch.inputs[0] for batch in read(tmp_path, mean=mean, std=std).report]).numpy()
    np.testing.assert_allclose(x.transpose(0, 2, 3, 1), (images[:, :, 2:6] / 255 - mean) / std, atol=1e-6)


def test_wrong_folders_and_sizes_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: expected the folders train and val \(or test\), got no folder"):
        read(tmp_path / "nowhere")
    write_split(tmp_path, "train", 3)
    with pytest.raises(DataError, match=r"expected the folders train and val \(or test\), got \['train'\]"):
        read(tmp_path)
    (tmp_path / "val" / "bird").mkdir(parents=True)
    with pytest.raises(DataError, match=r"val: expected the 2 class folders of train, got \['cat'\] in only one"):
        read(tmp_path)
    (tmp_path / "val" / "cat").mkdir()
    with pytest.raises(DataError, match=r"val: expected one folder of image files per class, got 2 folders, no image"):
        read(tmp_path)
    write_split(tmp_path, "val", 1)
    with pytest.raises(DataError, match=r"expected 1 <= size <= resize, got size 4 and resize 3"):
        read(tmp_path, resize=3)


def write_archive(path, x_train, x_test):
    y_train, y_test = np.arange(len(x_train)) % 2, np.arange(len(x_test)) % 2
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


def test_inputs_of_an_archive_reach_the_network_untouched(tmp_path):
    x_train, x_test = (RNG.normal(size=(n, 5)).astype(np.float32) for n in (8, 4))
    data = arrays(write_archive(tmp_path / "a.npz", x_train, x_test), calibrate=2, select=3)
    np.testing.assert_array_equal(data.report[0].inputs[0].numpy(), x_test)
    np.testing.assert_array_equal(
        data.calibrate[0].inputs[0].numpy(), x_train[data.description["indices"]["calibrate"]]
    )
    assert data.report[0].target.tolist() == [0, 1, 0, 1]


def test_grey_images_get_a_channel_when_normalised(tmp_path):
    x_train, x_test = (RNG.integers(0, 256, (n, 6, 5), dtype=np.uint8) for n in (8, 4))
    data = arrays(write_archive(tmp_path / "a.npz", x_train, x_test), calibrate=2, select=3, mean=(0.5,), std=(0.25,))
    np.testing.assert_allclose(data.report[0].inputs[0].numpy(), (x_test[:, None] / 255 - 0.5) / 0.25, atol=1e-6)


def test_wrong_archives_are_refused(tmp_path):
    raw = write_archive(tmp_path / "a.npz", *(RNG.integers(0, 256, (n, 6, 5), dtype=np.uint8) for n in (8, 4)))
    with pytest.raises(DataError, match=r"got torch.uint8. Raw images must be normalised"):
        arrays(raw, calibrate=2, select=3)
    with pytest.raises(DataError, match=r"expected both mean and std, or neither, got mean \(0.5,\) and std None"):
        arrays(raw, calibrate=2, select=3, mean=(0.5,))
    with pytest.raises(DataError, match=r"nowhere.npz: expected an .npz archive, got a file that cannot be read"):
        arrays(tmp_path / "nowhere.npz")
