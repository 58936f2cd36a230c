"""A variant of one's own, built ahead of time and served where nothing may be compiled."""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from dimorph import settings
from dimorph.attention import Attention
from dimorph.attention.kernels import attention_cpu

sys.path.insert(0, str(Path(__file__).parents[1] / "variant"))
from variant import DECAY

q, k, v = (np.ones((1, 64, 4, 64), np.float32) for _ in range(3))

with tempfile.TemporaryDirectory() as ahead:
    for few in (False, True):  # 32 queries a sequence and fewer run another case
        attention_cpu.build(ahead, dtype="float32", head_dims=(64, 64), few_queries=few, variant=DECAY)

    served = replace(settings.current(), shared_stores=(Path(ahead),), policy="aot")
    attend = Attention(settings=served)
    print(attend(q, k, v, variant=DECAY(rate=0.5)).shape)
