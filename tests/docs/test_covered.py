"""Every public name, argument, result and setting is explained on a page, in prose that `grep` finds.

The reference is made from docstrings, so a search of the pages themselves finds what guides and tables name.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

import dimorph as dm
from dimorph import aot, attention, errors, settings, wheel
from support.cpp_names import declared
from support.pages import DOCS, ROOT, prose, quoted, sections

# The pages for users; those for developers and the logs are left out.
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((DOCS / "guides").glob("*.md"))]
PAGES += sorted((DOCS / "reference").glob("*.md"))

# Classes that users are given: what these have counts, not what makes them.
GIVEN = (dm.Module, dm.Axis, dm.Array, dm.Function, attention.Plan)


def public() -> dict[str, object]:
    """Return all public names, those of torch and transformers with the module's name before them."""
    torch = pytest.importorskip("dimorph.attention.torch", reason="torch is not installed")
    transformers = pytest.importorskip("dimorph.attention.transformers", reason="transformers is not installed")
    modules = {dm: dm.__all__, attention: attention.__all__, aot: aot.__all__}
    found = {name: getattr(module, name) for module, names in modules.items() for name in names}
    found |= {"settings": settings.current, "Config": wheel.Config}
    found |= {name: getattr(torch, name) for name in ("scaled_dot_product_attention", "register_variant")}
    return found | {"register": transformers.register}


def arguments(thing: object) -> Iterable[str]:
    """Yield the names of the arguments that a user gives to a public name."""
    if isinstance(thing, dm.Variant):
        return [param.name for param in thing.params]
    if not callable(thing) or thing in GIVEN or (inspect.isclass(thing) and issubclass(thing, Exception)):
        return []
    return inspect.signature(thing).parameters


def members(thing: object) -> Iterator[str]:
    """Yield the fields and properties of a public class, and the attributes of an exception."""
    if not inspect.isclass(thing):
        return
    if is_dataclass(thing):
        yield from (field.name for field in fields(thing) if not field.name.startswith("_"))
    if thing is not dm.Axis:  # its other members are for those who add a kind of axis
        yield from (name for name, value in inspect.getmembers(thing) if isinstance(value, property))
    if thing.__module__ == errors.__name__ and "__init__" in vars(thing):
        yield from (name for name in inspect.signature(thing).parameters if name != "message")


def lacking(name: str, words: Iterable[str], texts: Iterable[str]) -> list[str]:
    """Return the words that no text quotes together with the name."""
    together = set().union(*(found for found in map(quoted, texts) if name in found))
    return [word for word in words if word not in together]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text for page in PAGES for text in sections(page)]


def test_every_public_name_is_explained(texts: list[str]) -> None:
    known = set().union(*map(quoted, texts))
    assert [name for name in public() if name not in known] == []


def test_every_argument_is_explained_beside_its_function(texts: list[str]) -> None:
    found = {name: lacking(name, arguments(thing), texts) for name, thing in public().items() if name != "Settings"}
    assert {name: words for name, words in found.items() if words} == {}


def test_every_field_and_property_is_explained_beside_its_class(texts: list[str]) -> None:
    found = {name: lacking(name, members(thing), texts) for name, thing in public().items() if name != "Settings"}
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize("verb", ["load", "build", "instantiations"])
def test_every_argument_of_a_kernels_verbs_is_explained(verb: str, texts: list[str]) -> None:
    names = [name for name in inspect.signature(getattr(dm.Kernel, verb)).parameters if name not in ("self", "values")]
    assert lacking(verb, names, texts) == []


def test_every_setting_is_explained(texts: list[str]) -> None:
    known = set().union(*map(quoted, texts))
    names = [settings.variable(field.name) for field in fields(dm.Settings)]
    assert [name for name in names if name not in known] == []


def test_what_is_said_elsewhere_does_not_count(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Kernel\n`Kernel` takes `case`.\n```python\nKernel(entry=1)\n```\n## Other\n`entry`, root\n")
    assert lacking("Kernel", ["case", "entry", "root"], sections(page)) == ["entry", "root"]


CPP = DOCS / "reference" / "cpp.md"
HEADERS = sorted((Path(dm.__file__).parent / "include" / "dimorph").glob("*.h"))
# Members that only the library's own headers use.
INNER = {
    "ConstTensor": {"call"},
    "Elements": {"data", "tensor"},
    "Extra": {"args", "call", "count", "device", "function", "names", "sink"},
    "Handle": {"object"},
    "NewHandle": {"release"},
    "NewTensor": {"release"},
    "Results": {"first", "rest"},
    "TensorMap": {"opaque"},
    "bfloat16": {"bits"},
    "half": {"bits"},
}
# Macros that only the library's own headers, generated code and builds use.
INNER_MACROS = {
    *("DIMORPH_ABI_VERSION", "DIMORPH_ARITHMETIC_TAG", "DIMORPH_DATA_TYPE", "DIMORPH_ENTRY", "DIMORPH_EXPORT_CASE"),
    *("DIMORPH_CALL_ON_PICK", "DIMORPH_CALL_ON_RESULT", "DIMORPH_CALL_ON_VOID", "DIMORPH_CASE_IS"),
    *("DIMORPH_CALL_PICK", "DIMORPH_CALL_RESULT", "DIMORPH_CALL_VOID", "DIMORPH_HOST", "DIMORPH_VISIBLE"),
    *("DIMORPH_INTEGER_ARGUMENT", "DIMORPH_INTEGER_RESULT", "DIMORPH_TEXT", "DIMORPH_TEXT_"),
}


def cpp_names() -> set[tuple[str, str]]:
    """Return class or nothing, and name, of all that the headers declare outside of `detail`."""
    found = set()
    for header in HEADERS:
        for scope, name in declared(header.read_text("utf-8")):
            outer = [part for part in scope.split("::") if part not in ("dimorph", "cuda")]
            if scope.startswith("dimorph") and "detail" not in outer and len(outer) <= 1:
                found.add(("".join(outer), name))
    return found


def test_every_cpp_name_is_explained() -> None:
    known = quoted(prose(CPP))
    names = {name for outer, name in cpp_names() if not outer}
    assert {"Tensor", "data_type", "parallel_for", "Config", "NewTensor", "bfloat16", "Size"} <= names
    assert sorted(names - known) == []


def test_every_cpp_member_is_explained_beside_its_class() -> None:
    (private,) = (text for text in prose(CPP).split("\n\n") if text.startswith("Private are"))
    members = {(outer, name) for outer, name in cpp_names() if outer and outer != name}
    assert {("ConstTensor", "numel"), ("Config", "grid"), ("Str", "size"), ("Tiles", "box")} <= members
    lines = [quoted(line) for line in prose(CPP).splitlines()]
    lost = [
        f"{outer}::{name}"
        for outer, name in sorted(members)
        if outer not in quoted(private)
        and name not in INNER.get(outer, ())
        and not any(outer in line and name in line for line in lines)
    ]
    assert lost == []


def test_every_macro_is_explained() -> None:
    text = "".join(header.read_text("utf-8") for header in HEADERS)
    macros = set(re.findall(r"^#define (DIMORPH_\w+)", text, re.MULTILINE))
    assert macros >= INNER_MACROS
    assert sorted(macros - INNER_MACROS - quoted(prose(CPP))) == []


ATTENTION = Path(dm.__file__).parent / "attention" / "include" / "dimorph" / "attention"


def test_every_name_for_variants_of_attention_is_explained() -> None:
    texts = [(ATTENTION / name).read_text("utf-8") for name in ("variants.h", "math.h", "index.h", "simd.h")]
    found = [one for text in texts for one in declared(text)]
    names = {name for scope, name in found if scope in ("dm::math", "dm::RowState")}
    names |= {name for scope, name in found if scope == "dm" and name[0].isupper() and not name.startswith("Raw")}
    names |= {name for scope, name in found if scope == "dm" and name in ("load", "diagonal")}
    assert {"sigmoid", "select", "FloatV", "TileClass", "diagonal", "sum"} <= names
    section = prose(CPP).partition("## Variants of attention")[2]
    assert sorted(names - {"Traits"} - quoted(section)) == []  # Traits: what kernels ask a variant
