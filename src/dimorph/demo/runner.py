"""The demo: embed the same sentences with both forms, and show the similarities and the times."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from dimorph.demo.forms import Form, Forms, dimorph_forms, prebuilt
from dimorph.demo.minilm import FloatArray, IntArray, MiniLM, load_model
from dimorph.resolve import sealed
from dimorph.settings import current

# Four pairs of sentences with similar meaning and different words; the table shows if the model pairs them.
SENTENCES = (
    "The cat slept on the warm windowsill all afternoon.",
    "A kitten is dozing in the sun.",
    "The central bank raised interest rates to slow inflation.",
    "Loans got more expensive after the decision to keep prices stable.",
    "Heavy rain flooded the streets of the old town.",
    "The storm left downtown under water.",
    "A compiler turns source code into machine instructions.",
    "Before a program runs, it is translated for the processor.",
)
LATER_CALLS = 10


@dataclass(frozen=True)
class _Measured:
    """One form's embeddings and times, in seconds."""

    name: str
    embeddings: FloatArray  # [len(SENTENCES), 384]
    resolution: Sequence[str]
    build: float | None  # None if nothing is built ahead of time
    first_call: float  # from the load of the form to its first embeddings
    later_call: float  # median


def run(console: Console) -> int:
    """Run the demo on the published weights and on `dimorph.attention`; see `compare`.

    Where nothing may be compiled, by the policy `aot` or a seal, there is one form: what was built ahead.

    Raises:
        ModuleNotFoundError: the weights or the packages that read them are not installed.
        DimorphError: the attention could not be built, loaded or called.
    """
    model = load_model()
    if sealed.policy(current().policy) != "aot":
        return compare(console, model, dimorph_forms())
    _show(console, [_measure("prebuilt", model, prebuilt)])
    return 0


def compare(console: Console, model: MiniLM, forms: Forms) -> int:
    """Embed `SENTENCES` with the JIT form and with the AOT form, and print a comparison.

    It prints the cosine of every two sentences, the times, the artifacts that were loaded, and if the embeddings of the
    two forms are bit-identical. Artifacts are built in a temporary directory, which is removed.

    Returns:
        The exit status: 0 if the embeddings are bit-identical, otherwise 1.
    """
    # A first run without attention starts NumPy's threads and pages the weights in, so that neither form pays for that.
    model.embed(SENTENCES, _without_attention)
    with tempfile.TemporaryDirectory(prefix="dimorph-demo-") as directory:
        store, artifacts = Path(directory, "store"), Path(directory, "artifacts")
        store.mkdir()
        artifacts.mkdir()
        console.print("Just in time: compiling at the first call ...")
        jit = _measure("JIT", model, lambda: forms.jit(store))
        console.print("Ahead of time: building the declared cases ...")
        start = time.perf_counter()
        forms.build(artifacts)
        built = time.perf_counter() - start
        aot = _measure("AOT", model, lambda: forms.aot(artifacts), built)

    _show(console, [jit, aot])
    # Compared as bytes, because with == NaN would differ from itself and 0.0 would equal -0.0.
    identical = jit.embeddings.tobytes() == aot.embeddings.tobytes()
    if identical:
        console.print("\n[green]JIT and AOT embeddings are bit-identical.[/green]")
    else:
        worst = float(np.abs(jit.embeddings - aot.embeddings).max())
        console.print(f"\n[red]JIT and AOT embeddings differ, by up to {worst:.3g}.[/red]")
    return 0 if identical else 1


def _show(console: Console, measured: Sequence[_Measured]) -> None:
    """Print the sentences, the cosine of every two of them, the times, and the artifacts that were loaded."""
    console.print()
    for number, sentence in enumerate(SENTENCES, start=1):
        console.print(f"  {number}  {sentence}", markup=False, highlight=False)
    console.print(_similarity_table(measured[0].embeddings))
    console.print(_time_table(measured))
    console.print("Loaded artifacts")
    for form in measured:
        for line in form.resolution:
            console.print(f"  {form.name}  {line}", markup=False, highlight=False)


def _without_attention(
    q: FloatArray, k: FloatArray, v: FloatArray, *, cu_seqlens_q: IntArray, cu_seqlens_k: IntArray
) -> FloatArray:
    return v


def _measure(name: str, model: MiniLM, get: Callable[[], Form], build: float | None = None) -> _Measured:
    start = time.perf_counter()
    form = get()
    embeddings = model.embed(SENTENCES, form.attention)
    first = time.perf_counter() - start
    later = []
    for _ in range(LATER_CALLS):
        start = time.perf_counter()
        model.embed(SENTENCES, form.attention)
        later.append(time.perf_counter() - start)
    return _Measured(name, embeddings, form.resolution(), build, first, statistics.median(later))


def _similarity_table(embeddings: FloatArray) -> Table:
    """Show the cosine of every two sentences, with each sentence's nearest other one marked."""
    cosine = embeddings @ embeddings.T
    others = np.where(np.eye(len(SENTENCES), dtype=bool), -np.inf, cosine)
    nearest = others.argmax(axis=1)
    table = Table(title="Cosine (each sentence's nearest other one in green)", box=box.SIMPLE, pad_edge=False)
    table.add_column("", justify="right")
    for column in range(len(SENTENCES)):
        table.add_column(str(column + 1), justify="right", no_wrap=True)
    for row in range(len(SENTENCES)):
        cells = [
            f"[bold green]{value:.2f}[/bold green]" if column == nearest[row] else f"{value:.2f}"
            for column, value in enumerate(cosine[row])
        ]
        table.add_row(str(row + 1), *cells)
    return table


def _time_table(measured: Sequence[_Measured]) -> Table:
    table = Table(
        title=f"Times for {len(SENTENCES)} sentences",
        caption="First call: from loading the kernel to the embeddings, with an empty store.",
        box=box.SIMPLE,
        pad_edge=False,
    )
    table.add_column("form")
    for heading in ("built ahead", "first call", f"median of {LATER_CALLS} more", "per sentence"):
        table.add_column(heading, justify="right")
    for form in measured:
        table.add_row(
            form.name,
            "-" if form.build is None else f"{form.build:.2f} s",
            f"{form.first_call * 1e3:.1f} ms",
            f"{form.later_call * 1e3:.1f} ms",
            f"{form.later_call * 1e3 / len(SENTENCES):.2f} ms",
        )
    return table
