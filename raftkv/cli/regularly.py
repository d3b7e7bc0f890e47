"""`raftkv backup --every`: makes backups into a directory again and again, and removes the oldest ones."""

from __future__ import annotations

import asyncio
import datetime
import os
import posixpath
import re
import time
from collections.abc import Awaitable, Callable

import msgspec

from raftkv.client.backups import Backup
from raftkv.disk import Disk, RealDisk
from raftkv.disk.advice import AGAIN
from raftkv.errors import InvalidArgument, NodeStopped, RaftKVError
from raftkv.snapshot.backup import SealedHead, check_backup

UNFINISHED = "unfinished.backup"
"""The one that is being made, or was made and has no name of its own yet."""
NAME = re.compile(r"\d{20}-\d+-\d{8}T\d{6}Z\.backup")
RETRY_S = 60.0
"""After a failure, unless the next one is due earlier."""

Make = Callable[[str], Awaitable[Backup]]
"""Makes a backup at a path."""


class Kept(msgspec.Struct, frozen=True):
    """A backup in the directory of which every byte was read."""

    path: str
    head: SealedHead

    @property
    def age_key(self) -> tuple[int, int]:
        """Of two of one cluster, the one with the higher index is newer; clocks of nodes may say anything."""
        return self.head.snapshot.index, self.head.head.made_ms


def name_of(head: SealedHead) -> str:
    """A backup's name: its index, term and time, so that names sort as the backups of one cluster do."""
    made = datetime.datetime.fromtimestamp(head.head.made_ms / 1000, datetime.UTC)
    return f"{head.snapshot.index:020d}-{head.snapshot.term}-{made:%Y%m%dT%H%M%SZ}.backup"


class RegularBackups:
    """Backups in one directory. Only whole ones of the same cluster are ever removed, and never the newest."""

    def __init__(self, directory: str, every_s: float, keep: int, make: Make, say: Callable[[str], None]) -> None:
        """Raises `InvalidArgument` when there is no such directory, or the numbers make no sense."""
        if not os.path.isdir(directory):
            raise InvalidArgument(f"{directory} is no directory: make it first")
        if every_s <= 0 or keep < 1:
            raise InvalidArgument("--every must be above 0, and --keep at least 1")
        self._directory = directory
        self._every_s = every_s
        self._keep = keep
        self._make = make
        self._say = say
        self._disk: Disk = RealDisk()
        self._checked: dict[tuple[str, int, int], SealedHead] = {}
        self._complained: set[str] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Make one whenever it is due, until `stop` is set; one that is under way then is taken up the next time."""
        delay = await asyncio.to_thread(self._first_delay)
        while not await _is_set_within(stop, delay):
            began = asyncio.get_running_loop().time()
            making = asyncio.ensure_future(self._once())
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait([making, stopping], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not making.done():
                making.cancel()
                await asyncio.wait([making])
                return
            taken = asyncio.get_running_loop().time() - began
            delay = max(0.0, self._every_s - taken) if making.result() else min(RETRY_S, self._every_s)

    def _first_delay(self) -> float:
        newest_ms = max((each.head.head.made_ms for each in self.whole()), default=None)
        if newest_ms is None:
            return 0.0
        age_s = time.time() - newest_ms / 1000
        return min(self._every_s, max(0.0, self._every_s - age_s))

    async def _once(self) -> bool:
        """Make one and remove those that are too many. Returns whether it is there; what has failed is said."""
        path = posixpath.join(self._directory, UNFINISHED)
        try:
            if not self._disk.exists(path):
                await self._make(path)
            kept = await asyncio.to_thread(self._accept, path)
            removed = await asyncio.to_thread(self.prune, kept.head.head.cluster_id)
            for line in (f"made {kept.path}", *(f"removed {each}" for each in removed)):
                self._say(line)
        except RaftKVError as exc:
            # No node is to be started for this, nor the command be given again.
            self._say(f"FAILED, and is tried again: {str(exc).removesuffix(f', {AGAIN}')}")
            return False
        except FileNotFoundError as exc:
            self._say(f"FAILED, and is tried again: {exc.filename} was removed meanwhile")
            return False
        return True

    def _accept(self, path: str) -> Kept:
        """Read the new one again and give it its name. Raises what is wrong with it; then it is not kept."""
        try:
            head = check_backup(self._disk, path)
        except NodeStopped:
            self._disk.rename(path, path + ".damaged")
            raise
        named = posixpath.join(self._directory, name_of(head))
        self._disk.rename(path, named)
        self._disk.sync_dir(self._directory)
        self._remember(named, head)
        return Kept(named, head)

    def whole(self) -> list[Kept]:
        """Every whole backup in the directory; each is read once."""
        found = []
        for name in self._disk.listdir(self._directory):
            path = posixpath.join(self._directory, name)
            if not NAME.fullmatch(name) or not os.path.isfile(path):
                continue
            head = self._checked.get(_stamp(path))
            try:
                if head is None:
                    head = check_backup(self._disk, path)
                    self._remember(path, head)
            except RaftKVError as exc:
                if path not in self._complained:
                    self._say(f"DAMAGED, so it does not count, and is left there: {exc}")
                    self._complained.add(path)
                continue
            found.append(Kept(path, head))
        return found

    def _remember(self, path: str, head: SealedHead) -> None:
        self._checked[_stamp(path)] = head

    def prune(self, cluster_id: str) -> list[str]:
        """Remove the oldest whole backups of this cluster until `keep` are left; returns their paths."""
        own = [each for each in self.whole() if each.head.head.cluster_id == cluster_id]
        own.sort(key=lambda each: each.age_key, reverse=True)
        removed = [each.path for each in own[self._keep :]]
        for path in removed:
            self._checked.pop(_stamp(path), None)
            self._disk.remove(path)
        if removed:
            self._disk.sync_dir(self._directory)
        return removed


def _stamp(path: str) -> tuple[str, int, int]:
    found = os.stat(path)
    return path, found.st_size, found.st_mtime_ns


async def _is_set_within(stop: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return stop.is_set()
    return True
