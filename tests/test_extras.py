"""What is imported when, and that each part runs without the libraries of the others."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import raftkv
from raftkv.kv import BlockingKeyValueClient, KeyValue
from tests.listener.service import FakeService
from tests.listener.test_tcp import running

SETTINGS = configparser.ConfigParser()
SETTINGS.read(Path(__file__).parent.parent / "setup.cfg")
PARTS = ("client", "server", "cli", "syncobj")

WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""

USE = """
import asyncio
from raftkv import Admin, BlockingClient, Client
from raftkv.kv import BlockingKeyValueClient, KeyValue, KeyValueClient

address = sys.argv[1]

async def main():
    async with Client(KeyValue, [address]) as kv:
        await kv.put(b"a", b"1")
    async with KeyValueClient([address]) as kv:
        print((await kv.get(b"a")).value)
    admin = Admin([address])
    await admin.status()
    await admin.close()

asyncio.run(main())
with BlockingClient(KeyValue, [address]) as kv:
    kv.put(b"a", b"2")
with BlockingKeyValueClient([address]) as kv:
    print(kv.get(b"a").value)
"""

NEEDED = {
    "from raftkv import Server; import asyncio; from raftkv.kv import KeyValue\n"
    "asyncio.run(Server(KeyValue, data_dir=sys.argv[1]).start())": ("rocksdict", "server"),
    "from raftkv import Server; import asyncio; from raftkv.kv import KeyValue\n"
    "asyncio.run(Server(KeyValue, data_dir=sys.argv[1], http='127.0.0.1:0').start())": ("prometheus_client", "server"),
    "import raftkv.cli": ("click", "cli"),
    "from raftkv.cli import main; main(['status', '-a', '127.0.0.1:1', '--timeout', '0.1'])": ("rich", "cli"),
    "from raftkv.cli import main; main(['serve', '--data-dir', sys.argv[1]])": ("structlog", "cli"),
    "import raftkv.syncobj": ("pysyncobj", "syncobj"),
    "from raftkv import log_to_structlog; log_to_structlog()": ("structlog", "cli"),
}


def run(program: str, *args: object, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run `program` in a process that can't import these."""
    command = [sys.executable, "-c", WITHOUT.format(blocked=set(without)) + program, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def modules(requirements: str) -> list[str]:
    """The modules of what a part requires."""
    return [re.split("[><=;]", line)[0].replace("-", "_") for line in requirements.split("\n") if line]


def others(part: str) -> tuple[str, ...]:
    """The libraries that only other parts need."""
    extras = SETTINGS["options.extras_require"]
    return tuple(name for other in PARTS if other != part for name in modules(extras[other]))


def test_clients_run_without_what_other_parts_need() -> None:
    """No RocksDB, no Prometheus, no click and no rich: for asyncio, for threads and for operators."""
    blocked = others("client")
    assert {"rocksdict", "rich", "click", "prometheus_client", "structlog"} <= set(blocked)
    with running(FakeService(KeyValue)) as address:
        done = run(USE, address, without=blocked)
    assert done.stdout == "b'1'\nb'2'\n", done.stderr


def test_a_node_runs_without_the_command_line(tmp_path: Path) -> None:
    """Embedded in a program, with /metrics."""
    program = """
import asyncio
from raftkv import Server
from raftkv.kv import KeyValue, KeyValueClient

async def main():
    async with Server(KeyValue, data_dir=sys.argv[1], http="127.0.0.1:0") as server:
        async with KeyValueClient([server.address]) as kv:
            await kv.put(b"a", b"1")
            print((await kv.get(b"a")).value)

asyncio.run(main())
"""
    done = run(program, tmp_path, without=tuple(name for name in others("server") if name not in ("msgspec", "xxhash")))
    assert done.stdout == "b'1'\n", done.stderr


def test_the_command_line_talks_to_nodes_without_rocksdb() -> None:
    """`raftkv get` is a client, for people."""
    program = "from raftkv.cli import main; main(['get', '-a', sys.argv[1], 'a'])"
    with running(FakeService(KeyValue)) as address:
        with BlockingKeyValueClient([address]) as kv:
            kv.put(b"a", b"1")
        done = run(program, address, without=("rocksdict", "prometheus_client", "pysyncobj", "uvloop"))
    assert done.stdout == "1\n", done.stderr


@pytest.mark.parametrize("program", NEEDED, ids=[extra for _, extra in NEEDED.values()])
def test_a_part_whose_library_is_missing_says_which_extra_brings_it(program: str, tmp_path: Path) -> None:
    """And is an error of raftkv as well as an `ImportError`."""
    library, extra = NEEDED[program]
    done = run(program, tmp_path, without=(library,))
    (last,) = done.stderr.splitlines()[-1:]
    assert last.startswith("raftkv.errors.MissingExtra") and library in last and f"'raftkv[{extra}]'" in last
    assert issubclass(raftkv.MissingExtra, raftkv.RaftKVError) and issubclass(raftkv.MissingExtra, ImportError)


def imported_by(program: str) -> set[str]:
    """The modules that are there after `program`, and were not before."""
    done = run(f"before = set(sys.modules)\n{program}\nprint(*set(sys.modules) - before)")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_a_node_that_lacks_a_library_for_http_founds_no_cluster(tmp_path: Path) -> None:
    """It is refused as long as its directory is as it was."""
    (program,) = [program for program, (library, _) in NEEDED.items() if library == "prometheus_client"]
    done = run(program, tmp_path, without=("prometheus_client",))
    assert done.returncode == 1 and not list(tmp_path.iterdir()), done.stderr


def test_importing_raftkv_imports_nothing_that_it_may_not_need() -> None:
    """What a name is made of comes with the first use of the name: neither libraries nor the event loop before."""
    imported = imported_by("import raftkv")
    assert {name for name in imported if name.startswith("raftkv")} == {"raftkv", "raftkv.lazy", "raftkv.version"}
    assert not imported & {"asyncio", "msgspec", "ssl"}


def test_a_client_imports_what_a_client_needs() -> None:
    """To begin would take twice as long with the node, the log and the metrics that a client has not."""
    imported = imported_by("from raftkv import Client")
    parts = {name.partition(".")[0] for name in imported}
    assert {"msgspec", "xxhash"} <= parts
    assert not parts & {*others("client"), "importlib_metadata", "hypothesis", "pytest"}
    packages = {".".join(name.split(".")[:2]) for name in imported if name.startswith("raftkv")}
    assert not packages & {f"raftkv.{part}" for part in ("cli", "doctor", "log", "node", "server", "snapshot")}


SERVE = """
import asyncio
import urllib.request
from raftkv import Admin, Server
from raftkv.kv import KeyValue, KeyValueClient

async def main():
    async with Server(KeyValue, data_dir=sys.argv[1], http="127.0.0.1:0") as server:
        before = set(sys.modules)
        async with KeyValueClient([server.address]) as kv:
            await kv.put(b"a", b"1")
            assert (await kv.get(b"a")).value == b"1"
            assert [item.key async for item in kv.items()] == [b"a"]
        admin = Admin([server.address])
        await admin.take_snapshot()
        await admin.status()
        await admin.close()
        for path in ("", "metrics", "health", "ready", "status"):
            opened = asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{server.http_port}/{path}")
            (await opened).close()
        print(*{name for name in set(sys.modules) - before if name.partition(".")[0] not in sys.stdlib_module_names})

asyncio.run(main())
"""


def test_a_node_without_http_imports_none_of_it(tmp_path: Path) -> None:
    """What answers browsers and monitors is for nothing else."""
    program = SERVE.replace(', http="127.0.0.1:0"', "")
    program = program[: program.index("        before")] + "        print(*sys.modules)\nasyncio.run(main())"
    done = run(program, tmp_path)
    assert "raftkv.node.node" in done.stdout.split(), done.stderr
    assert not {"prometheus_client", "raftkv.server.http", "raftkv.doctor.table"} & set(done.stdout.split())


def test_a_node_that_serves_imports_nothing_more(tmp_path: Path) -> None:
    """Its loop would stand still meanwhile: what it needs of raftkv and of libraries is imported before it is READY."""
    done = run(SERVE, tmp_path)
    assert done.stdout == "\n", done.stdout + done.stderr


ADD_USER = """
import asyncio
import threading
from raftkv import Admin, Server
from raftkv.access import NewUser
from raftkv.kv import KeyValue

class Importing:
    def find_spec(self, name, path=None, target=None):
        if name == "argon2":
            print(threading.current_thread() is threading.main_thread())

sys.meta_path.insert(0, Importing())

async def main():
    async with Server(KeyValue, data_dir=sys.argv[1]) as server:
        admin = Admin([server.address])
        await admin.change_access(NewUser("ann", "correct horse"))
        await admin.close()

asyncio.run(main())
"""


def test_a_node_imports_what_hashes_passwords_in_a_thread(tmp_path: Path) -> None:
    """Only nodes with users need it, so it is imported with the first password; the loop goes on meanwhile."""
    done = run(ADD_USER, tmp_path)
    assert done.stdout == "False\n", done.stdout + done.stderr


def test_an_installation_has_every_part() -> None:
    """What each part needs is named twice: for all, and by part."""
    extras = SETTINGS["options.extras_require"]
    by_part = {line for part in PARTS for line in extras[part].split("\n") if line}
    assert by_part == {line for line in SETTINGS["options"]["install_requires"].split("\n") if line}


def test_the_version_is_one() -> None:
    """What the package says, and what is installed under its name."""
    assert raftkv.__version__ == version("raftkv")
