"""The directive `variant-list`: every built-in variant of attention with the text under its declaration."""

import sys

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

from dimorph import Variant, attention


def texts() -> dict[str, list[str]]:
    """Name of each public variant -> the lines under its declaration, whichever module of attention declares it."""
    modules = sorted(name for name in sys.modules if name.startswith("dimorph.attention"))
    documented = {
        name: lines
        for module in modules
        for (owner, name), lines in ModuleAnalyzer.for_module(module).find_attr_docs().items()
        if not owner
    }
    return {name: documented[name] for name in attention.__all__ if isinstance(getattr(attention, name), Variant)}


class VariantList(SphinxDirective):
    """One entry for each variant."""

    def run(self) -> list[nodes.Node]:
        lines = [f".. py:currentmodule:: {attention.__name__}", ""]
        for name, text in texts().items():
            lines += [f".. py:data:: {name}", "   :type: dimorph.Variant", ""]
            # A formula's |x| is no substitution.
            lines += [*(f"   {line}".replace("|", r"\|") for line in text), ""]
        content = nodes.Element()
        self.state.nested_parse(StringList(lines, source="variant-list"), self.content_offset, content)
        return content.children


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("variant-list", VariantList)
    return {"parallel_read_safe": True}
