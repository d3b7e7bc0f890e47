"""raftkv on every interpreter that it is for and that this machine has with what raftkv needs.

`PYTHON=python3.13 RAFTKV_VENV=.venv313 tools/test` runs all tests on one of them. Environments that were made so are
found here through `RAFTKV_PYTHONS`, a list of interpreters as in `PATH`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NEEDED = "msgspec, xxhash, rocksdict, prometheus_client"

STORY = """
import asyncio, sys
from raftkv import BlockingClient, Client, LocalMachine, Rejected, Server, StateMachine, Table, command, query

class Inventory(StateMachine):
    stock = Table(str, int)

    @command
    def receive(self, sku: str, quantity: int) -> int:
        if quantity <= 0:
            raise ValueError("quantity must be positive")
        total = self.stock.get(sku, 0) + quantity
        self.stock[sku] = total
        return total

    @query
    def on_hand(self, sku: str) -> int:
        return self.stock.get(sku, 0)

def block(address):
    with BlockingClient(Inventory, [address]) as inventory:
        return inventory.receive("apple", 2)

async def main():
    for start in range(2):
        async with Server(Inventory, data_dir=sys.argv[1], http="127.0.0.1:0") as server:
            async with Client(Inventory, [server.address]) as inventory:
                await inventory.receive("apple", 3)
                try:
                    await inventory.receive("apple", 0)
                except Rejected as error:
                    print(error)
                print(await asyncio.to_thread(block, server.address), await inventory.on_hand("apple"))

assert LocalMachine(Inventory).receive("apple", 1) == 1
asyncio.run(main())
"""


def interpreters(version: str) -> list[str]:
    """Interpreters of this version that may be here."""
    named = os.environ.get("RAFTKV_PYTHONS", "").split(os.pathsep)
    own = [sys.executable] if version == f"{sys.version_info[0]}.{sys.version_info[1]}" else []
    found = shutil.which(f"python{version}")
    return [*own, *(each for each in named if each), *([found] if found else [])]


def able(version: str) -> str:
    """One that has what a node needs; skips the test when there is none."""
    check = f"import sys, {NEEDED}; sys.exit('%d.%d' % sys.version_info[:2] != {version!r})"
    for interpreter in interpreters(version):
        if subprocess.run([interpreter, "-c", check], capture_output=True, check=False, timeout=60).returncode == 0:
            return interpreter
    pytest.skip(f"no Python {version} here that has {NEEDED}: RAFTKV_PYTHONS may name one")


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_a_node_and_its_clients_run(version: str, tmp_path: Path) -> None:
    """A node is started twice on one directory, with clients of both kinds; a warning would be an error."""
    done = subprocess.run(
        [able(version), "-W", "error", "-c", STORY, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    rejected = "ValueError: quantity must be positive\n"
    assert done.stdout == f"{rejected}5 5\n{rejected}10 10\n", done.stderr
