"""2,000 random problems against attention's definition in float64.

Each problem follows from its seed (attention_configs.py), which a failure prints with the whole problem. To run one
seed alone, with its problem printed:

    PYTHONPATH=tests python -m support.attention_check SEED

The tests run round 0, the seeds 0 to 1999; `ATTENTION_ROUND=7 ./dev test tests/attention/test_attention_random.py` runs
the seeds 14000 to 15999, which are other problems with other compositions of variants.
"""

from __future__ import annotations

import os

import pytest

from dimorph import attention as at
from support.attention_check import failures
from support.attention_configs import ROUND, config_of

NUMBER = int(os.environ.get("ATTENTION_ROUND", "0"))
CHUNKS = 20
# Neighbours share what is compiled, so that few chunks need the same.
CONFIGS = sorted(map(config_of, range(NUMBER * ROUND, (NUMBER + 1) * ROUND)), key=lambda c: repr(c.specialization))


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_100_random_problems(chunk: int, attend: at.Attention) -> None:
    size = ROUND // CHUNKS
    failed = failures(attend, CONFIGS[chunk * size : (chunk + 1) * size])
    assert not failed, f"{len(failed)} of {size} failed:\n" + "\n".join(failed)
