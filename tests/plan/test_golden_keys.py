"""Golden content keys of the thread pool, the skeleton and attention's three families, which moved code must keep."""

from __future__ import annotations

import json
from pathlib import Path

from dimorph import settings
from dimorph.attention import Causal, FlashSigmoid
from dimorph.attention.kernels import attention_cpu, attention_sm80, attention_sm90
from dimorph.plan import unit as plan
from dimorph.plan.pool import pool_unit
from dimorph.toolchain import archs, targets
from dimorph.toolchain.compiler import Level
from support import skeletons

GOLDEN = Path(__file__).with_name("golden_keys.json")


def _keys() -> dict[str, str]:
    config = settings.Settings(store=Path("/unused"))
    level = targets.by_name("x86-64-v3")
    found: dict[str, str] = {}

    def add(label: str, unit: plan.Unit, level: Level) -> None:
        found[f"{label}: {unit.label}, {level.name}"] = unit.key(level, config)

    add("pool", pool_unit(), level)
    skeleton = skeletons.declared(skeletons.SKELETON)
    cases = [
        (skeleton, {}, ()),
        (skeleton, {"dtype": "float32", "head_dim": 80}, ()),
        (attention_cpu, {}, ()),
        (attention_cpu, {"dtype": "float32", "head_dims": (64, 64), "few_queries": False, "variant": Causal}, ()),
        (attention_sm80, {"dtype": "float16", "head_dims": (128, 128), "variant": FlashSigmoid}, ("sm_80", "sm_90")),
        (attention_sm90, {}, ()),
        (attention_sm90, {"dtype": "bfloat16", "head_dims": (192, 128), "variant": Causal}, ("sm_90a",)),
    ]
    for kernel, values, names in cases:
        instantiations = kernel.instantiations(**values)
        add("entry", plan.entry_unit(instantiations), level)
        for specialization in instantiations:
            add("case", plan.case_unit(specialization), level)
            for arch in map(archs.by_name, names):
                add("device", plan.device_unit(specialization, (arch,)), arch)
    return found


def test_keys_are_those_of_before() -> None:
    assert _keys() == json.loads(GOLDEN.read_text())
