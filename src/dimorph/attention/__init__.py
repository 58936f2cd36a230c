"""Attention on the CPU and on GPUs, with variants: any user's struct, at full speed, in either form."""

from typing import TYPE_CHECKING

from dimorph.attention.appending import append as append
from dimorph.attention.blocks import attend_blocks as attend_blocks
from dimorph.attention.cache import KVCache as KVCache
from dimorph.attention.merging import merge_states as merge_states
from dimorph.attention.operation import Attention as Attention
from dimorph.attention.operation import attention as attention
from dimorph.attention.operation import plan as plan
from dimorph.attention.operation import run as run
from dimorph.attention.planning import Plan as Plan
from dimorph.attention.shared import attend_shared as attend_shared
from dimorph.attention.variants import builtin
from dimorph.attention.variants.builtin import *  # noqa: F403 (the list stands beside the declarations)
from dimorph.attention.variants.compose import compose as compose
from dimorph.attention.workspace import plan_size as plan_size
from dimorph.attention.workspace import workspace_size as workspace_size

if not TYPE_CHECKING:  # a type checker reads the imports, and takes no list that is computed
    __all__ = ["Attention", "KVCache", "Plan", "append", "attention", "compose"]
    __all__ += ["attend_blocks", "attend_shared", "merge_states", "plan", "plan_size", "run", "workspace_size"]
    __all__ += builtin.__all__
