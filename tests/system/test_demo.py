"""The output and the exit status of the demo, with simple attention functions in place of Dimorph's."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import dimorph as dm
from dimorph.demo import runner
from dimorph.demo.forms import Form
from dimorph.demo.minilm import FloatArray, IntArray, MiniLM
from dimorph.demo.runner import LATER_CALLS, SENTENCES, compare
from dimorph.resolve import sealed


def mean_attention(
    q: FloatArray, k: FloatArray, v: FloatArray, *, cu_seqlens_q: IntArray, cu_seqlens_k: IntArray
) -> FloatArray:
    """Attend to every token of the sentence equally."""
    lengths = np.diff(cu_seqlens_k)
    sums = np.add.reduceat(v, cu_seqlens_k[:-1], axis=0)
    return np.repeat(sums / lengths[:, None, None].astype(np.float32), lengths, axis=0)


class StandIn:
    """Forms that count calls; the AOT form's numbers are `factor` times the JIT form's."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = np.float32(factor)
        self.directories: list[Path] = []
        self.calls = {"JIT": 0, "AOT": 0}

    def jit(self, store: Path) -> Form:
        return self._form("JIT", store, np.float32(1.0))

    def build(self, artifacts: Path) -> None:
        assert not any(artifacts.iterdir())
        (artifacts / "built").touch()

    def aot(self, artifacts: Path) -> Form:
        assert [path.name for path in artifacts.iterdir()] == ["built"]
        return self._form("AOT", artifacts, self.factor)

    def _form(self, name: str, directory: Path, factor: np.float32) -> Form:
        assert directory.is_dir()
        self.directories.append(directory)

        def attention(
            q: FloatArray, k: FloatArray, v: FloatArray, *, cu_seqlens_q: IntArray, cu_seqlens_k: IntArray
        ) -> FloatArray:
            self.calls[name] += 1
            mixed = mean_attention(q, k, v, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k)
            return mixed * factor

        return Form(attention, lambda: [f"[{name.lower()}] served {self.calls[name]} calls"])


def printed(model: MiniLM, forms: StandIn, width: int) -> tuple[int, str]:
    out = io.StringIO()
    status = compare(Console(file=out, width=width, color_system=None), model, forms)
    return status, out.getvalue()


@pytest.mark.parametrize("width", [80, 160])
def test_equal_forms_succeed_and_everything_is_shown(model: MiniLM, width: int) -> None:
    forms = StandIn()
    status, text = printed(model, forms, width)
    assert status == 0
    assert "JIT and AOT embeddings are bit-identical" in text
    for sentence in SENTENCES:
        assert sentence in text
    cosines = model.embed(SENTENCES, mean_attention) @ model.embed(SENTENCES, mean_attention).T
    for number, row in enumerate(cosines, start=1):
        cells = r"\s+".join(re.escape(f"{value:.2f}") for value in row)
        assert re.search(rf"^\s*{number}\s+{cells}\s*$", text, re.MULTILINE)
    assert re.search(r"^\s*JIT\s+-\s+\S+ ms\s+\S+ ms\s+\S+ ms\s*$", text, re.MULTILINE)
    assert re.search(r"^\s*AOT\s+\S+ s\s+\S+ ms\s+\S+ ms\s+\S+ ms\s*$", text, re.MULTILINE)


def test_every_layer_goes_through_the_form_and_is_asked_afterwards_what_served(model: MiniLM) -> None:
    forms = StandIn()
    _, text = printed(model, forms, 80)
    calls = 6 * (1 + LATER_CALLS)
    assert forms.calls == {"JIT": calls, "AOT": calls}
    # In brackets, which rich would read as markup.
    assert f"JIT  [jit] served {calls} calls" in text
    assert f"AOT  [aot] served {calls} calls" in text


@pytest.mark.parametrize("how", ["policy", "seal"])
def test_there_is_one_form_where_nothing_may_be_compiled(
    how: str, model: MiniLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    forms = StandIn()
    monkeypatch.setattr(runner, "load_model", lambda: model)
    monkeypatch.setattr(runner, "prebuilt", lambda: forms._form("AOT", Path.cwd(), np.float32(1.0)))
    monkeypatch.setattr(sealed, "_seals", [])
    if how == "policy":
        monkeypatch.setenv("DIMORPH_POLICY", "aot")
    else:
        dm.seal()
    out = io.StringIO()
    assert runner.run(Console(file=out, width=80, color_system=None)) == 0
    assert forms.calls == {"JIT": 0, "AOT": 6 * (1 + LATER_CALLS)}
    assert re.search(r"^\s*prebuilt\s+-\s+\S+ ms\s+\S+ ms\s+\S+ ms\s*$", out.getvalue(), re.MULTILINE)


def test_one_differing_bit_fails(model: MiniLM) -> None:
    status, text = printed(model, StandIn(factor=1 + 2**-22), 80)
    assert status == 1
    assert "JIT and AOT embeddings differ, by up to" in text and "identical" not in text


def test_the_directories_differ_and_are_removed(model: MiniLM) -> None:
    forms = StandIn()
    printed(model, forms, 80)
    store, artifacts = forms.directories
    assert store != artifacts and not store.exists() and not artifacts.exists()
