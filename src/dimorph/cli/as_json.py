"""The results of commands as JSON: the keys that docs/reference/cli.md documents, and scripts rely on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from dimorph.aot import Coverage, Proof, Report
from dimorph.aot.supply import Step
from dimorph.cli.doctor import Finding
from dimorph.cli.explain import Verdict
from dimorph.cli.ide import Written
from dimorph.declare.axis import Axis
from dimorph.declare.instantiations import InstantiationSet
from dimorph.declare.variant import Variant
from dimorph.store.artifact import Artifact
from dimorph.store.store import Broken, Usage, is_content_error
from dimorph.store.use import Use

Object = dict[str, Any]


def artifact(found: Artifact) -> Object:
    meta = found.meta
    return {
        "path": str(found.path),
        "kernel": meta.kernel,
        "kind": meta.kind,
        "values": dict(meta.specialization),
        "target": meta.target,
        "compiler": meta.toolchain,
        "key": meta.key,
        "created": meta.created,
        "bytes": sum(record.size for record in meta.files.values()),
    }


def build(done: Report) -> Object:
    return {
        "kernel": done.kernel,
        "out": str(done.out),
        "targets": list(done.targets),
        "compiled": done.built,
        "reused": done.reused,
        "removed": done.removed,
        "seconds": done.seconds,
        "changes": list(done.changes),
        "axes": [{"name": name, "values": values} for name, values in done.instantiations.texts().items()],
        "specializations": sum(1 for _ in done.instantiations),
        "artifacts": [_step(one) for one in done.steps],
    }


def _step(step: Step) -> Object:
    run, device = step.run, step.artifact.meta.device
    return {
        **artifact(step.artifact),
        "origin": step.origin,
        "worker": run.worker if run else None,
        "began": datetime.fromtimestamp(run.began, timezone.utc).isoformat() if run else None,
        "seconds": run.seconds if run else None,
        "why": list(step.why),
        "device": [{"kernel": name, **uses} for name, uses in device.kernels.items()] if device else None,
    }


def coverage(found: Coverage) -> Object:
    return {
        "ok": found.ok,
        "out": str(found.out),
        "covered": list(found.covered),
        "problems": list(found.problems),
    }


def used(one: Use) -> Object:
    return {
        "kind": one.kind,
        "kernel": one.kernel,
        "found": one.found.module or one.found.file or None,
        "values": {name: list(texts) for name, texts in one.values.items()},
        "target": one.target,
        "archs": list(one.archs),
        "origins": dict(one.origins),
        "seconds": one.seconds,
        "calls": one.calls,
    }


def proof(found: Proof) -> Object:
    return {
        "ok": found.ok,
        "cases": [
            {
                **used(case.use),
                "target": case.target,
                "archs": list(case.archs),
                "served": case.served,
                "bytes": case.size,
                "why": list(case.why),
            }
            for case in found.cases
        ],
        "problems": list(found.problems),
    }


def explanation(verdicts: Sequence[Verdict], policy: str) -> Object:
    return {
        "ok": not any(verdict.fails for verdict in verdicts),
        "policy": policy,
        "units": [
            {
                "kernel": verdict.unit.kernel.name,
                "kind": verdict.unit.kind,
                "values": dict(verdict.unit.values),
                "key": verdict.key,
                "fails": verdict.fails,
                "serves": verdict.serves,
                "artifact": artifact(verdict.artifact) if verdict.artifact else None,
                "passed": list(verdict.passed),
                "near": list(verdict.near),
            }
            for verdict in verdicts
        ],
    }


def kernel(declared: InstantiationSet) -> Object:
    """Describe a kernel with its declared values."""
    one = declared.kernel
    archs = dict.fromkeys(arch for specialization in declared for arch in specialization.archs())
    variants = [value for axis in one.axes for value in axis.values if isinstance(value, Variant)]
    return {
        "name": one.name,
        "declared_at": one.declared_at,
        "root": str(one.root),
        "entry": one.entry,
        "case": list(one.case),
        "device": list(one.device),
        "archs": list(archs),
        "axes": [_axis(axis, values) for axis, values in declared.pairs()],
        "variants": [_variant(variant) for variant in variants],
        "specializations": sum(1 for _ in declared),
    }


def _axis(axis: Axis, values: Iterable[object]) -> Object:
    return {
        "name": axis.name,
        "kind": axis.kind,
        "binds": list(axis.binds),
        "values": [axis.text(value) for value in values or axis.values],
        "accepts_more": axis.is_open,
        "chosen": axis.choose is not None,
    }


def _variant(variant: Variant) -> Object:
    return {
        "name": variant.name,
        "header": str(variant.root / variant.header),
        "params": [
            {"name": param.name, "dtype": param.dtype, "tensor": param.is_tensor, "optional": param.optional}
            for param in variant.params
        ],
    }


def finding(found: Finding) -> Object:
    return {"topic": found.topic, "state": found.state, "text": found.text, "mend": found.mend}


def written(kernel_name: str, files: Written) -> Object:
    return {
        "kernel": kernel_name,
        "database": str(files.database),
        "files": [str(file) for file in files.files],
        "kept": files.kept,
    }


def entries(found: Iterable[Artifact | Broken], usages: Iterable[Usage]) -> Object:
    used = {usage.path: usage for usage in usages}
    listed = list(found)
    whole = [one for one in listed if isinstance(one, Artifact)]
    return {
        "artifacts": [
            {**artifact(one), "last_used": used[one.path].used.isoformat() if one.path in used else None}
            for one in whole
        ],
        "broken": [broken(one) for one in listed if isinstance(one, Broken)],
        "bytes": sum(usage.size for usage in used.values()),
    }


def broken(item: Broken) -> Object:
    return {"path": str(item.path), "error": str(item.error), "rebuilt": is_content_error(item.error)}
