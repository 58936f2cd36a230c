"""A build on a real Dask cluster of local processes, one of which dies in the middle."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dimorph import aot, settings
from support.compilers import counting_compiler
from support.skeletons import declared

distributed = pytest.importorskip("distributed", reason="Dask's distributed is not installed")

VALUES = {"dtype": ["float32", "float64"], "head_dim": [64, 128, 256]}
LOST = {"dtype": "float64", "head_dim": "128", "variant": "Scale"}
WORKERS = 3

# The first compile of one case waits to be killed, and says which process it is.
WAITING = """
for word; do case "$word" in *case_unit.cc)
  if grep -q "head_dim=128.*dtype=float64\\|dtype=float64.*head_dim=128" "$word"; then
    echo $$ >> {begun}
    if [ $(wc -l < {begun}) = 1 ]; then sleep 60; fi
  fi;;
esac; done
"""


def ancestor(pid: int, among: set[int]) -> int:
    """Return the process of some that started a process, directly or not."""
    while pid not in among:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid


@pytest.mark.long
def test_a_worker_that_is_killed_costs_only_its_job(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = tmp_path / "begun"
    compiler = counting_compiler(tmp_path, before=WAITING.format(begun=begun))
    monkeypatch.setenv("DIMORPH_CXX", str(compiler.driver))
    options = {"n_workers": WORKERS, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        client.wait_for_workers(WORKERS)
        pids = client.run(os.getpid)
        for address, pid in pids.items():  # a store of its own, as on a machine of its own
            client.run(
                exec, f"import os; os.environ['DIMORPH_STORE'] = {str(tmp_path / f'w{pid}')!r}", workers=[address]
            )

        killed: list[int] = []
        arrived = [0]

        def kill() -> None:
            while not begun.exists() or not begun.read_text().endswith("\n"):
                time.sleep(0.02)
            before = len(compiler.compiled())
            while arrived[-1] < before:  # a result that is still on its way from the worker would be lost, too
                time.sleep(0.02)
            killed.append(ancestor(int(begun.read_text()), set(pids.values())))
            os.kill(killed[0], signal.SIGKILL)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        config = replace(settings.current(), store=tmp_path / "own")
        kernel = declared(root)
        report = aot.build(
            kernel.instantiations(**VALUES),
            tmp_path / "out",
            settings=config,
            executor=client.get_executor(),
            progress=lambda done, total, label: arrived.append(done),
        )
        killer.join(60)
    assert (report.built, report.reused) == (7, 0)
    assert len(begun.read_text().splitlines()) == 2  # the job of the worker that died
    assert sorted(compiler.compiled()) == ["case_unit.cc"] * 6 + ["entry_unit.cc"]  # every compile that went on
    (again,) = [step for step in report.steps if step.artifact.meta.specialization == LOST]
    assert again.run and not again.run.worker.endswith(f" {killed[0]}")
    assert aot.verify([kernel], tmp_path / "out").ok
