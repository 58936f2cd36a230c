"""Links from pages of the site to Markdown files outside of `docs/`, which the site includes as pages of its own."""

import os
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
# File, as it stands in the repository -> the page that includes it.
PAGES = {
    "CONTRIBUTING.md": "dev/contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "dev/benchmarks.md",
    "examples/lattice_boltzmann/README.md": "gallery/lattice_boltzmann.md",
    "examples/matrix_free/README.md": "gallery/matrix_free.md",
    "examples/path_tracer/README.md": "gallery/path_tracer.md",
}


def _lead_to_pages(_: Sphinx, docname: str, source: list[str]) -> None:
    here = (DOCS / docname).parent
    for file, page in PAGES.items():
        for end in (")", "#"):
            source[0] = source[0].replace(
                f"]({os.path.relpath(ROOT / file, here)}{end}", f"]({os.path.relpath(DOCS / page, here)}{end}"
            )


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _lead_to_pages)
    return {"parallel_read_safe": True}
