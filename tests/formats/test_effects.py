"""What raftkv's own commands do to the state does not change between two releases unseen.

Nodes of two releases may be in one cluster while it is upgraded, and a log of the old one may be replayed by the new
one. Both apply the same commands: of the recipes, of the key-value machine, and what is raftkv's own in every machine
(sessions, users, timers, rows with a time, events, indexes, upgrades). An application has its `version` for what its
commands do; nothing compares raftkv's own but the digests of a running cluster, and those stop its nodes (`Diverged`).
So what each does is kept here as it was first released. `raftkv/machine/versions.py` says how a release changes it: the
old way stays beside the new one, which counts from an entry on, once all nodes can go it. Then the kept scripts do what
they did, as there is no such entry in them, and scripts with one are added.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import xxhash

import raftkv.access.access
import raftkv.recipes
from raftkv.access import AccessChange
from raftkv.kv.machine import KeyValue, Record, WatchedKeyValue
from raftkv.kv.model import Stamp
from raftkv.machine import Component, lineages, overlay, timers, upgrading
from raftkv.machine.recorder import Recorder
from raftkv.machine.sessions import Sessions
from raftkv.model import EntryKind
from raftkv.recipes import (
    Barriers,
    Fences,
    IdempotencyKeys,
    Members,
    Queues,
    Semaphores,
    StaleToken,
    Turns,
    rates,
    turns,
)
from raftkv.recipes.turns import Hold, Place
from raftkv.state.rocks import RocksStates
from tests.formats.draw import Draw
from tests.formats.effects import RULE, Kept, OtherwiseError, check, check_together, read, write
from tests.formats.machines import MACHINES
from tests.test_interpreters import ROOT, able

EVERY = pytest.mark.parametrize("name", sorted(MACHINES))

CONSTANTS = {
    "raftkv.access.access": {"OVER_REMOVED_MAX": 100},
    "raftkv.access.changes": {"DIGEST_BYTES": 32, "TTL_MS_MAX": 3_162_240_000_000},
    "raftkv.access.model": {
        "USERS_MAX": 10_000,
        "TOKENS_MAX": 10_000,
        "TOKENS_OF_ONE_MAX": 100,
        "ROLES_MAX": 1_000,
        "ROLES_OF_ONE_MAX": 100,
        "GRANTS_MAX": 20_000,
        "GRANTS_OF_ONE_MAX": 1_000,
        "CERTIFICATES_MAX": 16,
        "NAME_MAX": 64,
        "CERTIFICATE_NAME_MAX": 256,
        "PATTERN_BYTES_MAX": 1_024,
        "PASSWORD_HASH_MAX": 512,
    },
    "raftkv.kv.model": {
        "KEY_BYTES_MAX": 4_096,
        "VALUE_BYTES_MAX": 1_048_576,
        "TRANSACTION_OPERATIONS_MAX": 256,
        "TRANSACTION_BYTES_MAX": 4_194_304,
        "COUNTER_MIN": -9_223_372_036_854_775_808,
        "COUNTER_MAX": 9_223_372_036_854_775_807,
    },
    "raftkv.machine.lineages": {"NUMBERS_A_MS": 1_000, "LEAP_MS": 1_000_000_000},
    "raftkv.machine.outcome": {"FIELDS_BYTES_MAX": 65_536},
    "raftkv.machine.recorder": {"TRIMMED_AT_ONCE": 16},
    "raftkv.machine.results": {"RESULT_BYTES_MAX": 8_388_608},
    "raftkv.machine.sessions": {"ANSWERS_MAX": 16_384},
    "raftkv.machine.upgrading": {"ROWS_AT_ONCE": 1_000},
    "raftkv.machine.view": {"CLEARED_AT_ONCE": 10_000},
    "raftkv.recipes.barriers": {"PARTIES_MAX": 1_000},
    "raftkv.recipes.once": {"KEYS_MAX": 1_000_000},
    "raftkv.recipes.queues": {
        "PRIORITIES": 10,
        "JOBS_MAX": 1_000_000,
        "ATTEMPTS_MAX": 1_000,
        "DONE_MAX": 100_000,
        "BACKOFF_MS_MAX": 3_600_000,
        "NOT_ACKNOWLEDGED": "not acknowledged in time",
    },
    "raftkv.recipes.rates": {
        "TOKENS_MAX": 1_000_000_000,
        "PER_MS_MAX": 31_622_400_000,
        "BUCKETS_MAX": 1_000_000,
    },
    "raftkv.recipes.semaphores": {"LIMIT_MAX": 1_000},
    "raftkv.recipes.turns": {
        "TTL_S_MIN": 0.1,
        "TTL_S_MAX": 31_622_400.0,
        "WAITERS_MAX": 100_000,
        "GRANTS_AT_ONCE": 100,
    },
}
"""Bounds by which commands go; most are too far away for a script to meet them."""


@EVERY
def test_every_kept_command_does_what_it_did(name: str) -> None:
    """Entry by entry, with the digest over results and changed rows, and with each row that is there at the end."""
    check(name)


@EVERY
def test_they_do_the_same_on_disk_and_across_restarts(name: str, tmp_path: Path) -> None:
    """On RocksDB, where after each few entries all is read from the store again."""
    stores = []

    def store() -> Any:
        stores.append(RocksStates().open(str(tmp_path / "state")))
        return stores[-1]

    try:
        check(name, store, restart_every=23)
    finally:
        for each in stores:
            each.close()


@EVERY
def test_they_do_the_same_in_writes_of_several_entries(name: str) -> None:
    """As a node applies them that is behind."""
    check_together(name, (1, 7, 2, 40))


def _play(interpreter: str, hash_seed: str) -> str:
    done = subprocess.run(
        [interpreter, "-m", "tests.formats.effects"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout or done.stderr


@pytest.mark.parametrize("hash_seed", ["0", "1", "4294967295"])
def test_they_do_the_same_whatever_order_sets_have(hash_seed: str) -> None:
    """Each process has another one, unless it is told."""
    assert _play(sys.executable, hash_seed) == f"{len(MACHINES)} scripts do what they did\n"


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_they_do_the_same_on_each_interpreter(version: str) -> None:
    """Nodes of one cluster may run on several."""
    assert _play(able(version), "random") == f"{len(MACHINES)} scripts do what they did\n"


@pytest.mark.parametrize("module", sorted(CONSTANTS))
def test_the_bounds_by_which_commands_go_are_what_they_were(module: str) -> None:
    """Another bound is another outcome, for the one command that meets it."""
    found = {name: getattr(importlib.import_module(module), name) for name in CONSTANTS[module]}
    assert found == CONSTANTS[module], RULE


def test_all_commands_and_entries_are_kept() -> None:
    """Each command of raftkv's own machines was applied in a script, each kind of entry and of a change of users; one
    that is new gets a script of its own."""
    recipes = [getattr(raftkv.recipes, name) for name in raftkv.recipes.__all__]
    machines = [each for each in recipes if isinstance(each, type) and issubclass(each, Component)]
    applied = {
        (owner, line.said.partition("(")[0].rpartition(".")[2])
        for name, machine in MACHINES.items()
        for line in read(name).lines
        if " is " in line.said
        for owner in (*machine.__mro__, *(each for part in machine._composed.values() for each in part.machine.__mro__))
    }
    commands = {
        (machine, name)
        for machine in (*machines, KeyValue, WatchedKeyValue)
        for name, method in machine.methods.items()
        if not method.is_query
    }
    assert commands <= applied, f"not kept: {commands - applied}: add a machine and draw a script for it"
    kinds = {line.kind for name in MACHINES for line in read(name).lines}
    assert kinds == set(EntryKind) - {EntryKind.MEMBERSHIP}, "memberships are the core's: no machine sees them"
    changes = {line.said.partition("(")[0] for line in read("access").lines}
    assert {kind.__name__ for kind in get_args(AccessChange)} <= changes


def test_what_is_kept_is_not_overwritten(tmp_path: Path) -> None:
    """The tool that draws scripts refuses to."""
    path = tmp_path / "locks.txt"
    write(path, Kept([], {}))
    with pytest.raises(FileExistsError):
        write(path, Draw("locks").draw())


def _grant(self: Turns, place: tuple[str, int], waiter: Hold) -> None:
    """In another order."""
    number = self.last_number = self._next_number()
    self.held.put((place[0], number), waiter, ttl_s=waiter.ttl_ms / 1000)
    del self.waiters[place]
    self.places[place[0], waiter.owner] = Place(number, is_held=True)


def _admit(self: Fences, resource: str, token: int) -> None:
    """No token twice."""
    if token <= (highest := self.highest.get(resource, 0)):
        raise StaleToken(resource=resource, token=token, highest=highest)
    self.highest[resource] = token


def _put(self: KeyValue, key: bytes, value: bytes) -> Stamp:
    """Another field."""
    old = self.records.get(key)
    created, version = (self.index, 0) if old is None else (old.created_index, old.version + 1)
    self.records[key] = Record(value, created, self.index, version)
    return Stamp(created, self.index, version)


def _digest(self: IdempotencyKeys, request: object) -> int:
    """Another number for a request."""
    return xxhash.xxh3_64_intdigest(self._forms.encode(request)) >> 2


def _backwards(self: Recorder, found: list[Any], index: int, time_ms: int) -> None:
    """The changes of an entry in another order."""
    _append(self, found[::-1], index, time_ms)


_append = Recorder._append

CHANGED: dict[str, tuple[Any, str, Any, str]] = {
    "access": (raftkv.access.access, "_sorted", tuple, "(AddUser|GiveRole|SetCertificates).* is done, as it was; but"),
    "barriers": (Barriers, "_settle", Turns._settle, "enter.* as it was; but"),
    "elections": (turns, "check_ttl", lambda *_: None, "and it was: campaign.* raises ValueError"),
    "events": (Recorder, "_trim", lambda *_: None, "changes the state otherwise"),
    "expiring": (timers, "_milliseconds", lambda span: span // timers._MILLISECOND, "(put|touch|mark)"),
    "fences": (Fences, "admit", _admit, "(write|check).* raises StaleToken, and it was: .* is None"),
    "keyvalue": (KeyValue, "_put", _put, "increment.* as it was; but"),
    "lineage": (lineages, "NUMBERS_A_MS", 1_001, r"work.put.* is 1\d*, and it was: work.put"),
    "locks": (Turns, "_grant", _grant, "hold_is_over is done, as it was; but it changes .* or their order"),
    "members": (Members, "_ended", lambda *_: None, "(join|release|leave|is due)"),
    "once": (IdempotencyKeys, "_digest", _digest, "keys.begin.* as it was; but"),
    "queues": (Queues, "_keep_last", lambda *_: None, "ack.* as it was; but"),
    "rates": (rates, "_up", lambda parts, limit: parts // limit, "(ask|spend)"),
    "readwrite": (turns, "GRANTS_AT_ONCE", 99, "leave.'crowd', 'party 0'. is True, as it was; but"),
    "semaphores": (Semaphores, "_ended", lambda *_: None, "(acquire|release|leave)"),
    "sessions": (Sessions, "_forget", lambda *_: None, "as it was; but it changes the state otherwise"),
    "tables": (overlay, "encode_counts", lambda rows: b"\x80", "at the end, the state has b'.x80' at b'"),
    "timers": (timers, "_milliseconds", lambda span: span // timers._MILLISECOND, "later.* as it was; but"),
    "upgrades": (upgrading, "ROWS_AT_ONCE", 3, "Step of version 2, as it was; but"),
    "watched": (Recorder, "_append", _backwards, "transact.* as it was; but"),
}
"""In each script, something that a release might do otherwise, and what is said of it."""


@EVERY
def test_what_is_done_otherwise_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call that differs, how it was, and the rule; each script notices a change that is its own."""
    owner, attribute, changed, said = CHANGED[name]
    monkeypatch.setattr(owner, attribute, changed)
    with pytest.raises(OtherwiseError, match=rf"^{name}: .*{said}") as found:
        check(name)
    assert str(found.value).endswith(RULE)
