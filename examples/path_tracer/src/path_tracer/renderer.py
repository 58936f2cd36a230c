"""An image that gets better with each call: by the kernel that is there at once, then by the one made for the scene."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from path_tracer.kernels import GLASS, KERNEL, LISTED, METAL
from path_tracer.scenes import Scene


class Renderer:
    """Accumulates paths of light through a scene.

    A scene with tables is rendered at once, by the kernel that reads any list of shapes, which the package holds
    compiled. Meanwhile a kernel with the scene compiled in is made, or for tables alone one with the features that they
    use, and serves as soon as it is there. Both trace the same paths, so the image goes on as it was.

    Args:
        scene: what to render.
        width, height: of the image, in pixels.
        depth: surfaces that a path meets at most.
        seed: images of different seeds have independent noise.
        wait: True: have the scene compiled before the first path.

    Raises:
        ValueError: a size is below 1, or the scene has neither a struct nor tables.
        dimorph.BuildError: the scene does not compile; raised here if this waits for it, else by `render`.
    """

    def __init__(
        self, scene: Scene, width: int, height: int, *, depth: int = 8, seed: int = 0, wait: bool = False
    ) -> None:
        for name, size in (("width", width), ("height", height)):
            if size < 1:
                raise ValueError(f"Renderer: argument {name}: expected a number above 0, got {size}")
        made = scene.compiled or scene.listed
        if made is None:
            raise ValueError("Renderer: argument scene: expected one with a struct or with tables, got neither")
        self.scene, self.depth, self.seed = scene, depth, seed
        self.samples = 0
        self._film = np.zeros((height, width, 3), np.float32)
        self._camera = scene.camera.array(width, height)
        at_once = scene.listed is not None and not wait
        self._any_scene = KERNEL.load(features=METAL | GLASS, scene=LISTED) if at_once else None
        self._made = KERNEL.load_in_background(features=scene.features, scene=made.variant)
        if not at_once:
            self._made.result()

    @property
    def specialized(self) -> bool:
        """True where the kernel with the scene compiled in is there."""
        return self._made.done()

    def wait(self) -> None:
        """Return when the kernel with the scene compiled in is there."""
        self._made.result()

    def render(self, samples: int) -> None:
        """Add the next `samples` paths of each pixel."""
        scene = self.scene
        module, features, variant = self._any_scene, METAL | GLASS, scene.listed
        if module is None or self._made.done():
            module, features, variant = self._made.result(), scene.features, scene.compiled or scene.listed
        assert variant
        name = variant.variant.name
        module.render(
            self._film, self._camera, self.samples, samples, self.seed, self.depth, features, name, *variant.args
        )
        self.samples += samples

    @property
    def image(self) -> NDArray[np.float32]:
        """The mean radiance so far, linear, float32 [height, width, 3]."""
        return self._film / np.float32(max(self.samples, 1))
