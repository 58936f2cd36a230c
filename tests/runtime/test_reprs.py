"""The repr of each public object is one short line, which a notebook shows."""

from __future__ import annotations

from pathlib import Path

import dimorph as dm
from dimorph import aot
from support.kernels import PICK

WIDE = dm.Kernel(
    name="wide",
    entry="wide.cc",
    case=["wide_case.cc"],
    axes=[
        dm.int_axis("value", "VALUE", range(1000)),
        dm.dtype_axis("dtype", "DType", ["float32", "float64"]),
        dm.int_axis("tile", "TILE", [], choose=lambda values: 64),
    ],
)
VARIANT = dm.Variant("Scale", header="scale.h", params=[dm.scalar("scale"), dm.tensor("bias", "float32")])


def test_declarations_say_their_axes_and_how_many_combinations_there_are() -> None:
    values = "value={0, 1, 2, 3, ..., 999}, dtype={float32, float64}"
    assert repr(WIDE) == f"<dimorph.Kernel wide({values}, tile=chosen) of wide.cc, 2000 combinations>"
    assert repr(WIDE.instantiations()) == f"<dimorph.InstantiationSet wide({values}): 2000 combinations>"
    one = next(iter(WIDE.instantiations(value=5, dtype="float32")))
    assert repr(one) == "<dimorph.Specialization wide(value=5, dtype=float32, tile=64)>"
    assert repr(one.alone()).endswith("tile=64): 1 combination>")
    assert repr(WIDE.axes[0]) == "<IntAxis value={0, 1, 2, 3, ..., 999}, bound as VALUE>"
    assert repr(VARIANT) == "<dimorph.Variant Scale(scale, bias)>"


def test_a_filter_is_not_counted_and_a_list_is() -> None:
    axes = [dm.int_axis("width", "WIDTH", [1, 2])]
    common = {"name": "k", "entry": "k.cc", "case": ["k_case.cc"], "axes": axes}
    filtered = dm.Kernel(**common, where=lambda values: values["width"] == 1)
    listed = dm.Kernel(**common, only=[{"width": 1}])
    for one in (filtered, filtered.instantiations()):
        assert "up to 2 combinations" in repr(one)
    for one in (listed, listed.instantiations()):
        assert "1 combination>" in repr(one)


def test_what_a_load_and_a_build_leave_is_short(warm_store: Path, tmp_path: Path) -> None:
    module = PICK.load(width=1)
    report = PICK.build(tmp_path, width=1, depth=1)
    (entry, *_) = module.resolutions
    assert repr(entry).startswith("<dimorph.Resolution pick entry") and entry.place in repr(entry)
    assert repr(report).startswith(f"<dimorph.aot.Report pick: {report.built} compiled, {report.reused} reused")
    for one in (entry, entry.unit, entry.artifact, report, aot.verify([PICK], tmp_path)):
        assert len(repr(one)) < 200 + len(str(tmp_path)), repr(one)
        assert "\n" not in repr(one)
