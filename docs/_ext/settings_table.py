"""The directive `settings-table`: every setting, from the fields of `dimorph.Settings` and the text under each."""

from dataclasses import MISSING, fields
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from dimorph import Settings, settings
from dimorph.cli.settings_texts import documentation


def rows() -> list[tuple[str, str, str, str]]:
    """List variable, field, default and text of each setting; the default is empty where the text says it."""
    texts = documentation()
    return [(settings.variable(f.name), f.name, _default(f.default), texts[f.name]) for f in fields(Settings)]


def _default(value: Any) -> str:
    if value is MISSING or value is None or value == ():
        return ""
    return f"`{int(value) if isinstance(value, (bool, float)) else value}`"


class SettingsTable(SphinxDirective):
    """A Markdown table of all settings."""

    def run(self) -> list[nodes.Node]:
        lines = ["| variable | field of `Settings` | default | meaning |", "|---|---|---|---|"]
        lines += [f"| `{variable}` | `{name}` | {default} | {text} |" for variable, name, default, text in rows()]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("settings-table", SettingsTable)
    return {"parallel_read_safe": True}
