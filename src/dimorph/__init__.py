"""Dimorph: C++/CUDA kernels written once, compiled just in time or ahead of time.

Importing this module touches no file, starts no process and creates no GPU context.
"""

from dimorph.declare.axes import dtype_axis, enum_axis, flag_axis, int_axis, tuple_axis, variant_axis
from dimorph.declare.axis import Axis
from dimorph.declare.dependency import Dependency, cmake_package, library, pkg_config, python_package
from dimorph.declare.instantiations import InstantiationSet, Specialization
from dimorph.declare.variant import BoundVariant, Param, Variant, scalar, tensor
from dimorph.errors import (
    ArtifactCorrupt,
    BuildError,
    BuildTimeout,
    CompilerCrashed,
    DeclarationError,
    DimorphError,
    LoadError,
    MissingSpecialization,
    SpecializationMismatch,
    StoreRefused,
    ToolchainError,
)
from dimorph.kernel import Kernel
from dimorph.resolve.notice import BuildProgress, on_build
from dimorph.resolve.sealed import Seal, seal
from dimorph.resolve.search import Resolution
from dimorph.runtime.functions import Array, Function
from dimorph.runtime.handle import Handle
from dimorph.runtime.module import Module
from dimorph.runtime.recorder import record
from dimorph.settings import Settings
from dimorph.store.artifact import VERSION
from dimorph.toolchain.nvidia_driver import gpus

__version__ = VERSION

__all__ = [
    "Array",
    "ArtifactCorrupt",
    "Axis",
    "BoundVariant",
    "BuildError",
    "BuildProgress",
    "BuildTimeout",
    "CompilerCrashed",
    "DeclarationError",
    "Dependency",
    "DimorphError",
    "Function",
    "Handle",
    "InstantiationSet",
    "Kernel",
    "LoadError",
    "MissingSpecialization",
    "Module",
    "Param",
    "Resolution",
    "Seal",
    "Settings",
    "Specialization",
    "SpecializationMismatch",
    "StoreRefused",
    "ToolchainError",
    "Variant",
    "cmake_package",
    "dtype_axis",
    "enum_axis",
    "flag_axis",
    "gpus",
    "int_axis",
    "library",
    "on_build",
    "pkg_config",
    "python_package",
    "record",
    "scalar",
    "seal",
    "tensor",
    "tuple_axis",
    "variant_axis",
]
