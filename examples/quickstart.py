# SPDX-License-Identifier: Apache-2.0
"""Fetches a trained text recogniser, compiles it for the reference NPU, lets it read a line, prints what it read.

The model is PP-OCRv4's mobile recogniser (Apache-2.0), which ships inside the package rapidocr-onnxruntime 1.4.4. Calibration
lines and the line to read are drawn here with Pillow's own font.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
from PIL import Image, ImageDraw, ImageFont

import gadl

PACKAGE = "rapidocr-onnxruntime==1.4.4"
MEMBER = "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"
SHA256 = "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b"
HEIGHT, WIDTH = 48, 480
LABEL = "Open compiler, honest numbers 2026"
CALIBRATION = (
    "The quick brown fox jumps over", "the lazy dog 0123456789", "Sphinx of black quartz, judge", "my vow: pack 5 dozen jugs",
    "How vexingly quick daft zebras", "jump! Bright vixens (2 of 3)", "Waltz, bad nymph, for jigs", "and a price of 49.95 euro",
)  # fmt: skip


def fetch(folder: Path) -> Path:
    """The model file, downloaded with pip once and checked against its hash."""
    target = folder / "ppocr_rec.onnx"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--python-version=3.11", "-d", str(folder), PACKAGE]
        subprocess.check_call(command)
        wheel = next(folder.glob("rapidocr_onnxruntime-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(MEMBER)
        if hashlib.sha256(data).hexdigest() != SHA256:
            raise SystemExit("the model file is not the pinned one")
        target.write_bytes(data)
    return target


def draw(text: str) -> np.ndarray:
    """A line of text as the model's input, f32[1, 3, 48, 480] in [-1, 1]."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    ImageDraw.Draw(image).text((6, 6), text, fill="black", font=ImageFont.load_default(26))
    return np.asarray(image, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1


def read(scores: np.ndarray, alphabet: list[str]) -> str:
    """Greedy CTC: repeated symbols merge, blanks (0) vanish."""
    best = scores[0].argmax(-1)
    kept = [int(c) for i, c in enumerate(best) if c and (i == 0 or c != best[i - 1])]
    return "".join(alphabet[c] for c in kept)


def main() -> None:
    model = fetch(Path("models"))
    names = {p.key: p.value for p in onnx.load(model).metadata_props}
    alphabet = ["", *names["character"].splitlines(), " "]
    feeds = [{"x": draw(text)} for text in CALIBRATION]
    artifact = gadl.compile(model, target="npu", machine="edge", calibration=feeds, shapes={"x": (1, 3, HEIGHT, WIDTH)})
    artifact.save("models/ppocr_rec.gadl")
    session = gadl.load("models/ppocr_rec.gadl")
    (scores,) = session.run({"x": draw(LABEL)}).values()
    plan = artifact.report["plan"]
    print(f"compiled in {artifact.report['compile_s']:.1f} s, {plan['cycles']:,} cycles on {artifact.report['machine']} ({artifact.report['status']})")
    print(f"label: {LABEL}")
    print(f"read:  {read(scores, alphabet)}")


if __name__ == "__main__":
    main()
