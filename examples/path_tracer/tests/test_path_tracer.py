"""The images are those that are known: by closed forms, by each other, and by the law that errors follow."""

from __future__ import annotations

import importlib.util
import re
import zlib
from pathlib import Path
from typing import Any

import dimorph as dm
import numpy as np
import pytest
from numpy.typing import NDArray

from path_tracer import (
    CORNELL_BOX,
    DIFFUSE,
    GLASS,
    KERNEL,
    METAL,
    Camera,
    Lamp,
    Material,
    Renderer,
    Scene,
    Shape,
    cornell_box,
    listed,
    save_animation,
    save_png,
    to_bytes,
)

FURNACE = dm.Variant("Furnace", header="furnace.h", params=[dm.scalar("albedo"), dm.scalar("kind", "int32")])
BOX, COMPILED = cornell_box(), CORNELL_BOX()


def image(
    module: dm.Module, scene: dm.BoundVariant, features: int, samples: int, camera: Camera = BOX.camera, seed: int = 0
) -> NDArray[np.float32]:
    film = np.zeros((24, 40, 3), np.float32)
    name = scene.variant.name
    module.render(film, camera.array(40, 24), 0, samples, seed, 8, features, name, *scene.args)
    return film / np.float32(samples)


def test_both_forms_give_the_same_bits() -> None:
    some = KERNEL.load()
    for scene, features in ((COMPILED, DIFFUSE), (BOX.listed, METAL | GLASS)):
        assert scene
        one = image(KERNEL.load(features=features, scene=scene.variant), scene, features, 3)
        assert one.any()
        np.testing.assert_array_equal(image(some, scene, features, 3), one)


def test_tables_say_the_same_scene_as_the_struct() -> None:
    some = KERNEL.load()
    assert BOX.listed
    compiled, tables = image(some, COMPILED, DIFFUSE, 16), image(some, BOX.listed, METAL | GLASS, 16)
    # Rounding lets a path in a thousand meet another surface.
    assert np.median(abs(compiled - tables)) < 1e-5
    assert abs(compiled.mean() / tables.mean() - 1) < 0.01


@pytest.mark.parametrize(("kind", "albedo"), [(DIFFUSE, 1.0), (DIFFUSE, 0.5), (METAL, 0.7), (GLASS, 1.0)])
def test_jit_under_an_even_sky_a_ball_is_as_bright_as_its_albedo(kind: int, albedo: float) -> None:
    ball = FURNACE(albedo, kind)
    module = KERNEL.load(features=METAL | GLASS, scene=FURNACE)
    found = image(module, ball, METAL | GLASS, 64, Camera((0, 0, 4), (0, 0, 0)))
    np.testing.assert_allclose(found[0, 0], 1, rtol=1e-6)
    expected = np.full(3, albedo)
    np.testing.assert_allclose(found[12, 20], expected, rtol=1e-5)


def test_the_error_falls_with_the_root_of_the_samples() -> None:
    module = KERNEL.load()
    low = Camera((0, -0.4, 3), (0, -0.6, 0), 25)  # the light is out of sight: its edge would be most of the noise

    def low_image(samples: int, seed: int) -> NDArray[np.float32]:
        return image(module, COMPILED, DIFFUSE, samples, low, seed)

    truth = low_image(16384, 1)
    errors = [np.sqrt(((low_image(samples, 0) - truth) ** 2).mean()) for samples in (4, 64, 1024)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.15)


def test_samples_may_come_in_parts() -> None:
    module = KERNEL.load()
    whole, parts = np.zeros((2, 24, 40, 3), np.float32)
    camera = BOX.camera.array(40, 24)
    module.render(whole, camera, 0, 8, 3, 8, DIFFUSE, "CornellBox")
    for first, samples in ((0, 3), (3, 5)):
        module.render(parts, camera, first, samples, 3, 8, DIFFUSE, "CornellBox")
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)


PROBE = dm.Kernel(
    "probe",
    include_dirs=["../src/path_tracer"],
    axes=[dm.variant_axis("scene", "SCENE", default=CORNELL_BOX, values=[CORNELL_BOX])],
)


def probed(rays: NDArray[np.float32], scene: dm.BoundVariant) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return how far the rays go (1e9: they meet nothing), and the distances of their origins."""
    out = np.empty((len(rays), 2), np.float32)
    PROBE.load(scene=scene.variant).probe(rays, out, scene.variant.name, *scene.args)
    return out[:, 0], out[:, 1]


def tables(*shapes: Shape, blend: float = 0.0) -> dm.BoundVariant:
    return listed(shapes, [Material((1, 1, 1))] * 3, Lamp((0, 9, 0), (1, 1), (1, 1, 1)), blend)


def rays(count: int) -> NDArray[np.float32]:
    """Return rays [count, 6], origin and direction, from around the origin to points near it."""
    random = np.random.default_rng(0)
    o = random.normal(size=(count, 3))
    o *= 3 / np.linalg.norm(o, axis=1, keepdims=True)
    w = random.uniform(-1.2, 1.2, (count, 3)) - o
    return np.concatenate([o, w / np.linalg.norm(w, axis=1, keepdims=True)], axis=1).astype(np.float32)


def test_jit_rays_meet_a_box_where_it_is() -> None:
    some, half = rays(5000), np.array([0.7, 0.4, 1.1])
    o, w = some[:, :3].astype(float), some[:, 3:].astype(float)
    near, far = np.sort([(-half - o) / w, (half - o) / w], axis=0)
    enter, leave = near.max(axis=1), far.min(axis=1)
    expected = np.where(enter < leave, enter, 1e9)
    t, distance = probed(some, tables(Shape("box", 0, size=(0.7, 0.4, 1.1))))
    off = abs(t - expected) > 1e-3
    assert 0.2 < (expected < 1e9).mean() < 0.8
    assert off.mean() < 0.003  # rays along an edge may meet it or miss it
    np.testing.assert_allclose(distance, np.linalg.norm(np.maximum(abs(o) - half, 0), axis=1), rtol=1e-5)


def test_jit_rays_meet_a_sphere_where_it_is() -> None:
    some = rays(5000)
    o, w = some[:, :3].astype(float), some[:, 3:].astype(float)
    b, c = (o * w).sum(axis=1), (o * o).sum(axis=1) - 0.8**2
    inside = b * b - c
    expected = np.where(inside > 0, -b - np.sqrt(np.maximum(inside, 0)), 1e9)
    t, distance = probed(some, tables(Shape("sphere", 0, size=(0.8, 0.8, 0.8))))
    assert (abs(t - expected) > 3e-3).mean() < 0.005
    np.testing.assert_allclose(distance, np.linalg.norm(o, axis=1) - 0.8, rtol=1e-5)


def test_jit_shapes_flow_into_each_other() -> None:
    some = rays(100)
    a, b = Shape("sphere", 0, (0.5, 0, 0), (0.8, 0.8, 0.8)), Shape("box", 0, (-0.5, 0, 0), (0.3, 0.4, 0.5), 30.0)
    (_, of_a), (_, of_b) = probed(some, tables(a)), probed(some, tables(b))
    near = np.maximum(0.6 - abs(of_a - of_b), 0)
    expected = np.minimum(of_a, of_b) - near**2 / 2.4
    np.testing.assert_allclose(probed(some, tables(a, b, blend=0.6))[1], expected, rtol=1e-4)


def test_jit_rays_meet_the_walls_of_the_room() -> None:
    inside = np.array([[0, 0, 0.9, 1, 0, 0], [0, 0, 0.9, 0, 0.6, 0.8], [0, 0.9, 3, 0, 0, -1]], np.float32)
    t, _ = probed(inside, COMPILED)
    np.testing.assert_allclose(t, [1, 1e9, 4], rtol=1e-5)


def test_jit_the_renderer_goes_on_with_the_compiled_scene() -> None:
    renderer = Renderer(BOX, 40, 24)
    renderer.render(4)
    renderer.wait()
    assert renderer.specialized
    renderer.render(12)
    whole = Renderer(BOX, 40, 24, wait=True)
    whole.render(16)
    assert renderer.samples == whole.samples == 16
    assert np.median(abs(renderer.image - whole.image)) < 1e-5


def test_jit_tables_alone_serve_with_the_features_that_they_use() -> None:
    ball = listed(
        [Shape("sphere", 0)], [Material((1, 1, 1), METAL)], Lamp((0, 9, 0), (1, 1), (1, 1, 1), zenith=(1, 1, 1))
    )
    camera = Camera((0, 0, 4), (0, 0, 0))
    renderer = Renderer(Scene(camera, features=METAL, listed=ball), 40, 24)
    renderer.render(4)
    renderer.wait()
    renderer.render(4)
    whole = Renderer(Scene(camera, features=METAL, listed=ball), 40, 24, wait=True)
    whole.render(8)
    assert renderer.image[6, 20].all()
    np.testing.assert_allclose(renderer.image, whole.image, rtol=1e-4)


def test_jit_a_scene_that_does_not_compile_is_told() -> None:
    wrong = Scene(BOX.camera, dm.Variant("Wrong", header="wrong.h")(), listed=BOX.listed)
    with pytest.raises(dm.BuildError, match=r"struct Wrong.*has no member named 'light'"):
        Renderer(wrong, 40, 24, wait=True)
    renderer = Renderer(wrong, 40, 24)
    renderer.render(1)
    with pytest.raises(dm.BuildError, match=r"struct Wrong.*has no member named 'light'"):
        renderer.wait()


def test_wrong_arguments_are_refused() -> None:
    module, film = KERNEL.load(), np.zeros((4, 4, 3), np.float32)
    camera = BOX.camera.array(4, 4)
    with pytest.raises(ValueError, match="argument 'film'"):
        module.render(film[..., :2].copy(), camera, 0, 1, 0, 8, DIFFUSE, "CornellBox")
    with pytest.raises(ValueError, match="argument samples: expected 1 to 1048576, got 0"):
        module.render(film, camera, 0, 0, 0, 8, DIFFUSE, "CornellBox")
    for first in (-1, 2**32):
        with pytest.raises(ValueError, match=f"argument first: expected 0 to 4294967296 - samples, got {first}"):
            module.render(film, camera, first, 1, 0, 8, DIFFUSE, "CornellBox")
    with pytest.raises(ValueError, match="argument depth: expected 1 to 1048576, got 0"):
        module.render(film, camera, 0, 1, 0, 0, DIFFUSE, "CornellBox")
    with pytest.raises(ValueError, match="argument target: expected a point other than the origin"):
        Camera((1, 2, 3), (1, 2, 3)).array(4, 4)
    with pytest.raises(ValueError, match="argument up: expected a direction other than that of the view"):
        Camera((0, 4, 0), (0, 0, 0)).array(4, 4)
    with pytest.raises(ValueError, match="argument kind: expected DIFFUSE, METAL or GLASS, got 3"):
        listed([Shape("sphere", 0)], [Material((1, 1, 1), 3)], Lamp((0, 9, 0), (1, 1), (1, 1, 1)))
    with pytest.raises(ValueError, match="argument width: expected a number above 0, got 0"):
        Renderer(BOX, 0, 4)
    with pytest.raises(ValueError, match="argument scene: expected one with a struct or with tables"):
        Renderer(Scene(BOX.camera), 4, 4)
    with pytest.raises(ValueError, match="argument kind: expected one of room"):
        tables(Shape("cone", 0))
    with pytest.raises(ValueError, match="names a material beyond the 3 given"):
        tables(Shape("room", 1))


def pixels(data: bytes, height: int, width: int) -> NDArray[Any]:
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, 1 + 3 * width)
    assert (rows[:, 0] == 2).all()
    return np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8).reshape(height, width, 3)


def chunks(path: Path) -> list[tuple[bytes, bytes]]:
    data, found = path.read_bytes()[8:], []
    while data:
        size = int.from_bytes(data[:4], "big")
        assert zlib.crc32(data[4 : 8 + size]) == int.from_bytes(data[8 + size : 12 + size], "big")
        found.append((data[4:8], data[8 : 8 + size]))
        data = data[12 + size :]
    return found


def test_files_hold_the_images(tmp_path: Path) -> None:
    frames = [to_bytes(np.random.default_rng(seed).random((5, 7, 3))) for seed in range(3)]
    save_png(tmp_path / "one.png", frames[0])
    assert [kind for kind, _ in chunks(tmp_path / "one.png")] == [b"IHDR", b"IDAT", b"IEND"]
    save_animation(tmp_path / "all.png", frames)
    found = dict(chunks(tmp_path / "one.png"))
    np.testing.assert_array_equal(pixels(found[b"IDAT"], 5, 7), frames[0])
    parts = [data[4:] for kind, data in chunks(tmp_path / "all.png") if kind == b"fdAT"]
    assert len(parts) == 2
    np.testing.assert_array_equal(pixels(parts[1], 5, 7), frames[2])
    np.testing.assert_array_equal(to_bytes(np.array([[[0.0, 0.5, 2.0]]])), [[[0, 188, 255]]])
    with pytest.raises(ValueError, match="argument frames: expected uint8"):
        save_animation(tmp_path / "all.png", [frames[0], frames[1][:4]])


def imported(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_jit_the_scenes_of_the_readme(tmp_path: Path) -> None:
    text = Path(__file__).parents[1].joinpath("README.md").read_text()
    blocks = {kind: re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)[-1] for kind in ("cpp", "python", "py")}
    (tmp_path / "ball.h").write_text('#include "trace.h"\n' + blocks["cpp"])
    for name, kind in (("ball", "python"), ("tables", "py")):
        file = tmp_path / f"{name}.py"
        file.write_text("import dimorph as dm\nimport path_tracer as pt\n" + blocks[kind])
        renderer = Renderer(imported(file).scene, 40, 24)
        renderer.render(4)
        assert renderer.image[8, 20].all()


def test_a_lamp_is_diffuse_beside_metal_and_glass() -> None:
    # Below, the sky shines 1: a diffuse lamp reflects half of it. Above it is black, for what went through glass.
    lamp = Lamp((0, 1, 0), (0.5, 0.5), (0, 0, 0), (0.5, 0.5, 0.5), (1, 1, 1), (0, 0, 0))
    scene = listed([Shape("sphere", 0, (0, 90, 0))], [Material((0, 0, 0), METAL)], lamp)
    found = image(KERNEL.load(), scene, METAL | GLASS, 64, Camera((0, -3, 0.01), (0, 1, 0), 3))
    np.testing.assert_allclose(found[12, 20], 0.5, rtol=1e-3)
