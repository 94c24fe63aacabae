# SPDX-License-Identifier: Apache-2.0
"""Reading calibration data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gadl.compiler.calibration import Color, ImageLayout, ImageOptions, load_calibration
from gadl.compiler.diag import GadlError
from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import DType, TensorType

X = Value("x", TensorType(DType.F32, (1, 3, 4, 6)))
IDS = Value("ids", TensorType(DType.I64, (1, 5)))


def fault(source: Path, *inputs: Value, images: ImageOptions | None = None) -> str:
    with pytest.raises(GadlError) as caught:
        list(load_calibration(source, inputs, images or ImageOptions()))
    assert [d.code for d in caught.value.diagnostics] == ["GADL-Q010"]
    return str(caught.value)


def save_image(path: Path, pixels: np.ndarray) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(pixels).save(path)


def test_archive_with_one_array_per_input(tmp_path: Path) -> None:
    x = np.arange(3 * 72, dtype=np.float32).reshape(3, 1, 3, 4, 6)
    ids = np.arange(15).reshape(3, 5)
    np.savez(tmp_path / "c.npz", x=x, ids=ids)
    feeds = list(load_calibration(tmp_path / "c.npz", [X, IDS]))
    assert len(feeds) == 3
    for i, sample in enumerate(feeds):
        np.testing.assert_array_equal(sample["x"], x[i])
        np.testing.assert_array_equal(sample["ids"], ids[i : i + 1])
        assert sample["ids"].dtype == np.int64


def test_archive_with_numbered_arrays_keeps_numeric_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", **{f"x/{i}": np.full((3, 4, 6), i, np.float32) for i in range(11)})
    feeds = list(load_calibration(tmp_path / "c.npz", [X]))
    assert [float(f["x"][0, 0, 0, 0]) for f in feeds] == list(range(11))


def test_limit_spreads_over_the_source(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=np.arange(10, dtype=np.float32)[:, None, None, None] * np.ones((3, 4, 6), np.float32))
    feeds = list(load_calibration(tmp_path / "c.npz", [X], limit=4))
    assert [float(f["x"].max()) for f in feeds] == [0, 2, 5, 7]


@pytest.mark.parametrize("layout", [ImageLayout.NCHW, ImageLayout.NHWC])
@pytest.mark.parametrize("color", list(Color))
def test_image_becomes_normalised_tensor(tmp_path: Path, layout: ImageLayout, color: Color) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    save_image(tmp_path / "a.png", pixels)
    shape = (1, 3, 4, 6) if layout is ImageLayout.NCHW else (1, 4, 6, 3)
    value = Value("x", TensorType(DType.F32, shape))
    options = ImageOptions((10.0, 20.0, 30.0), (2.0, 4.0, 8.0), layout, color)
    (feeds,) = load_calibration(tmp_path, [value], options)
    for y, x, c in ((0, 0, 0), (3, 5, 2), (2, 1, 1)):
        channel = c if color is Color.RGB else 2 - c
        wanted = (float(pixels[y, x, channel]) - (10.0, 20.0, 30.0)[c]) / (2.0, 4.0, 8.0)[c]
        found = feeds["x"][0, c, y, x] if layout is ImageLayout.NCHW else feeds["x"][0, y, x, c]
        assert found == pytest.approx(wanted, rel=1e-6)


def test_list_file_takes_images_arrays_comments_and_blanks(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    np.save(tmp_path / "sub" / "my x.npy", np.full((3, 4, 6), 2, np.float32))
    np.save(tmp_path / "x.npy", np.full((1, 3, 4, 6), 1, np.float32))
    save_image(tmp_path / "i.png", np.full((8, 12, 3), 7, np.uint8))
    (tmp_path / "list.txt").write_text("# samples\nx.npy\n\nsub/my x.npy  # blank in its name\ni.png\n")
    feeds = list(load_calibration(tmp_path / "list.txt", [X]))
    assert [float(f["x"].min()) for f in feeds] == [1, 2, 7]


def test_list_file_with_one_path_per_input(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((1, 3, 4, 6), np.float32))
    np.save(tmp_path / "ids.npy", np.arange(5))
    (tmp_path / "list.txt").write_text("x.npy ids.npy\n")
    (feeds,) = load_calibration(tmp_path / "list.txt", [X, IDS])
    assert feeds["ids"].tolist() == [[0, 1, 2, 3, 4]]


def test_wrong_shape(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=np.zeros((2, 1, 3, 4, 5), np.float32))
    assert "(2, 1, 3, 4, 5)" in fault(tmp_path / "c.npz", X)


def test_missing_and_unknown_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", y=np.zeros((1, 3, 4, 6), np.float32))
    assert "'x'" in fault(tmp_path / "c.npz", X)
    np.savez(tmp_path / "d.npz", x=np.zeros((1, 3, 4, 6), np.float32), z=np.zeros(1))
    assert "'z'" in fault(tmp_path / "d.npz", X)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_must_be_finite(tmp_path: Path, bad: float) -> None:
    data = np.zeros((1, 3, 4, 6), np.float32)
    data[0, 1, 2, 3] = bad
    np.savez(tmp_path / "c.npz", x=data)
    assert "NaN" in fault(tmp_path / "c.npz", X)


def test_integers_must_fit(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", ids=np.full((1, 5), 0.5))
    assert "i64" in fault(tmp_path / "c.npz", IDS)


def test_different_numbers_of_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=np.zeros((2, 3, 4, 6), np.float32), ids=np.zeros((3, 5), np.int64))
    assert "'x' 2" in fault(tmp_path / "c.npz", X, IDS)


def test_nothing_there(tmp_path: Path) -> None:
    assert "no samples" in fault(tmp_path, X)
    fault(tmp_path / "absent.txt", X)
    fault(tmp_path / "absent.npz", X)
    np.savez(tmp_path / "empty.npz", x=np.zeros((0, 3, 4, 6), np.float32))
    assert "no samples" in fault(tmp_path / "empty.npz", X)


@pytest.mark.parametrize("name", ["c.npz", "c.npy", "c.png"])
@pytest.mark.parametrize("data", [b"", b"PK\x03\x04broken", b"\x93NUMPY\x01\x00\xff\xff", bytes(range(200))])
def test_damaged_files(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    fault(tmp_path / name, X)


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object))
    fault(tmp_path / "o.npy", X)


def test_image_needs_an_image_input(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", np.zeros((4, 6, 3), np.uint8))
    assert "cannot feed" in fault(tmp_path, IDS)
    assert "2 inputs" in fault(tmp_path, X, IDS)
    assert "--mean" in fault(tmp_path, X, images=ImageOptions(mean=(1.0, 2.0)))
