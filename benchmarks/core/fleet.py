"""Start 64 processes at once, and kill those that fetch, build or hold a lock: count compiles, and what is wrong after.

python benchmarks/core/fleet.py     # about three minutes; kills 50 processes of each kind

Locks of the file system work, fail, or are ignored, as the processes are made to see them.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from dimorph.store import pack  # noqa: E402
from dimorph.store.export import export  # noqa: E402
from dimorph.store.fetched import RemoteStore, kept_stores  # noqa: E402
from dimorph.store.layers import private_store  # noqa: E402
from dimorph.store.remote import Remote  # noqa: E402
from dimorph.store.store import Broken, Store  # noqa: E402
from support.compilers import counting_compiler  # noqa: E402
from support.remote import serving  # noqa: E402
from support.store import content_of, key_of, publish  # noqa: E402

KINDS = ("work", "fail", "ignored")
KILLS = 50

# What a process sees of locks, for `sys.argv[1]`.
LOCKS = """
import errno, fcntl, os, sys, time
import dimorph.store.directory
def flock(fd, operation):
    if sys.argv[1] == "fail":
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
if sys.argv[1] != "work":
    fcntl.flock = flock
    dimorph.store.directory.needed = lambda _: True
"""
LOAD = f"""{LOCKS}
from support.kernels import PICK
time.sleep(max(0, float(sys.argv[2]) - time.time()))
assert PICK.load(width=5, depth=1).pick(5, 1) == 5001
"""
HOLD = f"""{LOCKS}
from pathlib import Path
from dimorph.store.store import Store
with Store(Path(os.environ["DIMORPH_STORE"])).lock("0" * 64) as held:
    print(held, flush=True)
    time.sleep(60)
"""
FETCH = """
import sys
from pathlib import Path
from dimorph.store.fetched import RemoteStore
from dimorph.store.layers import private_store
from dimorph.store.remote import Remote
store = RemoteStore(Remote(sys.argv[1], sys.argv[2]), Path(sys.argv[3]), 30.0, private_store)
print("ready", flush=True)
for key in range(int(sys.argv[4]), int(sys.argv[4]) + 1000):
    store.find(f"{key % 40:064x}")
"""


def start(script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    path = f"{ROOT / 'src'}:{ROOT / 'tests'}:{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "PYTHONPATH": path, "DIMORPH_LOG": "off", **environment}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def at_once(directory: Path, kind: str) -> None:
    directory.mkdir()
    compiler = counting_compiler(directory)
    named = {"DIMORPH_STORE": str(directory / "store"), "DIMORPH_CXX": str(compiler.driver)}
    began, when = time.time(), time.time() + 10
    running = [start(LOAD, kind, str(when), **named) for _ in range(64)]
    failed = sum(process.wait() != 0 for process in running)
    compiled = sorted(compiler.compiled())
    print(f"locks {kind}: 64 processes, {failed} failed, compiled {compiled}, {time.time() - began:.1f} s", flush=True)
    assert not failed
    assert len(compiled) == 2, "an entry and a case, each once"


def killed_holders(directory: Path, kind: str) -> None:
    store, longest = str(directory / "store"), 0.0
    for _ in range(KILLS):
        began = time.monotonic()
        holder = start(HOLD, kind, DIMORPH_STORE=store)
        assert holder.stdout
        assert holder.stdout.readline() == "True\n"
        longest = max(longest, time.monotonic() - began)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    print(f"locks {kind}: {KILLS} holders killed; the next held at most {longest:.1f} s after its start", flush=True)


def killed_fetches(directory: Path) -> None:
    origin = Store(directory / "origin")
    for key in range(40):
        publish(origin, directory / "sources", key=key, size=200_000)
    signer, home = pack.Signer(directory / "key.pem"), directory / "home"
    export(origin, Remote(f"file://{directory / 'served'}", None), signer)
    chance, wrong, began = random.Random(1), 0, 0
    with serving(directory / "served") as server:
        for number in range(KILLS):
            process = start(FETCH, server.url, signer.public_key, str(home), str(number))
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0, 1.2))
            process.send_signal(signal.SIGKILL)
            process.wait()
            began += len(list(home.glob("remotes/*/tmp/*"))) > 0
        (kept,) = kept_stores(Store(home))
        wrong = sum(isinstance(one, Broken) for one in kept.entries()) + len(kept.verify())
        count = sum(1 for _ in kept.entries())
        store = RemoteStore(Remote(server.url, signer.public_key), home, 5.0, private_store)
        lost = sum(
            not ((found := store.find(key_of(key))) and found.file.read_bytes() == content_of(key, 200_000))
            for key in range(40)
        )
    print(f"{KILLS} fetches killed: {began} amid one; {count} artifacts kept meanwhile, {wrong} wrong, {lost} lost")
    assert not wrong
    assert not lost


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        for kind in KINDS:
            at_once(Path(name) / kind, kind)
        for kind in KINDS:
            killed_holders(Path(name), kind)
        killed_fetches(Path(name))


if __name__ == "__main__":
    main()
