"""Prove that what a record of use names was built: every key is computed from the present sources and searched for."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from dimorph.aot import recorded
from dimorph.aot.recorded import Found
from dimorph.declare.instantiations import InstantiationSet
from dimorph.declare.variant import Variant
from dimorph.errors import DeclarationError, DimorphError, ToolchainError, counted
from dimorph.plan.key import FFI_ABI
from dimorph.plan.load_plan import declared_archs
from dimorph.plan.pool import pool_unit
from dimorph.plan.unit import Unit, case_unit, device_unit, entry_unit
from dimorph.resolve.near import near
from dimorph.settings import Settings, current
from dimorph.source.include_scan import Files
from dimorph.store import manifest, use
from dimorph.store.artifact import Artifact
from dimorph.store.layers import PACKAGED, Layer, built_store
from dimorph.store.manifest import Built
from dimorph.store.use import Use
from dimorph.toolchain import archs as architectures
from dimorph.toolchain import targets as levels
from dimorph.toolchain.archs import Arch


@dataclass(frozen=True)
class Case:
    """One line of a record, for one target level.

    Attributes:
        use: the line.
        target: the target level.
        archs: of a case with device code, the GPU architectures.
        served: the directories or wheels that have all of it; None if something is missing.
        artifacts: the artifacts that serve.
        why: what is missing, and how its key differs from those that are there.
    """

    use: Use
    target: str
    archs: tuple[str, ...]
    served: str | None
    artifacts: tuple[Artifact, ...]
    why: tuple[str, ...]

    @property
    def size(self) -> int:
        """The size of the artifacts, in bytes."""
        return _size(self.artifacts)


@dataclass(frozen=True)
class Proof:
    """The result of `cover`.

    Attributes:
        cases: each line of the record, for each target level.
        problems: lines whose kernel or variant is not found again, and why.
    """

    cases: tuple[Case, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True if everything that was recorded is served."""
        return not self.problems and all(case.served for case in self.cases)

    def __str__(self) -> str:
        served = [case for case in self.cases if case.served]
        lines = [_line(case) for case in self.cases] + [f"problem: {line}" for line in self.problems]
        # Loads share entries, and cases the thread pool.
        size = _size({artifact.path: artifact for case in served for artifact in case.artifacts}.values())
        return "\n".join(
            [
                *lines,
                f"{len(served)} of {counted(len(self.cases), 'entry or case', 'entries and cases')} "
                f"served, {size / 1000:.0f} kB",
            ]
        )


def cover(
    record: Path | str,
    places: Sequence[Path | str],
    *,
    targets: Sequence[str] | None = None,
    archs: Sequence[str] | None = None,
) -> Proof:
    """Prove that directories or wheels serve everything that a record of use names; needs no compiler and no GPU.

    Args:
        record: the record.
        places: wheels, directories that were built into, and directories of packages.
        targets: names of target levels; default: those that were recorded.
        archs: names of GPU architectures; default: those that were recorded.

    Raises:
        ArtifactCorrupt: the record, or a manifest, cannot be parsed.
        ToolchainError: a target level or architecture is unknown.
        DimorphError: a place is neither a wheel nor a directory that was built into.
        OSError: a file cannot be read.
    """
    for name in targets or ():
        levels.by_name(name)
    found, problems = recorded.find(use.read(Path(record)))
    with _layers(places, found) as layers:
        search = _Search(layers, [architectures.by_name(name) for name in archs or ()])
        cases = [search.case(one, name) for one in found for name in (targets or [one.use.target])]
    return Proof(tuple(cases), tuple(problems))


def _size(artifacts: Iterable[Artifact]) -> int:
    return sum(record.size for artifact in artifacts for record in artifact.meta.files.values())


def _line(case: Case) -> str:
    what = f"{case.use.label}, {case.target}"
    if case.archs:
        what += f", {', '.join(case.archs)}"
    if case.served:
        return f"served: {what}: {case.served}, {case.size / 1000:.0f} kB, {case.use.seconds:.2f} s saved"
    return "\n".join([f"missing: {what}", *(f"  {line}" for line in case.why)])


@contextmanager
def _layers(places: Sequence[Path | str], found: Sequence[Found]) -> Iterator[list[Layer]]:
    roots = list(dict.fromkeys(one.wanted.kernel.root for one in found))
    with tempfile.TemporaryDirectory(prefix="dimorph-") as temporary:
        layers = []
        for number, place in enumerate(map(Path, places)):
            built = [place]
            if place.is_file():
                built = _unpacked(place, Path(temporary, str(number)))
            elif not (place / manifest.NAME).is_file():
                built = sorted(path.parent for path in place.rglob(f"{PACKAGED}/{manifest.NAME}"))
            if not built:
                raise DimorphError(
                    f"{place}: expected a wheel or a directory that was built into, got one without a {manifest.NAME}"
                )
            layers += [Layer(str(place), built_store(path, roots, writable=False), True) for path in built]
        yield layers


def _unpacked(wheel: Path, directory: Path) -> list[Path]:
    """Unpack what was built ahead in a wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if PACKAGED in PurePosixPath(name).parts]
            archive.extractall(directory, names)
    except zipfile.BadZipFile as error:
        raise DimorphError(f"{wheel}: expected a wheel or a directory: {error}") from error
    for path in directory.rglob("*"):  # a store that others can write is refused, and a umask may let them
        path.chmod(0o755 if path.is_dir() else 0o644)
    return sorted(path.parent for path in directory.rglob(f"{PACKAGED}/{manifest.NAME}"))


class _Search:
    """The search for what a record names, in some directories."""

    def __init__(self, layers: Sequence[Layer], archs: Sequence[Arch]) -> None:
        self._layers = layers
        self._archs = archs
        self._files = Files()
        self._built = [manifest.read(layer.store) for layer in layers]
        roots = [layer.store.root for layer in layers]
        # Key -> the directory whose manifest lists it.
        self._listed = {key: root for root, one in zip(roots, self._built, strict=True) for key, _ in one.rows()}
        self._settings = current()
        self._found: dict[str, tuple[Layer, Artifact] | None] = {}
        self._wider: dict[tuple[object, ...], str] = {}
        self._held = [_Held(layer) for layer in layers]

    def case(self, one: Found, target: str) -> Case:
        """Search for everything that a line needs."""
        flags = tuple(one.use.cxxflags)
        settings = replace(self._settings, debug=one.use.debug, cxxflags=flags, target=target, arch=None)
        # Most loads are served by an entry for more values, which is found without a scan of the sources.
        if one.use.kind == "entry" and (wider := self._find_wider(one.wanted, settings)):
            return Case(one.use, target, (), wider[0].name, (wider[1],), ())
        served: list[tuple[Layer, Artifact]] = []
        why: list[str] = []
        try:
            for unit in self._units(one):
                if here := self._find(_key(unit, settings)):
                    served.append(here)
                else:
                    why += self._why(unit, settings)
        except (DeclarationError, ToolchainError) as error:  # a source is gone, or an architecture is not supported
            why.append(str(error))
        places = ", ".join(dict.fromkeys(layer.name for layer, _ in served))
        archs = tuple(arch.name for arch in self._archs) if one.use.archs and self._archs else tuple(one.use.archs)
        return Case(one.use, target, archs, None if why else places, tuple(one for _, one in served), tuple(why))

    def _units(self, one: Found) -> list[Unit]:
        if one.use.kind == "entry":
            units = [entry_unit(one.wanted, self._files)]
        else:
            case = next(iter(one.wanted))
            units = [case_unit(case, self._files)]
            if case.kernel.device:
                named = self._archs or [architectures.by_name(name) for name in one.use.archs]
                declared, what = declared_archs(case), f"kernel {case.kernel.name} ({case})"
                wanted = architectures.admitted(named, declared, what) if named else declared
                device = device_unit(case, wanted, self._files)
                units += [replace(device, archs=(arch,)) for arch in wanted]
        return [*units, pool_unit()] if any(unit.parallel for unit in units) else units

    def _find(self, key: str) -> tuple[Layer, Artifact] | None:
        if key not in self._found:
            found = ((layer, layer.store.find(key)) for layer in self._layers)
            serving = ((layer, one) for layer, one in found if one and one.meta.ffi_abi == FFI_ABI)
            self._found[key] = next(serving, None)
        return self._found[key]

    def _find_wider(self, wanted: InstantiationSet, settings: Settings) -> tuple[Layer, Artifact] | None:
        """Search for the entry of a set that has all values of another; loads find it in the same way."""
        variants = tuple(value for values in wanted.values for value in values if isinstance(value, Variant))
        for contents in self._built:
            for name in contents.names(wanted.kernel):
                for built in contents.kernels[name].built:
                    key = self._wider_key(built, wanted, variants, settings)
                    if key and (found := self._find(key)):
                        return found
        return None

    def _wider_key(
        self, built: Built, wanted: InstantiationSet, variants: tuple[Variant, ...], settings: Settings
    ) -> str:
        """Return the key of the entry of a set that was built; empty if the set does not hold the wanted one."""
        for axis, left in wanted.pairs():
            texts = built.values.get(axis.name, [])
            if bool(left) != bool(texts) or not {axis.text(value) for value in left} <= set(texts):
                return ""
        # Making the set takes as long as it has values, and many loads share one.
        memo = (id(built), variants, settings)
        if memo not in self._wider:
            around = manifest.holding(built.values, wanted)
            self._wider[memo] = _key(entry_unit(around, self._files), settings) if around else ""
        return self._wider[memo]

    def _why(self, unit: Unit, settings: Settings) -> Iterator[str]:
        what = f"{unit.label} for {unit.archs[0].name}" if unit.archs else unit.label
        if root := self._listed.get(_key(unit, settings)):
            yield f"{what}: {root / manifest.NAME} lists it, but it is missing or damaged: build it again into {root}"
            return
        yield f"{what} is in none of them"
        for held in self._held:
            yield from (f"  {line}" for line in held.near(unit, settings))


class _Held:
    """The artifacts of a layer, of which each missing unit is compared with the nearest."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        # By kernel and kind; and by these and the values.
        self._kinds: dict[tuple[str, str], list[Artifact]] | None = None
        self._same: dict[tuple[object, ...], list[Artifact]] = {}
        self._other_values: dict[tuple[str, str], list[str]] = {}

    def near(self, unit: Unit, settings: Settings) -> list[str]:
        """Describe what the layer holds of a unit under other keys; see `resolve.near`."""
        if self._kinds is None:
            self._kinds = {}
            for item in self._layer.store.entries():
                if isinstance(item, Artifact):
                    kind = item.meta.kernel, item.meta.kind
                    self._kinds.setdefault(kind, []).append(item)
                    self._same.setdefault((*kind, *sorted(item.meta.specialization.items())), []).append(item)
        kind = unit.kernel.name, unit.kind
        if same := self._same.get((*kind, *sorted(unit.values.items()))):
            return list(near(self._layer, unit, settings, {self._layer.store.root: same}))
        if kind not in self._other_values:
            held = {self._layer.store.root: self._kinds.get(kind, [])}
            self._other_values[kind] = list(near(self._layer, unit, settings, held))
        return self._other_values[kind]


def _key(unit: Unit, settings: Settings) -> str:
    level = unit.archs[0] if unit.archs else levels.by_name(settings.target or "")
    return unit.key(level, settings)
