"""Pictures of scenes made of signed distances, by paths of light: on CPUs and GPUs, from one source."""

from __future__ import annotations

from path_tracer.images import save_animation, save_png, to_bytes
from path_tracer.kernels import CORNELL_BOX, DIFFUSE, GLASS, KERNEL, KERNEL_GPU, METAL
from path_tracer.renderer import Renderer
from path_tracer.scenes import Camera, Lamp, Material, Scene, Shape, cornell_box, listed

__all__ = [
    "CORNELL_BOX",
    "DIFFUSE",
    "GLASS",
    "KERNEL",
    "KERNEL_GPU",
    "METAL",
    "Camera",
    "Lamp",
    "Material",
    "Renderer",
    "Scene",
    "Shape",
    "cornell_box",
    "listed",
    "save_animation",
    "save_png",
    "to_bytes",
]
