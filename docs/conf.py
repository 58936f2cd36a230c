"""How the pages become a site: `python -m sphinx -W -b html docs build/docs`."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent / "src")]

import dimorph  # noqa: E402 (the sources beside these pages are documented, not an installed copy)

project = "Dimorph"
author = "the Dimorph developers"
version = release = dimorph.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "outside",
    "settings_table",
    "variant_list",
]
html_theme = "furo"
html_title = f"Dimorph {version}"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # the anchors that GitHub makes, too
smartquotes = False  # a quote may be part of what a reader copies

# Docstrings quote code as Markdown does: `like this`.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
maximum_signature_line_length = 100
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_use_ivar = True
napoleon_use_rtype = False

nitpicky = True
nitpick_ignore_regex = [
    # Pages of other projects are not looked up, so that a build needs no network. Names of Dimorph must resolve.
    ("py:.*", r"(?!dimorph).*"),
    # Types of fields that belong to private modules.
    ("py:class", r"dimorph\.[a-z_.]+\.[A-Z]\w*"),
]
