"""The path tracer of examples/path_tracer: speed, error, first images, sets built ahead.

`python benchmarks/fields/path_tracer.py` measures on the CPU, beside Numba (path_tracer_numba.py) and Mitsuba as far as
they are installed: pip install numba mitsuba. All have THREADS threads. Mitsuba's `llvm_ad_rgb` needs LLVM:
DRJIT_LIBLLVM_PATH names libLLVM.so. `python benchmarks/fields/path_tracer.py gpu` measures on a GPU, with torch.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "examples" / "path_tracer" / "src"
sys.path[:0] = [str(ROOT / "benchmarks"), str(PROJECT)]
THREADS = 2
os.environ["DIMORPH_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = str(THREADS)  # both read them once; children too

import path_tracer as pt  # noqa: E402

import dimorph as dm  # noqa: E402
from support import limits, rows  # noqa: E402

SIZE, DEPTH = 256, 8
BOX = pt.cornell_box()
CAMERA = BOX.camera.array(SIZE, SIZE)
Image = NDArray[np.float32]
# Renders so many paths of each pixel, from a seed.
Render = Callable[[int, int], Image]


def ours(module: dm.Module, features: int, scene: dm.BoundVariant) -> Render:
    def render(samples: int, seed: int) -> Image:
        film = np.zeros((SIZE, SIZE, 3), np.float32)
        module.render(film, CAMERA, 0, samples, seed, DEPTH, features, scene.variant.name, *scene.args)
        return film / np.float32(samples)

    return render


def with_numba() -> Render:
    from path_tracer_numba import render as add

    def render(samples: int, seed: int) -> Image:
        film = np.zeros((SIZE, SIZE, 3), np.float32)
        add(film, CAMERA, 0, samples, seed, DEPTH)
        return film / np.float32(samples)

    return render


def with_mitsuba(variant: str) -> Render:
    import drjit
    import mitsuba as mi

    mi.set_variant(variant)
    drjit.set_thread_count(THREADS)  # of the scalar variant too
    box = mi.cornell_box()
    box["sensor"]["film"]["rfilter"] = {"type": "box"}  # the mean of a pixel's paths, as here
    scene = mi.load_dict(box)

    def render(samples: int, seed: int) -> Image:
        total = np.zeros((SIZE, SIZE, 3), np.float64)
        for part in range(0, samples, 64):  # more at a time do not fit into the caches
            mi.set_variant(variant)
            some = min(64, samples - part)
            total += some * np.array(mi.render(scene, spp=some, seed=seed * 1000 + part))
        return np.asarray(total / samples, np.float32)

    return render


def renderers() -> dict[str, Render]:
    """Return the ways to render the box that are installed here."""
    assert BOX.listed
    found = {
        "compiled": ours(pt.KERNEL.load(features=0, scene=pt.CORNELL_BOX), 0, BOX.compiled),
        "listed, all features": ours(pt.KERNEL.load(features=3, scene=BOX.listed.variant), 3, BOX.listed),
        "listed, its features": ours(pt.KERNEL.load(features=0, scene=BOX.listed.variant), 0, BOX.listed),
    }
    peers = {
        "Numba": ("numba", with_numba),
        "Mitsuba scalar_rgb": ("mitsuba", partial(with_mitsuba, "scalar_rgb")),
        "Mitsuba llvm_ad_rgb": ("mitsuba", partial(with_mitsuba, "llvm_ad_rgb")),
    }
    for name, (package, make) in peers.items():
        if importlib.util.find_spec(package) is None:
            print(f"  {name}: not measured, {package} is not installed")
            continue
        try:
            found[name] = make()
        except ImportError as error:
            print(f"  {name}: not measured, {error}")
    return found


def rmse(a: Image, b: Image) -> float:
    """Return the root mean square difference, without the pixels at the light's edge, which have most of the noise."""
    dim = b.max(axis=2) < 1
    return float(np.sqrt(np.mean((a - b)[dim].astype(np.float64) ** 2)))


def speed(found: dict[str, Render]) -> list[rows.Row]:
    """Measure paths a second, and the time to an error against each one's own converged image."""
    samples = 64  # of each, in one launch
    seconds = rows.interleaved(
        {name: partial(lambda f: rows.seconds(lambda: f(samples, 1)), f) for name, f in found.items()}, 7
    )
    rates = {name: samples * SIZE * SIZE / seconds[name] / 1e6 for name in found}
    cell = {"scene": "Cornell box", "size": SIZE, "depth": DEPTH, "samples": samples, "threads": THREADS}
    measured = [rows.Row("paths", cell, "M/s", rates["compiled"], {n: r for n, r in rates.items() if n != "compiled"})]

    # The error at n samples is e / sqrt(n), so the time to an error is that of (e / error)^2 samples. Each is compared
    # with its own converged image; both of Mitsuba have the same, and Numba has ours, as its paths are the same.
    truths = {"compiled": found["compiled"](4096, 99)}
    target, times = rmse(found["compiled"](samples, 1), truths["compiled"]), {}
    for name, render in found.items():
        if name.startswith("listed"):
            continue
        family = "Mitsuba llvm_ad_rgb" if "Mitsuba" in name and "Mitsuba llvm_ad_rgb" in found else name
        if name == "Numba":
            family, same = "compiled", rmse(render(16, 1), found["compiled"](16, 1))
            assert same < 1e-3, same
        if family not in truths:
            truths[family] = found[family](1024, 99)
        error = statistics.median(rmse(render(samples, seed), truths[family]) for seed in (1, 2, 3))
        times[name] = (error / target) ** 2 * seconds[name]
        print(f"  {name}: RMSE {error:.4f} at {samples} samples, so {error * samples**0.5:.3f} / sqrt(samples)")
    mine = times.pop("compiled")
    measured.append(rows.Row("time to equal error", cell | {"RMSE": round(target, 4)}, "s", mine, times))
    for name, image in truths.items():
        if name != "compiled":
            compare(name, truths["compiled"], image)
    return measured


def compare(name: str, a: Image, b: Image) -> None:
    """Print how two converged images differ: relative RMSE, and the mean colours of 8 x 8 regions."""
    regions = [image.reshape(8, SIZE // 8, 8, SIZE // 8, 3).mean(axis=(1, 3)) for image in (a, b)]
    most = float(np.max(abs(regions[0] - regions[1]) / np.maximum(regions[1], 0.01)))
    print(f"  beside {name}: relative RMSE {rmse(a, b) / float(b.mean()):.4f}, regions differ by at most {most:.2%}")
    assert most < 0.01, (name, most)


@cache
def operations() -> float:
    """Return the floating-point operations of a path through the box, counted by a type of number that counts."""
    own = Path(__file__).parent / "path_tracer_count"
    with tempfile.TemporaryDirectory() as place:
        for file in [*own.iterdir(), *(PROJECT / "path_tracer").glob("*.h")]:
            shutil.copy(file, place)
        lanes = Path(place, "lanes.h")
        shared = lanes.read_text().partition("HD F same(float x)")[2].partition("\n")[2]
        lanes.write_text('#pragma once\n#include "counted.h"\n' + shared)
        kernel = dm.Kernel("count", root=place, axes=[dm.int_axis("features", "FEATURES", [0])])
        out = np.zeros(2)
        kernel.load(features=0).count(BOX.camera.array(64, 64), out, 16)
    return float(out[0])


def share_of_limit(compiled: Render) -> list[rows.Row]:
    """Measure the share of the machine's multiply-adds, in turns with them. Memory is idle: a path reads none."""
    samples = 64
    found = rows.interleaved(
        {
            "limit": lambda: limits.fma_rate("float32", THREADS, 1),
            "paths": lambda: SIZE * SIZE * samples / rows.seconds(lambda: compiled(samples, 1)),
        },
        7,
    )
    rate = found["paths"] * operations()
    print(f"  {operations():.0f} operations a path; {rate / 1e9:.0f} of {found['limit'] / 1e9:.0f} GFLOP/s")
    cell = {"operations a path": round(operations()), "threads": THREADS}
    return [rows.Row("share of multiply-adds", cell, "", rate / found["limit"])]


FIRST = {
    "renderer": """import sys, time; sys.path[:0] = {paths}
import path_tracer as pt
r = pt.Renderer(pt.cornell_box(), {size}, {size}, wait={wait}); r.render(1); r.image; print(time.time())
while not r.specialized: r.render(1)
r.render(1); print(time.time(), r.samples)
""",
    "Numba": """import sys, time; sys.path[:0] = {paths}
import numpy as np
from path_tracer_numba import render
f = np.zeros(({size}, {size}, 3), np.float32)
render(f, np.array({camera}, np.float32), 0, 1, 0, 8); print(time.time())
""",
    "Mitsuba scalar_rgb": """import time; import mitsuba as mi; mi.set_variant("scalar_rgb"); import numpy as np
import drjit; drjit.set_thread_count({threads})
np.array(mi.render(mi.load_dict(mi.cornell_box()), spp=1)); print(time.time())
""",
    "Mitsuba llvm_ad_rgb": """import time; import mitsuba as mi; mi.set_variant("llvm_ad_rgb"); import numpy as np
import drjit; drjit.set_thread_count({threads})
np.array(mi.render(mi.load_dict(mi.cornell_box()), spp=1)); print(time.time())
""",
}


def first_images(found: dict[str, Render], listed: Path, all_of_it: Path) -> list[rows.Row]:
    """Measure the time from the start of an interpreter to the first image, from stores and caches that are empty.

    listed, all_of_it: what was built ahead, the kernel that reads any scene, and the declared set.
    """
    changes = []

    def first(name: str, wait: bool = False, ahead: Path | None = None) -> float:
        with tempfile.TemporaryDirectory() as empty:
            env = {**os.environ, "DIMORPH_STORE": f"{empty}/store", "NUMBA_CACHE_DIR": f"{empty}/numba", "HOME": empty}
            env |= {"PYTHONPATH": str(ROOT / "src"), "DIMORPH_LOG": "off"}
            env |= {"DIMORPH_SHARED_STORES": str(ahead)} if ahead else {}
            paths = [str(PROJECT), str(Path(__file__).parent)]
            code = FIRST[name].format(paths=paths, size=SIZE, wait=wait, camera=CAMERA.tolist(), threads=THREADS)
            start = time.time()
            words = rows.python(code, env=env).split()
        if ahead == listed:
            changes.append((float(words[1]) - start, int(words[2])))
        return float(words[0]) - start

    subjects: dict[str, Callable[[], float]] = {
        "listed ahead": partial(first, "renderer", ahead=listed),
        "compiled on demand": partial(first, "renderer", wait=True),
        "compiled ahead": partial(first, "renderer", wait=True, ahead=all_of_it),
    }
    subjects |= {name: partial(first, name) for name in found if name in FIRST}
    times = rows.interleaved(subjects, 3)
    changed, samples = (statistics.median(values) for values in zip(*changes, strict=True))
    cell = {"by": "the kernel for any scene", "threads": THREADS}
    return [
        rows.Row("first image, cold", cell, "s", times.pop("listed ahead"), times),
        rows.Row("renderer: compiled scene", {"samples by then": samples, "threads": THREADS}, "s", changed),
    ]


def ahead_of_time(out: Path, **values: object) -> list[rows.Row]:
    """Measure the set for this CPU, built from nothing: the seconds, and the bytes of its shared objects."""
    with tempfile.TemporaryDirectory() as store:
        config = replace(dm.settings.current(), store=Path(store))
        seconds = rows.seconds(lambda: pt.KERNEL.build(out, settings=config, targets=["x86-64-v4"], **values))
    size = sum(file.stat().st_size for file in out.rglob("*.so")) / 1e3
    cell = {"specializations": sum(1 for _ in pt.KERNEL.instantiations(**values))}
    return [rows.Row("built ahead: time", cell, "s", seconds), rows.Row("built ahead: size", cell, "kB", size)]


def on_gpu() -> list[rows.Row]:
    """Measure paths a second on the current GPU, for several blocks, and for threads that share a pixel's paths."""
    import torch

    box = pt.cornell_box(asarray=partial(torch.asarray, device="cuda"))
    assert box.listed
    name, measured = torch.cuda.get_device_name(), []
    blocks = [(block, split) for block in (64, 128, 256) for split in (1, 4, 16) if block >= 8 * split]
    ways = {"compiled": (0, box.compiled, blocks), "listed": (3, box.listed, [(128, 1), (128, 4)])}
    for way, (features, scene, some) in ways.items():
        for block, split in some:
            module = pt.KERNEL_GPU.load(features=features, scene=scene.variant, block=block, split=split)
            for size, samples in ((256, 256), (1024, 64)):
                camera, film = BOX.camera.array(size, size), torch.zeros(size, size, 3, device="cuda")
                call = partial(module.render, film, camera, 0, samples, 1, DEPTH, features, scene.variant.name)
                rate = size * size * samples / gpu_seconds(partial(call, *scene.args)) / 1e6
                cell = {"scene": way, "size": size, "block": block, "split": split}
                measured.append(rows.Row("paths, GPU", cell, "M/s", rate, device=name))
                flops = rate * operations() / 1e6
                print(f"  {way} {size} block {block} split {split}: {rate:.0f} M/s, {flops:.2f} TFLOP/s", flush=True)
    return measured


def gpu_seconds(call: Callable[[], object]) -> float:
    """Return the median seconds of a call on the GPU."""
    import torch

    call()
    times = []
    for _ in range(7):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(float(begin.elapsed_time(end)) * 1e-3)
    return statistics.median(times)


def main() -> None:
    if sys.argv[1:] == ["gpu"]:
        rows.write("path_tracer", on_gpu())
        return
    found = renderers()
    measured = speed(found) + share_of_limit(found["compiled"])
    with tempfile.TemporaryDirectory() as place:
        listed, all_of_it = Path(place, "listed"), Path(place, "all")
        measured += ahead_of_time(all_of_it)
        ahead_of_time(listed, features=3, scene=pt.kernels.LISTED)
        measured += first_images(found, listed, all_of_it)
    rows.write("path_tracer", measured)


if __name__ == "__main__":
    main()
