"""The page about a build: what is in it, and what a browser shows of it, with few and with many artifacts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from dimorph.cli import report
from support.cli import Run, runner
from support.skeletons import copy_skeleton
from support.skeletons import replace as edit

Data = dict[str, Any]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Data]:
    """What `--json` prints about three builds in turn: a first one, one of more values, one of a changed source."""
    place = tmp_path_factory.mktemp("report")
    root = copy_skeleton(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIMORPH_STORE", str(place / "store"))
        found = [one(runner(root), place, "head_dim=64"), one(runner(root), place, "head_dim=64,128")]
        edit(root / "affine_case.cc", "DType sum = 0;", "DType sum{};")
        found.append(one(runner(root), place, "head_dim=64"))
    return found


def one(run: Run, place: Path, values: str) -> Data:
    page = place / "report.html"
    shown = run("build", "SPEC", "dtype=float32", values, "--out", str(place / "out"), "--report", str(page), "--json")
    (kernel,) = json.loads(shown.stdout)["kernels"]
    # The page holds the same.
    assert data_of(page)["kernels"] == [kernel]
    found: Data = kernel
    return found


def data_of(page: Path) -> Data:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"))
    found: Data = json.loads(text)
    return found


def by_kind(build: Data) -> dict[str, Data]:
    return {f"{row['kind']} {row['values'].get('head_dim')}": row for row in build["artifacts"]}


def test_each_artifact_says_how_it_was_got(built: list[Data]) -> None:
    first, wider, changed = map(by_kind, built)
    assert {row["origin"] for row in first.values()} == {"compiled"}
    assert all(row["seconds"] > 0 and row["worker"] and row["began"].startswith("20") for row in first.values())
    kept = wider["case 64"]
    assert (kept["origin"], kept["seconds"], kept["worker"], kept["began"], kept["why"]) == (
        "directory",
        *[None] * 3,
        [],
    )
    assert changed["case 64"]["origin"] == "compiled"


def test_what_was_compiled_says_why(built: list[Data]) -> None:
    first, wider, changed = map(by_kind, built)
    assert first["case 64"]["why"] == ["the directory held no case of affine"]
    assert wider["case 128"]["why"] == ["the directory held no case for these values"]
    why = changed["case 64"]["why"]
    assert why[0].startswith("the directory held it with another key, ")
    assert why[1:] == ["source changed: affine_case.cc"]


def test_a_set_is_compared_with_its_build_before(built: list[Data]) -> None:
    first, wider, changed = built
    assert first["changes"] == wider["changes"] == ["this set was not built into the directory before"]
    assert changed["changes"][0] == "1 artifact built again"
    assert {"name": "head_dim", "values": ["64"]} in changed["axes"]
    assert changed["specializations"] == 1


@pytest.mark.parametrize("file", ["no/such/directory/report.html", "", "kernels.py"])
def test_a_page_that_cannot_be_written_is_told_before_anything_is_built(file: str, run: Run, tmp_path: Path) -> None:
    page = str(tmp_path / file)
    shown = run("build", "SPEC", "--out", str(tmp_path / "out"), "--report", page, code=2).output
    assert "expected a file that ends in .html, in a directory that exists" in " ".join(shown.split())
    assert not (tmp_path / "out").exists()


# What a person would look at: marks, rows and text that is not part of the page, its width, and the least contrast.
LOOK = """
const rgb = (color) => color.match(/[\\d.]+/g).map(Number);
const linear = (v) => v <= 10 ? v / 3295 : ((v / 255 + .055) / 1.055) ** 2.4;
const bright = (color) => {
  const [r, g, b] = rgb(color).map(linear);
  return .2126 * r + .7152 * g + .0722 * b;
};
const behind = (node) => {
  const color = getComputedStyle(node).backgroundColor;
  return !color.startsWith("rgb") || rgb(color)[3] === 0 ? behind(node.parentElement) : color;
};
const contrast = (node) => {
  const [x, y] = [bright(getComputedStyle(node).color), bright(behind(node))];
  return (Math.max(x, y) + .05) / (Math.min(x, y) + .05);
};
const count = (what) => document.querySelectorAll(what).length;
const all = (what) => [...document.querySelectorAll(what)];
const texts = all("p, b, span, li, summary, th, td:not(.built), label").filter((n) => n.textContent);
const found = {
  bars: count("#timeline g rect:not(.lane)"), lanes: count("#timeline rect.lane"), rows: count("#artifacts tbody tr"),
  reasons: all("#reuse summary").map((n) => n.textContent), cells: count("#coverage td.built"),
  holes: count("#coverage td.cell:not(.built)"), device: count("#device tbody tr"), alerts: count("#device td.alert"),
  images: count("img"), wide: document.documentElement.scrollWidth - innerWidth, back: bright(behind(document.body)),
  contrast: Math.min(...texts.map(contrast)), tiles: all("#tiles b").map((n) => n.textContent),
};
all("#artifacts th button")[1].click();
found.slowest = document.querySelector("#artifacts tbody td:nth-child(2)").textContent;
const search = document.querySelector("#artifacts input");
search.value = "head_dim=3,";
search.dispatchEvent(new Event("input"));
found.searched = count("#artifacts tbody tr");
document.documentElement.replaceChildren(JSON.stringify(found));
"""


def many(build: Data, cases: int) -> Data:
    """Return a build of many cases by four workers, every fifth reused, every tenth with device code, one missing."""
    case, made = by_kind(build)["case 64"], []
    for number in range(cases):
        row = deepcopy(case)
        row["values"] = {
            "dtype": "float32",
            "head_dim": str(number // 2),
            "variant": f"<img src=x>{number % 2}</script>",
        }
        row |= {"key": f"{number:064x}", "worker": f"host {number % 4}", "seconds": 1 + number / cases}
        row["began"] = (
            f"2026-01-01T{number // 4 // 1800:02}:{number // 4 // 30 % 60:02}:{number // 4 % 30 * 2:02}+00:00"
        )
        if number % 5 == 0:
            row |= {"origin": "directory", "worker": None, "began": None, "seconds": None, "why": []}
        if number % 10 == 0:
            uses = {"registers": 255, "stack": 0, "spill_stores": number % 20, "spill_loads": 0, "shared": 1024}
            row |= {"kind": "device", "target": "sm_90a", "device": [{"kernel": "attention", **uses}]}
        made.append(row)
    variants = [f"<img src=x>{n}</script>" for n in (0, 1)]
    axes = {"dtype": ["float32"], "head_dim": [str(n) for n in range(cases // 2)], "variant": variants}
    return {**build, "artifacts": made, "axes": [{"name": name, "values": values} for name, values in axes.items()]}


@pytest.mark.skipif(not BROWSER, reason="no Chromium is on PATH (apt-get install chromium)")
@pytest.mark.parametrize(("cases", "dark"), [(10, False), (1000, True)])
def test_a_browser_shows_it(cases: int, dark: bool, built: list[Data], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    report.write(page, [many(built[2], cases)])
    assert not re.search(
        r"(?:src|href)=\"|https?://(?!www\.w3\.org/2000/svg)", page.read_text("utf-8").partition("@DATA@")[0]
    )
    page.write_text(page.read_text("utf-8").replace("</body>", f"<script>{{{LOOK}}}</script></body>"), "utf-8")
    scheme = [f"--blink-settings=preferredColorScheme={int(not dark)}"]
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [BROWSER, *quiet, *scheme, "--window-size=900,1200", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    seen = json.loads(re.sub(r"<[^>]*>", "", done.stdout).strip())
    assert seen["bars"] == cases - cases // 5
    assert seen["lanes"] == 4
    assert seen["rows"] == cases
    assert seen["device"] == cases // 10
    assert seen["alerts"] == cases // 20
    assert seen["cells"] + seen["holes"] == cases
    assert seen["cells"] == cases - cases // 10
    assert seen["reasons"] == [
        f"{cases - cases // 5} artifacts compiled: source changed: affine_case.cc",
        f"{cases // 5} artifacts in the directory",
    ]
    assert seen["images"] == 0  # texts are shown as they are
    assert seen["wide"] <= 0
    assert (seen["back"] < 0.05) if dark else (seen["back"] > 0.9)
    assert seen["contrast"] > 4.5
    assert seen["tiles"][0] == str(cases)
    assert seen["slowest"] == f"{1 + (cases - 1) / cases:.2f}"
    assert seen["searched"] == 2
