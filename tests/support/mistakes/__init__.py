"""Mistakes of a kernel author, each an edit of the skeleton example, with what the message about it must say."""

from __future__ import annotations

from support.mistakes.case import CASES
from support.mistakes.declaration import DECLARATIONS
from support.mistakes.entry import ENTRIES
from support.mistakes.mistake import Mistake

__all__ = ["MISTAKES", "Mistake"]

MISTAKES = {**ENTRIES, **CASES, **DECLARATIONS}
