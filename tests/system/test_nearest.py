"""The library of examples/nearest, which needs nanoflann: its trees, metrics and mistakes; it stays small."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dimorph as dm
from support.dependencies import has_pkg_config
from support.paths import EXAMPLES

pytestmark = [
    pytest.mark.skipif(
        not has_pkg_config("nanoflann"), reason="needs pkg-config and nanoflann: apt-get install libnanoflann-dev"
    ),
    pytest.mark.usefixtures("warm_store"),
]
ROOT = EXAMPLES / "nearest"


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def _random(count: int, dim: int, seed: int, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(seed).random((count, dim)).astype(dtype)


def _expected(points: np.ndarray, x: np.ndarray, k: int, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distances = np.sqrt((weights * (x[:, None] - points) ** 2).sum(-1))
    rows = distances.argsort(1)[:, :k]
    return np.take_along_axis(distances, rows, 1), rows


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("dim", [3, 5])
def test_the_nearest_points_are_found(dtype: str, dim: int) -> None:
    import nearest

    points, x = _random(500, dim, 0, dtype), _random(40, dim, 1, dtype)
    weights = np.linspace(0.25, 4, dim).astype(dtype)
    for metric, used in ((None, np.ones(dim)), (nearest.WEIGHTED(weights=weights), weights)):
        distances, rows = nearest.Index(points, metric).query(x, k=4)
        expected = _expected(points, x, 4, used)
        assert (rows == expected[1]).all()
        assert np.allclose(distances, expected[0], rtol=1e-5)


def test_both_forms_give_the_same_bits() -> None:
    import nearest

    points, x = _random(500, 3, 0), _random(40, 3, 1)
    distances, rows = nearest.Index(points).query(x, k=2)
    module, more, others = nearest.nearest.load(), np.empty_like(distances), np.empty_like(rows)
    tree = module.build(points, "Euclidean")
    module.query(tree, x, others, more)
    assert (more == distances).all() and (others == rows).all()


def test_a_tree_keeps_its_points_and_weights_until_it_ends() -> None:
    import nearest

    points, x, weights = _random(100, 3, 0), _random(5, 3, 1), np.array([1.0, 2.0, 3.0])
    before = sys.getrefcount(points), sys.getrefcount(weights)
    index = nearest.Index(points, nearest.WEIGHTED(weights=weights))
    gc.collect()
    assert sys.getrefcount(points) > before[0] and sys.getrefcount(weights) > before[1]
    expected = _expected(points, x, 1, weights)
    assert (index.query(x)[1] == expected[1]).all()
    del index
    gc.collect()
    assert (sys.getrefcount(points), sys.getrefcount(weights)) == before


def test_fewer_points_than_neighbours_and_no_number_leave_rows_empty() -> None:
    import nearest

    index = nearest.Index(_random(2, 3, 0))
    distances, rows = index.query(np.stack([np.zeros(3), np.full(3, np.nan)]), k=3)
    assert sorted(rows[0].tolist()) == [-1, 0, 1] and rows[1].tolist() == [-1, -1, -1]
    assert np.isinf(distances[0, 2]) and np.isinf(distances[1]).all()


def test_wrong_uses_are_refused() -> None:
    import nearest

    points, x = _random(100, 3, 0), _random(5, 3, 1)
    index, flat = nearest.Index(points), nearest.Index(points[:, :2].copy())
    with pytest.raises(TypeError, match=r"query: argument '?x'?: expected dtype float64, got float32"):
        index.query(x.astype("float32"))
    with pytest.raises(
        ValueError, match=r"query: argument '?x'?: expected shape \[5, 3\], here \(5, 3\), got \(5, 2\)"
    ):
        index.query(x[:, :2].copy())
    flat.tree, kept = index.tree, flat.tree
    with pytest.raises(dm.SpecializationMismatch, match=r"argument 'tree': axis dim: the handle has 3"):
        flat.query(x[:, :2].copy())
    kept.close()
    flat.tree = kept
    with pytest.raises(ValueError, match="expected an open handle"):
        flat.query(x[:, :2].copy())
    with pytest.raises(ValueError, match=r"argument '?weights'?: expected shape \[dim\], here \(3\), got \(2\)"):
        nearest.Index(points, nearest.WEIGHTED(weights=np.ones(2)))


def test_it_runs_as_it_stands_and_is_small(tmp_path: Path) -> None:
    env = {**os.environ, "DIMORPH_STORE": str(tmp_path / "store")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "nearest.py")], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "metric=Weighted): Tree>" in done.stdout, done.stderr
    files = [path for path in ROOT.iterdir() if path.suffix in (".py", ".cc", ".h")]
    assert sum(len(path.read_text().splitlines()) for path in files) < 150
