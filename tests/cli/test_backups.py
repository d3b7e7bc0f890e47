"""`raftkv backup` against a real node: made, taken up, checked, shown, and refused when it is no good."""

from __future__ import annotations

import asyncio
import inspect
import json
import random
from pathlib import Path

import pytest

from raftkv import Member, Server
from raftkv.client import Admin, BlockingAdmin
from raftkv.errors import InvalidArgument, Unavailable, WrongLoop
from raftkv.kv import KeyValue
from raftkv.processes.ports import free_ports
from tests.cli.commands import error_of, value_of
from tests.waiting import DEADLINE_S


def fill(run, count=6, size=400_000) -> None:
    """Something to copy, of which a database can save no more than half."""
    dice = random.Random(1)
    for number in range(count):
        assert run("put", f"bulk/{number}", dice.randbytes(size // 2).hex()).exit_code == 0


def test_a_backup_is_made_checked_and_shown(run, tmp_path):
    """One command each; the file can be read by its owner only, as everything is in it."""
    run("put", "backup/a", "1")
    path = str(tmp_path / "a.backup")
    made = run("backup", path)
    assert made.exit_code == 0, made.output
    assert path in made.stdout
    assert Path(path).stat().st_mode & 0o077 == 0
    shown = value_of(run("backup", "show", path, "--json"))
    status = value_of(run("status", "--json"))["nodes"][0]
    assert shown["cluster_id"] == status["cluster_id"] and shown["machine"] == "KeyValue"
    assert (shown["version"], shown["node_id"], shown["cluster_name"]) == (1, 1, "raftkv")
    assert shown["index"] <= status["applied_index"]
    for deep in ((), ("--deep",)):
        verified = run("backup", "verify", path, *deep)
        assert verified.exit_code == 0 and "sound" in verified.stdout
    text = run("backup", "show", path).stdout
    assert "KeyValue" in text and shown["backup"] in text
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.backup"]


def test_damage_is_found_and_named(run, tmp_path):
    """A flipped bit, and an end that is missing: exit code 1, also in JSON; what is no file at all is wrong usage."""
    path = tmp_path / "a.backup"
    run("backup", str(path))
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[-100] ^= 1
    for content in (bytes(damaged), whole[:-1], b"something else"):
        path.write_bytes(content)
        result = run("backup", "verify", str(path), "--json")
        assert result.exit_code == 1
        value = json.loads(result.stdout)
        assert not value["sound"] and value["problems"]
        assert run("backup", "verify", str(path)).exit_code == 1
    assert run("backup", "verify", str(tmp_path / "none")).exit_code == 2
    assert run("backup", "show", str(tmp_path)).exit_code == 2


def test_what_can_not_be_made_says_so_at_once(run, tmp_path):
    """A file that exists, a directory that does not, sizes and times that are none, and no node to ask."""
    path = tmp_path / "a.backup"
    path.write_text("mine")
    refused = run("backup", str(path), "--json")
    assert refused.exit_code == 2 and "exists already" in error_of(refused)["message"]
    assert path.read_text() == "mine"
    assert "make it first" in run("backup", str(tmp_path / "none" / "a")).stderr
    assert run("backup", str(tmp_path / "b"), "--rate-limit", "fast").exit_code == 2
    assert run("backup", str(tmp_path / "b"), "--age", "-1").exit_code == 2
    assert run("backup", str(tmp_path / "b"), "-a", "127.0.0.1:1", "--timeout", "0.3").exit_code == 3
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.backup"]


def test_a_backup_that_was_cut_off_is_taken_up(run, one_node, tmp_path):
    """Where it ended, if the node still has the snapshot; if not it begins anew. Both is said."""
    fill(run)
    path = str(tmp_path / "a.backup")

    class CutOffError(Exception):
        pass

    async def cut_off() -> None:
        def stop(state):
            if state.done_bytes > 600_000:
                raise CutOffError

        async with Admin([one_node.member.client_address]) as admin:
            await admin.backup(path, progress=stop)

    with pytest.raises(CutOffError):
        asyncio.run(cut_off())
    taken_up = run("backup", path, "--json")
    assert value_of(taken_up)["resumed_bytes"] > 500_000
    assert run("backup", "verify", "--deep", path).exit_code == 0
    Path(path).unlink()
    Path(path + ".part").write_bytes(b"of another time")
    anew = run("backup", path)
    assert anew.exit_code == 0 and "begun anew" in anew.stderr
    assert run("backup", "verify", path).exit_code == 0


def test_a_rate_limit_holds(run, one_node, tmp_path):
    """A limited backup takes as long as its limit says, at least; it is whole even so."""
    fill(run)

    async def timed() -> float:
        began = asyncio.get_running_loop().time()
        async with Admin([one_node.member.client_address]) as admin:
            made = await admin.backup(tmp_path / "b", rate_bytes_s=2_000_000)
        taken = asyncio.get_running_loop().time() - began
        assert taken >= (made.total_bytes - 600_000) / 2_000_000 - 0.3
        return made.total_bytes

    assert asyncio.run(timed()) > 1_000_000
    assert run("backup", "verify", str(tmp_path / "b")).exit_code == 0


def test_another_node_is_asked_when_the_first_does_not_answer(run, one_node, tmp_path):
    """From Python too: the addresses are tried one after the other."""

    async def make() -> None:
        async with Admin(["127.0.0.1:1", one_node.member.client_address]) as admin:
            made = await admin.backup(tmp_path / "a", deadline_s=1.0)
            assert made.done_bytes == made.total_bytes
            with pytest.raises(InvalidArgument, match="exists already"):
                await admin.backup(tmp_path / "a")

    asyncio.run(make())


def test_a_node_without_a_leader_does_not_hold_up_those_that_have_one(run, one_node, tmp_path):
    """It answers, and could not say for five minutes up to where a backup must reach: it is asked last, once."""
    ports = free_ports(4)
    founders = [Member(each + 1, *(f"127.0.0.1:{port}" for port in ports[2 * each :][:2])) for each in (0, 1)]

    async def make() -> None:
        async with Server(KeyValue, data_dir=tmp_path / "alone", members=founders) as alone:
            assert alone.status().leader is None
            async with Admin([alone.address, one_node.member.client_address]) as admin:
                made = await admin.backup(tmp_path / "a", deadline_s=DEADLINE_S)
                assert made.done_bytes == made.total_bytes and made.head.cluster_id != alone.status().cluster_id
            async with Admin([alone.address, "127.0.0.1:1"]) as admin:
                with pytest.raises(Unavailable):
                    await admin.backup(tmp_path / "b", deadline_s=0.5)
                with pytest.raises(InvalidArgument, match="nothing was ever committed"):  # asked at once: it needs none
                    await admin.backup(tmp_path / "b", deadline_s=DEADLINE_S, stale=True)

    async def in_time() -> None:
        async with asyncio.timeout(DEADLINE_S / 2):
            await make()

    asyncio.run(in_time())


def test_the_blocking_admin_does_the_same(one_node, run, tmp_path):
    """Each of its calls is one of `Admin`'s, with the same arguments; a backup is made without any asyncio, and in a
    coroutine it is refused instead of stopping the loop."""
    for name, method in inspect.getmembers(Admin, inspect.iscoroutinefunction):
        if not name.startswith("_") and name != "close":
            assert hasattr(BlockingAdmin, name), f"it lacks {name}"
            own = list(inspect.signature(getattr(BlockingAdmin, name)).parameters)
            assert own[:2] == list(inspect.signature(method).parameters)[:2]
    with BlockingAdmin([one_node.member.client_address]) as admin:
        assert admin.status()["role"] == "leader"
    made = admin.backup(tmp_path / "a", age_s=0.0)
    assert made.snapshot.index <= admin.status()["applied_index"]
    assert run("backup", "verify", str(tmp_path / "a")).exit_code == 0

    async def inside() -> None:
        with pytest.raises(WrongLoop, match="use Admin there"):
            admin.status()

    asyncio.run(inside())
    with pytest.raises(InvalidArgument):
        BlockingAdmin([])
