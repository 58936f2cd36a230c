"""How another process finds a kernel or a variant again: by the variable that holds it, or by what a variant is."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field, replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from dimorph import _lazy, records
from dimorph.declare import sent
from dimorph.declare.variant import Param, Variant
from dimorph.errors import ArtifactCorrupt

if TYPE_CHECKING:
    from dimorph.declare.declaration import Declaration


@dataclass(frozen=True)
class Reference:
    """Ways to find a kernel or a variant again, best first. Empty is a way that does not exist.

    Attributes:
        module: `MODULE:NAME`: a module that can be imported, and the name of the kernel or the variant.
        file: `FILE:NAME`, the same by the absolute path of the module's file.
        made: the text of a `Made`, for a variant.
        why: why there are none of these, and what to do.
    """

    module: str = ""
    file: str = ""
    made: str = ""
    why: str = ""

    @property
    def text(self) -> str:
        """The value of the variant on a command line; empty if there is none."""
        return self.file or self.made


@dataclass(frozen=True)
class Made:
    """A variant by its fields.

    Attributes:
        name, header, struct, params: those of the variant.
        root: the directory of its header, relative to that of the package; absolute without one.
        package: the importable package that holds the directory; empty: none does.
        parts: of a composition, each part as a command line names it.
    """

    name: str
    header: str
    struct: str
    root: str
    package: str = ""
    params: list[Param] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The description as one value of a command line."""
        return _lazy.json.dumps({name: value for name, value in asdict(self).items() if value}, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Made:
        """Parse the text that `variant_reference` wrote.

        Raises:
            ArtifactCorrupt: it is no such text.
        """
        where = f"variant {text[:60]}"
        raw = records.decode(text, where)
        with records.errors_in(where):
            return records.parse(cls, raw, "a description of a variant")


def kernel_reference(kernel: Declaration) -> Reference:
    """Return how another process finds a kernel."""
    if found := _held(kernel, kernel.name, kernel.origin):
        return found
    if not kernel.origin.is_file():
        return Reference(why=f"no file declares it ({kernel.origin}): move its declaration into a module")
    return Reference(why=f"no variable of {kernel.origin} holds it: bind it at the module level")


def variant_reference(variant: Variant) -> Reference:
    """Return how another process finds a variant, or makes an equal one."""
    held = _held(variant, variant.name, Path(variant.declared_at.rpartition(":")[0])) or Reference()
    package, root = _inside_package(variant.root)
    parts = [variant_reference(part) for part in variant.parts]
    lacking = [f"part {part.name}: {one.why}" for part, one in zip(variant.parts, parts, strict=True) if one.why]
    if not variant.parts and not (variant.root / variant.header).is_file():
        lacking = [f"there is no header {variant.root / variant.header}: declare it in a module beside it"]
    if lacking:
        return held if held.file else Reference(why=lacking[0])
    given = () if variant.parts else variant.params
    # By its name where it lies in a package; another module may be found by this program alone.
    named = [one.module if "." in one.module else one.made or one.text for one in parts]
    made = Made(variant.name, variant.header, variant.struct, root, package, list(given), named)
    return replace(held, made=made.text)


def _held(value: object, name: str, declared_in: Path) -> Reference | None:
    """Return the module that holds a value in a variable; None if there is none.

    In a script, only a value that it declares counts: in another run its variables may hold other ones.
    """
    held = sent.holder(value, declared_in)
    if held is None:
        return None
    path, module = sent.file_of(held[0]), _import_name(held[0])
    if not path or (not module and path != declared_in):
        return None
    return Reference(module=f"{module}:{name}" if module else "", file=f"{path}:{name}")


def _import_name(module: ModuleType) -> str:
    """Return the name by which other processes can import a module; empty for a script or a file run by itself."""
    spec = getattr(module, "__spec__", None)
    name = spec.name if module.__name__ == "__main__" and spec else module.__name__
    return name if name != "__main__" and _importable(name) else ""


def _importable(name: str) -> bool:
    """Return True if another process would find the top package of a module; the loaded one may come from a path."""
    top = name.partition(".")[0]
    finders = [getattr(finder, "find_spec", None) for finder in sys.meta_path]
    return any(find(top, None) is not None for find in finders if find)


def _inside_package(directory: Path) -> tuple[str, str]:
    """Return the imported package that a directory lies in, and the way from there; without one, "" and the path."""
    specs = [(name, getattr(module, "__spec__", None)) for name, module in list(sys.modules.items())]
    packages = {
        Path(place).resolve(): name
        for name, spec in specs
        for place in (spec.submodule_search_locations or () if isinstance(spec, ModuleSpec) else ())
    }
    for parent in (directory, *directory.parents):
        if parent in packages and _importable(packages[parent]):
            return packages[parent], directory.relative_to(parent).as_posix()
    return "", str(directory)


def made_variant(made: Made, parts: list[Variant]) -> Variant:
    """Return the variant of a description, whose package is imported.

    Raises:
        ArtifactCorrupt: the package has no directory.
    """
    root = Path(made.root)
    if made.package:
        places = list(getattr(sys.modules[made.package], "__path__", ()))
        if not places:
            raise ArtifactCorrupt(f"variant {made.name}: {made.package} is no package")
        root = Path(places[0]) / made.root
    return Variant(made.name, made.header, made.struct, tuple(made.params), root, tuple(parts))
