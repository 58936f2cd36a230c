"""Load the libraries of others that an object needs before it is loaded, and say which one is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dimorph.errors import LoadError, no_descriptors
from dimorph.store import links
from dimorph.store.artifact import Artifact


def provide(artifact: Artifact, load: Callable[[Path], object]) -> None:
    """Load the libraries that the dynamic loader would not find, or not the right ones; it knows them by name then.

    Args:
        artifact: the artifact of the object.
        load: loads a shared object.

    Raises:
        LoadError: a library is missing; the message names it and says how to install it.
        ArtifactCorrupt: the record of the libraries is malformed.
        OSError: the artifact was removed, or no file descriptor is left.
    """
    for link in links.read(artifact):
        if link.how == "system":
            continue
        path = artifact.path / link.file if link.how == "bundled" else _in_package(artifact, link)
        try:
            load(path)
        except OSError as error:
            if no_descriptors(error) or not artifact.file.exists():
                raise
            raise LoadError(f"{artifact.meta.kernel}: needs {link}, which cannot be loaded: {error}") from error


def _in_package(artifact: Artifact, link: links.Link) -> Path:
    """Return the path of a library in an installed Python package."""
    from importlib import metadata  # here, because few objects need it

    needs = f"{artifact.meta.kernel}: needs {link.file} of the Python package {link.package}"
    try:
        package = metadata.distribution(link.package)
    except metadata.PackageNotFoundError as error:
        raise LoadError(f"{needs}, which is not installed: {link.install}") from error
    path = Path(str(package.locate_file(link.path)))
    if not path.is_file():
        raise LoadError(
            f"{needs}, made with version {link.version}; version {package.version} has no {link.path}: "
            f"pip install {link.package}=={link.version}, or build it again"
        )
    return path


def missing(artifact: Artifact, error: OSError) -> str | None:
    """Return what to install where the dynamic loader did not find a library; None if the error is another one."""
    said = str(error)
    for link in links.read(artifact):
        if said.startswith(f"{link.file}: "):
            mend = link.install or f"the package that has {link.file} for your system"
            return f"the library {link.library} is missing ({said}). Install it: {mend}"
    return None
