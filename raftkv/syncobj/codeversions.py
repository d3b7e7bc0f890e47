"""Switches a cluster to another code version: the active version of the machine behind its `SyncObj`s, less one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from pysyncobj.config import FAIL_REASON

from raftkv.client import Admin
from raftkv.errors import (
    ChangeRefused,
    Indeterminate,
    InvalidArgument,
    NotAccepted,
    RaftKVError,
    SchemaChanged,
    WrongVersion,
)
from raftkv.logs import TextLog
from raftkv.syncobj.calls import Callback
from raftkv.syncobj.machine import machine_version_of
from raftkv.syncobj.reasons import Denied

logger = TextLog("raftkv.syncobj")

ATTEMPT_S = 10.0
"""How long one attempt waits for a leader. What it leads to may be repeated, as a version is enabled once."""
PATIENCE_S = 2.0
"""How long a switch is tried that is refused: at a cluster's start, its nodes are not all connected yet."""
AGAIN_S = 0.1


class Switches:
    """The switches that this node has been asked for, one for each version at most, on the loop's thread."""

    def __init__(
        self,
        *,
        admin: Callable[[], Admin],
        begin: Callable[[Coroutine[Any, Any, Any]], None],
        catch_up: Callable[[], Coroutine[Any, Any, Any]],
        tell: Callable[..., None],
        wait: Callable[[], bool],
    ) -> None:
        """`begin` begins a task, `catch_up` waits until this node has applied what was acknowledged, `tell` calls a
        callback of the application; `wait`: whether a switch waits while there is no leader."""
        self._admin = admin
        self._begin_task = begin
        self._catch_up = catch_up
        self._tell = tell
        self._wait = wait
        self._waiting: dict[int, list[Callback | None]] = {}

    def begin(self, version: int, callback: Callback | None) -> None:
        """Enable a code version, or join who is at it; `callback` is called when it is enabled on this node."""
        joined = self._waiting.setdefault(version, [])
        joined.append(callback)
        if len(joined) == 1:
            self._begin_task(self._switch(version))

    async def _switch(self, version: int) -> None:
        reason: int = FAIL_REASON.SUCCESS
        try:
            await self._enable(version)
        except (ChangeRefused, InvalidArgument) as exc:
            logger.warning("code version %d was not enabled: %s", version, exc)
            reason = Denied(exc)
        except NotAccepted as exc:
            logger.warning("code version %d was not enabled: %s", version, exc)
            reason = FAIL_REASON.MISSING_LEADER
        except RaftKVError as exc:
            logger.warning("it is not known if code version %d was enabled: %s", version, exc)
            reason = FAIL_REASON.UNKNOWN_OUTCOME
        self._answer(version, reason)

    async def _enable(self, version: int) -> None:
        """Raises `ChangeRefused` or `InvalidArgument` when a node can't run it, or one is down."""
        loop = asyncio.get_running_loop()
        admin, end = self._admin(), loop.time() + PATIENCE_S
        try:
            while True:
                if await self._is_enabled(admin, version, is_last=loop.time() >= end):
                    break
                await asyncio.sleep(AGAIN_S)
        finally:
            await admin.close()
        await self._catch_up()

    async def _is_enabled(self, admin: Admin, version: int, *, is_last: bool) -> bool:
        try:
            await admin.upgrade(machine_version_of(version), ATTEMPT_S)
        except ChangeRefused as exc:
            if is_last:
                raise explained(exc) from exc
            return False
        except NotAccepted:
            if not self._wait():
                raise
            return False
        except Indeterminate:
            return False  # it tells at the next attempt
        except InvalidArgument as exc:
            raise explained(exc) from exc
        return True

    def _answer(self, version: int, reason: int) -> None:
        for callback in self._waiting.pop(version, []):
            self._tell(callback, None, reason)

    def end(self) -> None:
        """Whoever still waits hears that the outcome is not known."""
        for version in list(self._waiting):
            self._answer(version, FAIL_REASON.UNKNOWN_OUTCOME)


def explained(error: RaftKVError) -> RaftKVError:
    """`error` with what its words mean to an application of PySyncObj, if it is about versions."""
    hint = ""
    match error:
        case SchemaChanged():
            hint = (
                "that is a list of replicated methods: keep those of code versions that were in use, and mark others "
                "with @replicated(ver=…) and a later version, for which the application calls setCodeVersion"
            )
        case WrongVersion() | ChangeRefused() | InvalidArgument():
            hint = "a version is the code version of @replicated(ver=…) plus 1"
    return type(error)(f"{error} ({hint})") if hint else error
