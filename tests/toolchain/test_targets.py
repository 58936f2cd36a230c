"""Target levels: their names, the CPU features they need, and the levels that a CPU runs."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from dimorph.errors import ToolchainError
from dimorph.toolchain import process, targets

_V2 = "fpu sse sse2 ht pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm"
_V3 = f"{_V2} avx avx2 bmi1 bmi2 f16c fma abm movbe xsave xsaveopt"
_V4 = f"{_V3} avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni"
_ARM = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_NEOVERSE_V1 = f"{_ARM} atomics fphp asimdhp asimdrdm jscvt fcma lrcpc dcpop asimddp sve i8mm svebf16 bf16"

# Macro that a compiler defines for a feature -> Linux's name of the feature.
_X86_MACROS = {
    "__GCC_HAVE_SYNC_COMPARE_AND_SWAP_16": "cx16",
    "__LAHF_SAHF__": "lahf_lm",
    "__SSE3__": "pni",
    "__BMI__": "bmi1",
    "__LZCNT__": "abm",
    "__AVX512BF16__": "avx512_bf16",
    **{
        f"__{name.upper()}__": name
        for name in (
            *("popcnt", "ssse3", "sse4_1", "sse4_2", "avx", "avx2", "bmi2", "f16c", "fma", "movbe", "xsave"),
            *("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
        )
    },
}
_X86_ALWAYS = {"__SSE__", "__SSE2__", "__SSE_MATH__", "__SSE2_MATH__", "__MMX__", "__FXSR__", "__MMX_WITH_SSE__"}
_X86_FEATURE = re.compile(
    r"__(?:MMX|SSE|SSSE|AVX|FMA|F16C|BMI|LZCNT|MOVBE|XSAVE|POPCNT|LAHF|FXSR|TBM|ADX|AES|SHA|VAES|GFNI|PCLMUL"
    r"|VPCLMUL|RDRND|RDSEED|PRFCHW|XOP|EVEX)\w*__$|__GCC_HAVE_SYNC_COMPARE_AND_SWAP_16$"
)
_ARM_MACROS = {
    "__ARM_NEON": "asimd",
    "__ARM_FEATURE_CRC32": "crc32",
    "__ARM_FEATURE_ATOMICS": "atomics",
    "__ARM_FEATURE_QRDMX": "asimdrdm",
    "__ARM_FEATURE_FP16_SCALAR_ARITHMETIC": "fphp",
    "__ARM_FEATURE_FP16_VECTOR_ARITHMETIC": "asimdhp",
    "__ARM_FEATURE_DOTPROD": "asimddp",
    "__ARM_FEATURE_BF16": "bf16",
    "__ARM_FEATURE_MATMUL_INT8": "i8mm",
}

Cpu = Callable[[str, str | None], None]


@pytest.fixture
def cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cpu:
    """Pretend to be another CPU: machine name and /proc/cpuinfo (None: there is none)."""

    def pretend(machine: str, cpuinfo: str | None) -> None:
        path = tmp_path / "cpuinfo"
        if cpuinfo is not None:
            path.write_text(cpuinfo)
        monkeypatch.setattr(targets, "_CPUINFO", path)
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))

    return pretend


def _runnable() -> list[str]:
    # Without the cache, which has the answer for the real CPU.
    return [target.name for target in targets.runnable.__wrapped__()]


def _x86(flags: str) -> str:
    return f"processor\t: 0\nvendor_id\t: Some\nflags\t\t: {flags}\nbugs\t\t: none\n\n"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (f"{_V4} avx512_bf16 amx_bf16", ["x86-64-v4-bf16", "x86-64-v4", "x86-64-v3", "x86-64-v2"]),
        (_V4, ["x86-64-v4", "x86-64-v3", "x86-64-v2"]),
        (_V4.replace(" avx512vl", ""), ["x86-64-v3", "x86-64-v2"]),
        (_V3, ["x86-64-v3", "x86-64-v2"]),
        (_V3.replace(" fma", ""), ["x86-64-v2"]),
        (_V2, ["x86-64-v2"]),
    ],
)
def test_x86_levels_best_first(cpu: Cpu, flags: str, expected: list[str]) -> None:
    cpu("x86_64", _x86(flags))
    assert _runnable() == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [(_NEOVERSE_V1, ["armv8-bf16", "armv8"]), (f"{_ARM} atomics fphp asimdhp asimddp", ["armv8"])],
)
def test_arm_levels_best_first(cpu: Cpu, flags: str, expected: list[str]) -> None:
    cpu("aarch64", f"processor\t: 0\nBogoMIPS\t: 2100.00\nFeatures\t: {flags}\nCPU part\t: 0xd40\n\n")
    assert _runnable() == expected


def test_only_the_first_processor_counts(cpu: Cpu) -> None:
    cpu("x86_64", _x86(_V2) + _x86(_V4))
    assert _runnable() == ["x86-64-v2"]


@pytest.mark.parametrize("cpuinfo", [None, "", "processor\t: 0\nBogoMIPS\t: 50.00\n\n"])
def test_an_unreadable_cpu_runs_the_baseline(cpu: Cpu, cpuinfo: str | None) -> None:
    cpu("x86_64", cpuinfo)
    assert _runnable() == ["x86-64-v2"]


def test_a_cpu_below_the_baseline_is_an_error(cpu: Cpu) -> None:
    cpu("x86_64", _x86("fpu sse sse2 pni cx16 lahf_lm"))
    with pytest.raises(ToolchainError, match=r"lacks popcnt, sse4_1, sse4_2, ssse3, .*x86-64-v2"):
        _runnable()


@pytest.mark.parametrize(
    ("flags", "level", "words"),
    [
        (_V3.replace(" movbe", ""), "x86-64-v2", "the system hides movbe, needed by x86-64-v3"),
        (_V4.replace(" avx512bw", ""), "x86-64-v3", "the system hides avx512bw, needed by x86-64-v4"),
        (f"{_V2} hypervisor", "x86-64-v2", "virtual machine has a CPU model without AVX2"),
    ],
)
def test_features_that_the_system_hides_are_told(cpu: Cpu, flags: str, level: str, words: str) -> None:
    cpu("x86_64", _x86(flags))
    with pytest.warns(RuntimeWarning, match=f"{words}.*compiled for {level}"):
        assert _runnable()[0] == level


def test_features_that_cannot_be_read_are_told(cpu: Cpu) -> None:
    cpu("aarch64", None)
    with pytest.warns(RuntimeWarning, match="cannot be read .*compiled for armv8,"):
        assert _runnable() == ["armv8"]
    cpu("x86_64", _x86("fpu sse sse2 hypervisor"))
    with pytest.raises(ToolchainError, match="this virtual machine may hide them"):
        _runnable()


@pytest.mark.parametrize("flags", [_V4, _V3, f"{_V3} hypervisor", _V2, f"{_V2} avx f16c xsave"])
def test_a_cpu_that_hides_nothing_is_no_reason_to_warn(cpu: Cpu, flags: str, recwarn: pytest.WarningsRecorder) -> None:
    cpu("x86_64", _x86(flags))
    assert _runnable()
    assert len(recwarn) == 0


def test_a_machine_without_named_levels_has_one(cpu: Cpu) -> None:
    cpu("riscv64", "processor\t: 0\nisa\t\t: rv64imafdc\n\n")
    assert _runnable() == ["riscv64"]
    assert targets.by_name("riscv64").flags == ()


def test_this_machine_runs_its_baseline() -> None:
    found = targets.runnable()
    assert found[-1] == targets.levels()[-1]
    assert targets.runnable() is found


def test_names_lead_to_levels() -> None:
    known = [*targets.levels("x86_64"), *targets.levels("aarch64")]
    assert [targets.by_name(target.name) for target in known] == known
    assert len({target.name for target in known}) == len(known)


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(ToolchainError, match=r"x86-64-v4-bf16, .*armv8-bf16, armv8.*got 'native'"):
        targets.by_name("native")


def test_no_level_means_this_machine() -> None:
    for target in (*targets.levels("x86_64"), *targets.levels("aarch64")):
        assert not [flag for flag in (*target.flags, *target.zig_flags) if "native" in flag]


def _macros(program: str, flags: tuple[str, ...]) -> set[str]:
    command = [program, *flags, "-dM", "-E", "-x", "c++", os.devnull]
    done = process.run(command, timeout=60, cwd=None, env={"PATH": os.environ["PATH"], "LC_ALL": "C"})
    assert done.exit_code == 0, done.output
    return {line.split()[1] for line in done.output.splitlines()}


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.mark.parametrize("target", targets.levels("x86_64"), ids=lambda target: target.name)
@pytest.mark.parametrize("name", ["g++", "clang++"])
def test_x86_code_uses_exactly_what_is_checked(name: str, target: targets.Target) -> None:
    program = _program(name)
    if name == "g++" and os.uname().machine != "x86_64":
        pytest.skip("this g++ does not compile for x86")
    flags = (*target.flags, "--target=x86_64-linux-gnu") if name == "clang++" else target.flags
    features = {macro for macro in _macros(program, flags) if _X86_FEATURE.match(macro)} - _X86_ALWAYS
    assert {_X86_MACROS.get(macro, macro) for macro in features} >= target.needs - {"lahf_lm"}
    assert {_X86_MACROS.get(macro, macro) for macro in features} <= target.needs


@pytest.mark.parametrize("target", targets.levels("aarch64"), ids=lambda target: target.name)
def test_arm_code_uses_only_what_is_checked(target: targets.Target) -> None:
    macros = _macros(_program("clang++"), (*target.flags, "--target=aarch64-linux-gnu"))
    features = {name for macro, name in _ARM_MACROS.items() if macro in macros}
    assert features <= target.needs
    assert ("bf16" in features) == ("bf16" in target.needs)
