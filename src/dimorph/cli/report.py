"""The report of a build as one page that needs nothing else: a template with the results of `--json` inside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from dimorph import __version__
from dimorph.cli.as_json import Object
from dimorph.store.artifact import timestamp

_TEMPLATE = Path(__file__).with_name("report.html")


def write(file: Path, kernels: Sequence[Object]) -> None:
    """Write the page.

    Args:
        file: the page.
        kernels: for each kernel, what `as_json.build` returns.

    Raises:
        OSError: the page cannot be written.
    """
    data = json.dumps({"dimorph": __version__, "created": timestamp(), "kernels": list(kernels)})
    # No text in it can end the element that holds it, or open a comment there.
    file.write_text(_TEMPLATE.read_text("utf-8").replace("@DATA@", data.replace("<", "\\u003c")), "utf-8")
