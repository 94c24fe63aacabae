# SPDX-License-Identifier: Apache-2.0
"""Calibration data: sample inputs from a folder of images, a list of files, or one archive.

| source | holds |
|---|---|
| folder | images, `.npy` and `.npz` files, one sample each, in order of their names |
| text file | one sample per line: a path, or one path per input separated by blanks; `#` starts a comment; relative to the file |
| `.npz` | an array per input whose first axis counts samples, or one array per sample under `input/0`, `input/1`, … |

An image feeds a model of one input with 1 or 3 channels: it is stretched to the input's height and width (bilinear) and
becomes `(pixel - mean) / std` with pixels of 0 to 255.
"""

from __future__ import annotations

import enum
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gadl.compiler.diag import GadlError
from gadl.compiler.ir.graph import Value
from gadl.compiler.ir.types import Array

Feeds = dict[str, Array]
IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
ARRAYS = frozenset({".npy", ".npz"})


class ImageLayout(enum.Enum):
    """Where an image input keeps its channels; `AUTO` looks for the axis of extent 1 or 3."""

    AUTO = "auto"
    NCHW = "nchw"
    NHWC = "nhwc"


class Color(enum.Enum):
    """Channel order that the model was trained with."""

    RGB = "rgb"
    BGR = "bgr"


@dataclass(frozen=True)
class ImageOptions:
    """How pixels become inputs. `mean` and `std` have one value, or one per channel in the model's order, in 0..255 units."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: ImageLayout = ImageLayout.AUTO
    color: Color = Color.RGB


def load_calibration(
    source: str | Path,
    inputs: Sequence[Value],
    images: ImageOptions = ImageOptions(),
    limit: int | None = None,
) -> Iterator[Feeds]:
    """Samples for `inputs` (name, static shape and type of each), checked: `{input name: array}` one after the other.

    With `limit`, that many samples spread evenly over the source. Every fault is a `GADL-Q010` that names file and input:
    unreadable file, missing or unknown array, wrong shape, NaN or infinity, no samples.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES | ARRAYS)
        samples: list[tuple[Path, ...]] = [(p,) for p in files]
    elif path.suffix.lower() == ".npz":
        yield from _archive_samples(path, inputs, limit)
        return
    elif path.suffix.lower() in IMAGES | ARRAYS:
        samples = [(path,)]
    else:
        samples = list(_listed(path))
    if not samples:
        raise _fault(path, "no samples: no image, .npy or .npz file found")
    for index in _spread(len(samples), limit):
        yield _sample(samples[index], inputs, images)


def _fault(path: Path, detail: str) -> GadlError:
    return GadlError.of("GADL-Q010", source=f"'{path}'", detail=detail)


def _spread(count: int, limit: int | None) -> list[int]:
    """At most `limit` indices of `count`, evenly spaced, the first one included."""
    if limit is None or limit >= count:
        return list(range(count))
    return [i * count // limit for i in range(max(1, limit))]


def _listed(path: Path) -> Iterator[tuple[Path, ...]]:
    """The samples of a list file. A line that is a path as a whole is one, blanks and all."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _fault(path, str(error)) from error
    for line in lines:
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        whole = path.parent / text
        yield (whole,) if whole.exists() else tuple(path.parent / part for part in text.split())


def _load(path: Path) -> Mapping[str, Array] | Array:
    """The arrays of an .npy or .npz file; nothing in it is executed."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error, SyntaxError) as error:
        raise _fault(path, str(error) or type(error).__name__) from error


def _checked(path: Path, value: Value, data: Array) -> Array:
    """One input of one sample: a batch axis of extent 1 may be missing."""
    shape = value.shape
    if data.shape != shape and (1, *data.shape) != shape:
        raise _fault(path, f"input '{value.name}' has shape {data.shape}, expected {shape}")
    if data.dtype.kind not in "biuf":
        raise _fault(path, f"input '{value.name}' holds elements of type {data.dtype}")
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise _fault(path, f"input '{value.name}' holds NaN or infinity")
    if value.dtype.is_integer:
        low, high = value.dtype.range
        if data.size and (data.min() < low or data.max() > high or np.any(data != np.trunc(data))):
            raise _fault(path, f"input '{value.name}' holds values that are not {value.dtype.value}")
    return np.ascontiguousarray(data.reshape(shape), value.dtype.numpy)


def _complete(path: Path, arrays: Mapping[str, Array], inputs: Sequence[Value]) -> None:
    """Every input has its array and every array its input."""
    wanted = {v.name for v in inputs}
    missing, unknown = sorted(wanted - set(arrays)), sorted(set(arrays) - wanted)
    if missing:
        raise _fault(path, f"no array for input '{missing[0]}' (found: {', '.join(sorted(arrays)) or 'none'})")
    if unknown:
        raise _fault(path, f"'{unknown[0]}' is no input (inputs: {', '.join(sorted(wanted))})")


def _archive_samples(path: Path, inputs: Sequence[Value], limit: int | None) -> Iterator[Feeds]:
    """The samples of one .npz."""
    loaded = _load(path)
    if isinstance(loaded, np.ndarray):
        raise _fault(path, "an .npz archive is expected")
    columns = {v.name: _column(path, loaded, v) for v in inputs}
    used = {v.name for v in inputs}
    _complete(path, {(n.rsplit("/", 1)[0] if n not in used else n): a for n, a in loaded.items()}, inputs)
    lengths = {name: len(column) for name, column in columns.items()}
    count = min(lengths.values(), default=0)
    if len(set(lengths.values())) > 1:
        raise _fault(path, "numbers of samples differ: " + ", ".join(f"'{n}' {c}" for n, c in lengths.items()))
    if count == 0:
        raise _fault(path, "no samples")
    for index in _spread(count, limit):
        yield {v.name: _checked(path, v, columns[v.name][index]) for v in inputs}


def _column(path: Path, arrays: Mapping[str, Array], value: Value) -> Sequence[Array]:
    """The samples of one input, in order."""
    shape = value.shape
    if value.name in arrays:
        stacked = arrays[value.name]
        if stacked.ndim == len(shape) + 1 and stacked.shape[1:] == shape:
            return list(stacked)
        batch = shape[0] if shape else 0
        if shape and stacked.ndim == len(shape) and stacked.shape[1:] == shape[1:] and len(stacked) % max(1, batch) == 0:
            return [stacked[i : i + batch] for i in range(0, len(stacked), max(1, batch))]
        raise _fault(path, f"input '{value.name}' has shape {stacked.shape}, expected (samples, {', '.join(map(str, shape))})")
    prefix = f"{value.name}/"
    numbered = sorted((int(n[len(prefix) :]), n) for n in arrays if n.startswith(prefix) and n[len(prefix) :].isdecimal())
    if not numbered:
        raise _fault(path, f"no array for input '{value.name}' (found: {', '.join(sorted(arrays)) or 'none'})")
    if [number for number, _ in numbered] != list(range(len(numbered))):
        raise _fault(path, f"the samples of input '{value.name}' are not numbered 0, 1, 2, …")
    return [arrays[name] for _, name in numbered]


def _sample(paths: tuple[Path, ...], inputs: Sequence[Value], images: ImageOptions) -> Feeds:
    """One sample from one file, or from one file per input in the order of the inputs."""
    first = paths[0]
    if len(paths) == 1 and first.suffix.lower() == ".npz":
        loaded = _load(first)
        if isinstance(loaded, np.ndarray):
            raise _fault(first, "an .npz archive is expected")
        _complete(first, loaded, inputs)
        return {v.name: _checked(first, v, loaded[v.name]) for v in inputs}
    if len(paths) != len(inputs):
        raise _fault(first, f"{len(paths)} file(s) for {len(inputs)} inputs; give one per input, or an .npz with their names")
    feeds = {}
    for path, value in zip(paths, inputs):
        if path.suffix.lower() in IMAGES:
            feeds[value.name] = _checked(path, value, _image(path, value, images))
            continue
        loaded = _load(path)
        if not isinstance(loaded, np.ndarray):
            raise _fault(path, "one .npz per sample holds all its inputs")
        feeds[value.name] = _checked(path, value, loaded)
    return feeds


def _channel_axis(path: Path, value: Value, layout: ImageLayout) -> int:
    """Axis of the channels of an image input."""
    shape = value.shape
    if len(shape) == 4 and shape[0] == 1:
        if layout is not ImageLayout.NHWC and shape[1] in (1, 3):
            return 1
        if layout is not ImageLayout.NCHW and shape[3] in (1, 3):
            return 3
    raise _fault(path, f"an image cannot feed input '{value.name}' of shape {shape}")


def _image(path: Path, value: Value, options: ImageOptions) -> Array:
    """An image as the input tensor, `(pixel - mean) / std`."""
    try:
        from PIL import Image
    except ImportError:
        raise _fault(path, "reading images needs Pillow (pip install pillow)") from None
    axis = _channel_axis(path, value, options.layout)
    channels = value.shape[axis]
    height, width = value.shape[2:] if axis == 1 else value.shape[1:3]
    for name, numbers in (("mean", options.mean), ("std", options.std)):
        if len(numbers) not in (1, channels):
            raise _fault(path, f"{len(numbers)} values of --{name} for {channels} channel(s)")
    if 0 in options.std:
        raise _fault(path, "--std must not be 0")
    try:
        with Image.open(path) as opened:
            picture = opened.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _fault(path, str(error)) from error
    pixels = np.asarray(picture, np.float32).reshape(height, width, channels)
    if options.color is Color.BGR:
        pixels = pixels[..., ::-1]
    scaled: Array = (pixels - np.asarray(options.mean, np.float32)) / np.asarray(options.std, np.float32)
    return np.moveaxis(scaled, -1, 0)[None] if axis == 1 else scaled[None]
