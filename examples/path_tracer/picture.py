"""Make the picture of the README: `python picture.py picture.png`; with `--animation`, a turn around it as well."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from math import cos, pi, sin
from typing import Any

import dimorph as dm
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.text import Text

from path_tracer import GLASS, METAL, Camera, Renderer, Scene, save_animation, save_png, to_bytes

GALLERY = dm.Variant("Gallery", header="gallery.h", params=[dm.scalar("lamp", "float32")])
AT = (0.2, -0.28, 0.0)


def scene(angle: float = 0.0) -> Scene:
    """Return the scene of gallery.h, seen from an angle in turns."""
    x, z = 1.1, 4.2
    turned = (x * cos(2 * pi * angle) + z * sin(2 * pi * angle), z * cos(2 * pi * angle) - x * sin(2 * pi * angle))
    return Scene(Camera((AT[0] + turned[0], 0.5, turned[1]), AT, 35), GALLERY(8.0), METAL | GLASS)


def preview(image: NDArray[Any], width: int) -> Text:
    """Return an image for a terminal: each character is the upper half of a block, before a background, so two pixels."""
    step = max(1, image.shape[1] // width)
    pixels = to_bytes(image)[::step, ::step]
    text = Text()
    for upper, lower in zip(pixels[:-1:2], pixels[1::2], strict=True):
        for (r, g, b), (r2, g2, b2) in zip(upper, lower, strict=True):
            text.append("\N{UPPER HALF BLOCK}", style=f"rgb({r},{g},{b}) on rgb({r2},{g2},{b2})")
        text.append("\n")
    return text


def rendered(renderer: Renderer, samples: int, steps: Iterable[Any]) -> NDArray[np.float32]:
    """Return the image after `samples` more paths of each pixel, in as many parts as there are steps."""
    for _ in steps:
        renderer.render(samples)
    return renderer.image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 600), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--samples", type=int, default=512, help="paths of each pixel")
    parser.add_argument("--animation", metavar="FILE", help="where to write a turn of 24 frames, a quarter of the size")
    given = parser.parse_args()
    width, height = given.size

    steps = track(range(given.samples // 4), "rendering")
    image = rendered(Renderer(scene(), width, height, depth=10), 4, steps)
    save_png(given.file, to_bytes(image))
    console = Console()
    console.print(preview(image, min(console.width, width)))
    if given.animation:
        turn = [
            to_bytes(rendered(Renderer(scene(n / 24), width // 4, height // 4, depth=10), given.samples // 4, [0]))
            for n in track(range(24), "turning")
        ]
        save_animation(given.animation, turn, 12)


if __name__ == "__main__":
    main()
