"""A mistake of a kernel author: an edit of the skeleton example, and patterns of the message about it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from support.skeletons import replace

ENTRY, CASE, SCALE, PYTHON = "affine.cc", "affine_case.cc", "scale.h", "skeleton.py"
CALL = "DIMORPH_CALL(affine)(x, y, extra)"
DISPATCH = f"DISPATCH_head_dim(x.size(1), HEAD_DIM, {CALL})"
SIGNATURE = "void affine(ConstTensor x, Tensor y, Extra extra)"
CASE_SIGNATURE = f"{SIGNATURE} noexcept"
EXPORT = "DIMORPH_EXPORT(affine)"
PARAMS = "struct Params : AdditionalParams {"
FILL = "  if (!extra.fill(params)) return;\n"
CONSTRUCTOR = "explicit Scale(const Params& params) : scale(static_cast<Element>(params.scale)) {}"
VARIANT = 'SCALE = dm.Variant("Scale", header="scale.h", params=[dm.scalar("scale")])'
AXIS = 'dm.int_axis("head_dim", "HEAD_DIM", [64, 128, 256], accepts=lambda d: d % 8 == 0)'
KERNEL = "affine = dm.Kernel("
DTYPES = 'dm.dtype_axis("dtype", "DType", ["float32", "float64"])'


class Mistake(NamedTuple):
    """A mistake.

    Attributes:
        edits: (file, old, new), each a replacement of the only occurrence of `old`; of nothing, the text of a new file.
        place: (file, text): the message names the file and the number of the only line with the text.
        cause: pattern of the cause.
        cure: pattern of the cure.
        form: `specialized`, `dispatching` or `call` (the dispatching form, called once).
    """

    edits: tuple[tuple[str, str, str], ...]
    place: tuple[str, str]
    cause: str
    cure: str
    form: str = "specialized"

    def make(self, root: Path) -> str:
        """Make the mistake in a copy of the skeleton; return `path:line` of its place."""
        for file, old, new in self.edits:
            if old:
                replace(root / file, old, new)
            else:
                (root / file).write_text(new)
        name, text = self.place
        lines = (root / name).read_text().splitlines()
        found = [number for number, line in enumerate(lines, 1) if text in line]
        assert found, f"{name}: no line with {text!r}"
        return f"{root / name}:{found[0]}"


def mistake(
    file: str, old: str, new: str, cause: str, cure: str, *, at: object = None, form: str = "specialized"
) -> Mistake:
    """Return a mistake of one edit, at the first line of its new text unless `at` is (file, text)."""
    place = at if isinstance(at, tuple) else (file, str(at or new.splitlines()[0]))
    return Mistake(((file, old, new),), place, cause, cure, form)
