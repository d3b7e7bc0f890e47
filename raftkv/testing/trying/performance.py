"""Plays a script with one machine, and judges by its model what the clients heard."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from typing import Any

from raftkv.errors import Indeterminate, NotAccepted, Rejected, SessionExpired
from raftkv.machine import StateMachine
from raftkv.model import EntryKind, Index
from raftkv.testing.faults.nemesis import Nemesis
from raftkv.testing.judging.check import Check
from raftkv.testing.judging.failure import Cause, CounterExample, UndecidedHistory
from raftkv.testing.judging.history import History
from raftkv.testing.judging.models import ModelState, Raised, Returned, freeze, timed_methods
from raftkv.testing.judging.operation import UNKNOWN, Operation
from raftkv.testing.judging.search import Verdict
from raftkv.testing.judging.verdicts import judge
from raftkv.testing.trying.answers import Answers
from raftkv.testing.trying.applied import AppliedEntries
from raftkv.testing.trying.bylog import HeardOf, LogJudge
from raftkv.testing.trying.replica import arguments
from raftkv.testing.trying.script import Call, Script
from raftkv.testing.trying.scripted import DEADLINE_S, ScriptedWorld
from raftkv.testing.world.cluster import SimCluster

READ_AGAIN_MAX = 20
"""Queries of the script that are asked once more at the end, when everything is mended."""


class Performance(ScriptedWorld):
    """One script with one machine, beside which its model tells what is right."""

    def __init__(
        self,
        machine: type[StateMachine],
        model: type,
        script: Script,
        key: str | None,
        observe: Callable[[SimCluster], None] | None,
    ) -> None:
        super().__init__(script, observe)
        self._machine = machine
        self._model = model
        self._key = key
        self._history = History()
        self._log = AppliedEntries()
        self._heard: list[HeardOf] = []
        self._answers = Answers()
        self._last: Index = 0

    def run(self) -> None:
        """Play it, and judge what the clients heard."""
        super().run()
        self._judge()

    def _cluster(self, seed: int) -> SimCluster:
        cluster = SimCluster(self._machine, self._script.size, seed=seed)
        cluster.on_started.append(self._log.follow)
        return cluster

    def _more_checks(self) -> list[Check]:
        return [self._log]

    async def _run(self) -> SimCluster:
        cluster = await super()._run()
        self._last = max(node.applier.runner.applied.index for node in cluster.running)
        return cluster

    def _class_of(self, call: Call) -> type[StateMachine]:
        return self._machine

    async def _play(self, cluster: SimCluster, nemesis: Nemesis) -> None:
        if self._observe is not None:
            self._history.recorder = cluster.recorder
        await super()._play(cluster, nemesis)

    async def _settle(self, cluster: SimCluster) -> None:
        """Read everything once more after the recovery: what was acknowledged must be there."""
        again: dict[str, Call] = {}
        for call in self._script.calls:
            if self._machine.methods[call.name].is_query and len(again) < READ_AGAIN_MAX:
                again[call.described] = call
        client = cluster.client(deadline_s=DEADLINE_S)
        for call in again.values():
            await self._record(client, 0, call)
        await client.close()

    async def _call(self, client: Any, call: Call) -> None:
        await self._record(client, call.client, call)

    async def _record(self, client: Any, number: int, call: Call) -> None:
        loop = asyncio.get_running_loop()
        call = self._answers.resolved(self._machine, call)
        args = arguments(self._machine, call.name, call.args)
        method = self._machine.methods[call.name]
        key = self._key_of(call.name, args)
        operation = self._history.call(number, key, call.name, args, loop.time(), is_read=method.is_query)
        heard = HeardOf(operation)
        try:
            if method.is_query:
                read = await client.read(call.name, *call.args)
                heard.index, heard.payload = read.index, method.query_payload(method.encode_args(call.args, {}))
                result: object = Returned(read.value)
            else:
                result = Returned(await client.call(call.name, *call.args))
        except (Indeterminate, SessionExpired):
            return
        except NotAccepted:
            self._history.refused(operation)
            return
        except Rejected as rejected:
            result = Raised(rejected.error_type, rejected.message)
        if not method.is_query:
            heard.session, heard.sequence = client.session.id, client.session.newest
        if isinstance(result, Returned):
            self._answers.add(call.name, result.value)
        self._history.returned(operation, result, loop.time())
        self._heard.append(heard)

    def _key_of(self, name: str, args: tuple[Any, ...]) -> Any:
        if self._key is None:
            return None
        return freeze(args[list(self._machine.methods[name].signature.parameters).index(self._key)])

    def _judge(self) -> None:
        entries = self._log.whole(self._last)
        is_told = bool(timed_methods(self._model)) or any(each.kind == EntryKind.DUE for each in entries or ())
        if not is_told:
            self._search()
        elif entries is not None:
            LogJudge(self._machine, self._model, self._log, entries).judge(self._heard)

    def _search(self) -> None:
        """Look for an order of the calls that explains what clients heard."""
        judgement = judge(self._history.operations, _ask, ModelState(self._model()))
        if judgement.verdict is Verdict.UNDECIDED:
            warnings.warn(UndecidedHistory(len(judgement.undecided), self._script.seed), stacklevel=2)
        if judgement.verdict is not Verdict.REFUTED:
            return
        lines = [_described(operation, self._start_s) for operation in judgement.part]
        if others := judgement.operations - len(judgement.part):
            lines.append(f"(whatever became of {others} other calls)")
        if self._key is not None:
            lines.append(f"({self._key} by {self._key}, as key says: leave it out if they are not independent)")
        raise CounterExample(
            Cause.NOT_LINEARIZABLE,
            "\n".join(["no order of these calls explains what the clients heard:", *lines]),
        )


def _ask(state: ModelState, operation: Operation) -> tuple[Any, ModelState]:
    return state.call(operation.name, operation.argument)


def _described(operation: Operation, start_s: float) -> str:
    """`client 2: receive('apple', 3) gives 3   [0.250 s to 0.310 s]`."""
    call = Call(operation.name, operation.argument).described
    called, returned = operation.called - start_s, operation.returned - start_s
    if operation.result is UNKNOWN:
        return f"client {operation.client}: {call}: nobody heard the end   [from {called:.3f} s]"
    return f"client {operation.client}: {call} {operation.result}   [{called:.3f} s to {returned:.3f} s]"
