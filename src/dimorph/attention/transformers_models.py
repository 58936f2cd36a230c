"""Refusals of transformers' models whose attention is not, or not only, what Dimorph computes."""

from __future__ import annotations

import dis
import functools
import inspect
import re
import sys
from collections.abc import Mapping
from types import FunctionType
from typing import Any

import torch
from transformers import PreTrainedModel

from dimorph.attention.transformers_eager import OR_EAGER, warn_once

NAME = "dimorph"

_ATTENTION_CLASS = re.compile(r"^class \w*Attention\w*\(nn\.Module\):", re.MULTILINE)
_TABLE_OF_CLASSES = re.compile(r"_CLASSES\[(self\.)?config\._attn_implementation\]")
# Parameters of transformers' eager functions that `attention_forward` has too, or whose meaning the mask holds.
_PARAMETERS = {"attention_mask", "dropout", "position_bias", "scaling", "sliding_window", "softcap"}
# Attributes of layers that those functions read and that reach `attention_forward` as arguments, or in shapes.
_ATTRIBUTES = {"head_dim", "num_key_value_groups", "scaling", "training"}
# Tensors that layers pass on and eager functions ignore. Any other one, such as the indices of a sparse attention, may
# take the place of a mask that the layer would have made for "eager".
_TENSORS = {
    "cache_position",
    "cu_seq_lens_k",
    "cu_seq_lens_q",
    "max_length_k",
    "max_length_q",
    "num_items_in_batch",
    "position_ids",
    "seq_idx",
}


def refuse_at_load() -> None:
    """Let models that cannot be served say so when they are made, in place of computing something else."""
    check = PreTrainedModel.get_correct_attn_implementation
    if hasattr(check, "__wrapped__"):
        return

    @functools.wraps(check)
    def checked(self: PreTrainedModel, requested_attention: str | None, *args: Any, **kwargs: Any) -> str:
        if requested_attention in (NAME, OR_EAGER) and (reason := model_refusal(type(self))) is not None:
            if requested_attention == NAME:
                raise ValueError(_message(type(self), reason))
            warn_once(type(self), reason)
            requested_attention = "eager"
        return check(self, requested_attention, *args, **kwargs)

    PreTrainedModel.get_correct_attn_implementation = checked  # type: ignore[method-assign]


def model_refusal(model: type) -> str | None:
    """Return why Dimorph cannot serve a class of models, or None if nothing is known against it."""
    for base in model.__mro__[: model.__mro__.index(PreTrainedModel)]:
        code = _source(base.__module__)
        if _TABLE_OF_CLASSES.search(code):
            return "it chooses its layers from a table of its own, in which others are missing"
        if _ATTENTION_CLASS.search(code) and "ALL_ATTENTION_FUNCTIONS.get_interface(" not in code:
            return "its layers compute attention themselves and do not ask for transformers' `AttentionInterface`"
    return None


@functools.cache
def _source(module: str) -> str:
    """Return the text of a file, or nothing if there is none, as for the classes of a notebook."""
    try:
        return inspect.getsource(sys.modules[module])
    except (KeyError, OSError, TypeError):
        return ""


def check_layer(module: torch.nn.Module, given: Mapping[str, Any], sinks: object) -> None:
    """Refuse a layer whose own attention depends on more than the arguments of `attention_forward`.

    Args:
        given: the arguments that `attention_forward` has no parameter for.
        sinks: its argument `s_aux`.

    Raises:
        NotImplementedError: a layer's argument or attribute may change the result; the message names it.
    """
    parameters, attributes = _eager(type(module))
    for name, value in given.items():
        if value is not None and (name in parameters or (isinstance(value, torch.Tensor) and name not in _TENSORS)):
            raise NotImplementedError(_message(type(module), f"its attention has an argument {name!r}"))
    for name in attributes:
        if getattr(module, name, None) is not None and not (name == "sinks" and sinks is not None):
            raise NotImplementedError(_message(type(module), f"its attention reads the attribute {name!r}"))


# Class of layers -> what its eager functions do that `attention_forward` does not: names of their parameters that it
# lacks, and of the layer's attributes they read that do not reach it.
_known: dict[type, tuple[tuple[str, ...], tuple[str, ...]]] = {}


def _eager(layer: type) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if layer not in _known:
        parameters: set[str] = set()
        attributes: set[str] = set()
        for base in layer.__mro__[: layer.__mro__.index(torch.nn.Module)]:
            for name, function in vars(sys.modules[base.__module__]).items():
                if name.endswith("eager_attention_forward") and isinstance(function, FunctionType):
                    names, read = _reads(function)
                    parameters |= names
                    attributes |= read
        _known[layer] = tuple(sorted(parameters - _PARAMETERS)), tuple(sorted(attributes - _ATTRIBUTES))
    return _known[layer]


# As torch.compiler.assume_constant_result does it: bytecode is not read in a trace.
_eager._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _reads(function: FunctionType) -> tuple[set[str], set[str]]:
    """Return the names of the parameters behind module, query, key and value, and of the module's attributes read."""
    code = function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    attributes = set()
    last = None
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and last == names[0]:
            attributes.add(instruction.argval)
        loaded = instruction.argval if instruction.opname.startswith("LOAD_FAST") else None
        last = loaded[-1] if isinstance(loaded, tuple) else loaded
    return set(names[4:]), attributes


def own_attention(layer: type, given: Mapping[str, Any]) -> FunctionType | None:
    """Return the function that a class of layers calls under "eager".

    None: there are several, or it has no parameter for a tensor that the layer passes, which may then stand for a mask
    that the layer makes for "eager" alone.

    Args:
        given: the arguments besides query, key, value and the mask.
    """
    for base in layer.__mro__[: layer.__mro__.index(torch.nn.Module)]:
        found = [
            value
            for name, value in vars(sys.modules[base.__module__]).items()
            if name.endswith("eager_attention_forward") and isinstance(value, FunctionType)
        ]
        if found:
            tensors = {name for name, value in given.items() if isinstance(value, torch.Tensor)}
            known = {"s_aux", *_TENSORS, *inspect.signature(found[0]).parameters}  # sinks are the layer's, too
            return found[0] if len(found) == 1 and tensors <= known else None
    return None


def _message(where: type, reason: str) -> str:
    return (
        f"{where.__name__}: not supported by attn_implementation={NAME!r}: {reason}; use 'eager' or 'sdpa', for a part "
        "of a model by a dict such as {'': 'dimorph', 'vision_config': 'eager'}"
    )
