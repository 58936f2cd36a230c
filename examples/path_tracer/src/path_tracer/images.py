"""Images in files: PNG and animated PNG (W3C Recommendation, third edition), from linear radiance."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_bytes(image: NDArray[Any], exposure: float = 1.0) -> NDArray[np.uint8]:
    """Return the bytes in which sRGB (IEC 61966-2-1) stores the radiance [height, width, 3] times the exposure."""
    x = np.clip(np.asarray(image, np.float32) * exposure, 0, 1)
    curve = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    return np.asarray(curve * 255 + 0.5, np.uint8)


def save_png(path: str | Path, pixels: NDArray[np.uint8]) -> None:
    """Write one image, uint8 [height, width, 3]."""
    save_animation(path, [pixels], 1)


def save_animation(path: str | Path, frames: Sequence[NDArray[np.uint8]], rate: int = 24) -> None:
    """Write frames of one size, `rate` of them a second, as an animated PNG that starts anew at its end."""
    for number, frame in enumerate(frames):
        if frame.dtype != np.uint8 or frame.shape != frames[0].shape or frame.shape[2:] != (3,):
            raise ValueError(
                f"save_animation: argument frames: expected uint8 {frames[0].shape[:2]} x 3, "
                f"got {frame.dtype} {frame.shape} at {number}"
            )
    height, width = frames[0].shape[:2]
    chunks = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))]
    if len(frames) > 1:
        chunks.append(_chunk(b"acTL", struct.pack(">II", len(frames), 0)))
    numbers = iter(range(2 * len(frames)))
    for number, frame in enumerate(frames):
        if len(frames) > 1:
            shape = struct.pack(">IIIIIHHBB", next(numbers), width, height, 0, 0, 1, rate, 0, 0)
            chunks.append(_chunk(b"fcTL", shape))
        data = zlib.compress(_filtered(frame), 9)
        chunks.append(_chunk(b"fdAT", struct.pack(">I", next(numbers)) + data) if number else _chunk(b"IDAT", data))
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + _chunk(b"IEND", b""))


def _filtered(frame: NDArray[np.uint8]) -> bytes:
    """Return the rows of an image, each as differences from the row above (PNG's filter 2), which compress well."""
    differences = np.diff(frame, axis=0, prepend=np.zeros_like(frame[:1]))
    rows = differences.reshape(len(frame), -1)
    return np.insert(rows, 0, 2, axis=1).tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
