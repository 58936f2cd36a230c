"""Data packages: wheels of artifacts that lie side by side, and serve where nothing can be compiled."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

import dimorph as dm
from dimorph import settings
from dimorph.aot import data_package
from dimorph.cli.commands import dimorph
from dimorph.toolchain import targets
from support.paths import REPOSITORY
from support.wheels import Environment, environment_with

HEAD = """
name = "{name}"
kernels = "dimorph.attention.kernels"
variants = "dimorph.attention"
targets = ["{target}"]
"""
ATTENTION = """
[[set]]
kernels = ["attention"]
values.dtype = ["float16"]
values.head_dims = [[32, 32]]
values.kv_dtype = ["as_q"]
values.few_queries = [true]
values.variant = ["Causal", "Causal + Window"]
"""
MERGE = """
[[set]]
kernels = ["merge_states_cpu"]
values.dtype = ["float16"]
"""
CALLS = """
import json, logging, sys
import numpy as np
import dimorph as dm
from dimorph import attention as at
logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
q, k, v = (np.ones((1, 3, 2, 32), np.float16) for _ in range(3))
places = []
for variant in (at.Causal, at.compose(at.Causal, at.Window(1, 0))):
    out = at.attention(q, k, v, variant=variant)
    assert (out == 1).all()
states = [(np.ones((1, 3, 2, 32), np.float16), np.zeros((1, 3, 2), np.float32))] * 2
at.merge_states([s[0] for s in states], [s[1] for s in states])
try:
    at.attention(q, k, v, variant=at.Plain)
except dm.MissingSpecialization as error:
    print(json.dumps(str(error)))
"""


def made(directory: Path, name: str, sets: str, target: str) -> Path:
    manifest = directory / f"{name}.toml"
    manifest.write_text(HEAD.format(name=name, target=target) + sets)
    wheel, _ = data_package.make(data_package.read(manifest), directory / "dist", settings.current())
    return wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with two data packages and no compiler."""
    base = tmp_path_factory.mktemp("data-packages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIMORPH_STORE", str(base / "store"))
        level = targets.runnable()[-1].name  # the least that this CPU runs
        wheels = [made(base, "some-attention", ATTENTION, level), made(base, "some-merge", MERGE, level)]
    return environment_with(base / "env", *wheels)


def test_what_two_packages_hold_is_called_without_a_compiler(installed: Environment) -> None:
    before = installed.tree()
    message = installed.run(CALLS)
    assert "attention" in message and "Plain" in message  # what they lack is named
    assert installed.tree() == before and not (installed.root / "no-home").exists()


def test_one_that_another_version_built_says_so_at_once(installed: Environment) -> None:
    place = installed.packages / "dimorph_prebuilt" / "dimorph"
    own = place / f"some_merge-{dm.__version__}"
    own.rename(place / "some_merge-0.0.7")
    try:
        code = """
import json, logging
records = []
class Kept(logging.Handler):
    def emit(self, record): records.append(record.getMessage())
logging.getLogger("dimorph").addHandler(Kept())
import numpy as np
from dimorph import attention as at
q, k, v = (np.ones((1, 3, 2, 32), np.float16) for _ in range(3))
at.attention(q, k, v, variant=at.Causal)
at.attention(q, k, v, variant=at.Causal)
print(json.dumps(records))
"""
        (told,) = installed.run(code, DIMORPH_POLICY="aot")
    finally:
        (place / "some_merge-0.0.7").rename(own)
    assert "some_merge-0.0.7: built by Dimorph 0.0.7, and this is" in told
    assert f"install the one for this version, some_merge {dm.__version__}" in told


@pytest.mark.parametrize("name", ["cpu", "cu13"])
def test_the_manifests_of_the_repository_name_what_there_is(name: str) -> None:
    package = data_package.read(REPOSITORY / f"packages/dimorph-attention-{name}.toml")
    assert package.name == f"dimorph-attention-{name}" and package.package == "dimorph"
    kernels = {part.instantiations.kernel.name for part in package.parts}
    lists = {
        (part.instantiations.kernel.name, str(part.instantiations.texts().get("variant"))) for part in package.parts
    }
    assert len(lists) == len(kernels), "the sets of a kernel name other variants"
    assert len(kernels) == {"cpu": 4, "cu13": 6}[name]
    assert sum(1 for part in package.parts for _ in part.instantiations) > 700


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"wrong"', '"../wrong"'), "name: expected letters, digits and -, got '../wrong'"),
        (("name =", "title ="), "unknown key 'title'; there are: kernels, name, set, targets, variants"),
        (('targets = ["x86-64-v3"]', ""), "targets: expected a list of strings, got None"),
        (('"x86-64-v3"', '"x86-64-v9"'), "x86-64-v9"),
        (('"x86-64-v3"', '"x86-64-v3", "armv8"'), "targets: expected levels of one machine, got aarch64, x86_64"),
        (
            ('["attention"]', '["attentions"]'),
            "set 1: kernels: dimorph.attention.kernels: no kernel is called 'attentions'",
        ),
        (
            ("Causal + Window", "Causal + Windows"),
            "set 1: variant 'Causal + Windows': dimorph.attention has no variant",
        ),
        (('"dimorph.attention"', '"dimorph.attentions"'), "variants: No module named 'dimorph.attentions'"),
        (('"dimorph.attention.kernels"', '"dimorph.missing"'), "set 1: kernels: "),
        (('variants = "dimorph.attention"', ""), "set 1: variant 'Causal': expected `variants`"),
        (("values.dtype", "values.dtyp"), "no axis is called 'dtyp'"),
        (("values.dtype", "value.dtype"), "set 1: unknown key 'value'"),
        (("[[set]]", "[set"), "not TOML"),
        ((ATTENTION, ""), "expected at least one [[set]]"),
    ],
)
def test_a_wrong_manifest_is_refused(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    text = HEAD.format(name="wrong", target="x86-64-v3") + ATTENTION
    assert change[0] in text
    manifest = tmp_path / "wrong.toml"
    manifest.write_text(text.replace(*change))
    done = CliRunner().invoke(dimorph, ["package", str(manifest), "--out", str(tmp_path / "dist")])
    assert done.exit_code == 1 and message in done.output
    assert not (tmp_path / "dist").exists() and not os.path.lexists(settings.current().store)
