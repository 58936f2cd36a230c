"""The path tracer of examples/path_tracer on a GPU: the images are those of the CPU, in both forms."""

from __future__ import annotations

import importlib
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dimorph.toolchain import nvidia_driver as driver
from support.paths import EXAMPLES

pytestmark = pytest.mark.gpu

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
if driver.find() is None or not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU with a driver, or a torch without CUDA", allow_module_level=True)

README = EXAMPLES / "path_tracer" / "README.md"


@pytest.fixture
def path_tracer(monkeypatch: pytest.MonkeyPatch, warm_store: Path) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLES / "path_tracer" / "src"))
    return importlib.import_module("path_tracer")


@pytest.mark.parametrize("split", [1, 4])
@pytest.mark.parametrize("form", ["jit", "aot"])
@pytest.mark.parametrize("way", ["compiled", "listed"])
def test_images_are_those_of_the_cpu(path_tracer: Any, way: str, form: str, split: int) -> None:
    features = 0 if way == "compiled" else 3
    on_cpu = path_tracer.cornell_box()
    on_gpu = path_tracer.cornell_box(asarray=partial(torch.asarray, device="cuda"))
    camera = on_cpu.camera.array(70, 50)
    numbers = (0, 64, 5, 8, features)

    expected = np.zeros((50, 70, 3), np.float32)
    scene = getattr(on_cpu, way)
    path_tracer.KERNEL.load().render(expected, camera, *numbers, scene.variant.name, *scene.args)

    film = torch.zeros(50, 70, 3, device="cuda")
    scene = getattr(on_gpu, way)
    values = {"features": features, "scene": scene.variant} if form == "jit" else {}
    module = path_tracer.KERNEL_GPU.load(**values, split=split)
    for first in (0, 16, 32, 48):
        module.render(film, camera, first, 16, *numbers[2:], scene.variant.name, *scene.args)

    found, expected = film.cpu().numpy() / 64, expected / 64
    # A path in some hundreds meets another surface, because products are rounded differently.
    assert np.median(abs(found - expected)) < 1e-4
    assert abs(found.mean() / expected.mean() - 1) < 0.01


def test_the_lines_of_the_readme_draw(path_tracer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (lines,) = re.findall(r"```py\n((?:(?!```)[\s\S])*KERNEL_GPU[\s\S]*?)```", README.read_text())
    found: dict[str, Any] = {"pt": path_tracer}
    exec(lines, found)
    renderer = path_tracer.Renderer(path_tracer.cornell_box(), 256, 256, wait=True)
    renderer.render(16)
    assert abs(found["film"].cpu().numpy().mean() / 16 / renderer.image.mean() - 1) < 0.01
    assert (tmp_path / "gpu.png").read_bytes().startswith(b"\x89PNG")


def test_arrays_in_the_wrong_memory_are_refused(path_tracer: Any) -> None:
    module, box = path_tracer.KERNEL_GPU.load(), path_tracer.cornell_box()
    film, camera = torch.zeros(8, 8, 3, device="cuda"), box.camera.array(8, 8)
    with pytest.raises(ValueError, match="argument 'shapes'"):
        module.render(film, camera, 0, 1, 0, 8, 3, "Listed", *box.listed.args)
    with pytest.raises(ValueError, match="argument 'camera'"):
        module.render(film, torch.asarray(camera, device="cuda"), 0, 1, 0, 8, 0, "CornellBox")
    with pytest.raises(ValueError, match="expected arrays on a GPU"):
        module.render(np.zeros((8, 8, 3), np.float32), camera, 0, 1, 0, 8, 0, "CornellBox")
