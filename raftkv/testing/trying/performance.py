"""Plays a script in a world: clients with sessions make its calls, its faults happen, and all nodes recover."""

from __future__ import annotations

import asyncio
import random
import warnings
from collections.abc import Callable
from typing import Any

from raftkv.errors import Indeterminate, NotAccepted, RaftKVError, Rejected, SessionExpired
from raftkv.machine import StateMachine
from raftkv.testing.faults.nemesis import Nemesis
from raftkv.testing.judging.checks import all_checks
from raftkv.testing.judging.failure import Cause, CounterExample, Failure, UndecidedHistory
from raftkv.testing.judging.history import History
from raftkv.testing.judging.logtime import LogTimeIsBounded
from raftkv.testing.judging.models import ModelState, Raised, Returned, freeze
from raftkv.testing.judging.operation import UNKNOWN, Operation
from raftkv.testing.judging.search import Verdict
from raftkv.testing.judging.verdicts import judge
from raftkv.testing.judging.watching import look, watched
from raftkv.testing.trying.replica import arguments
from raftkv.testing.trying.script import Call, Script
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.loop import Deadlock, SimLoop
from raftkv.testing.world.unheard import quiet

DEADLINE_S = 8.0
"""Of a call, in virtual seconds: several elections fit in."""

RECOVER_S = 1.0
"""Nodes that are down are started again, and the network is healed, about this often: scripts hold what breaks."""

READ_AGAIN_MAX = 20
"""Queries of the script that are asked once more at the end, when everything is mended."""


class Performance:
    """One script in one world. `run` raises `CounterExample`."""

    def __init__(
        self,
        machine: type[StateMachine],
        model: type,
        script: Script,
        key: str | None,
        observe: Callable[[SimCluster], None] | None,
    ) -> None:
        self._machine = machine
        self._model = model
        self._script = script
        self._key = key
        self._observe = observe
        self._dice = random.Random(script.seed)
        self._history = History()
        self._start_s = 0.0

    def run(self) -> None:
        try:
            with quiet():
                SimLoop().run(self._run())
        except Failure as exc:
            raise CounterExample(Cause.BROKEN, str(exc)) from exc
        except (AssertionError, RaftKVError, TimeoutError, Deadlock) as exc:
            raise CounterExample(Cause.BROKEN, f"{type(exc).__name__}: {exc}") from exc
        self._judge()

    async def _run(self) -> None:
        cluster = SimCluster(self._machine, self._script.size, seed=self._dice.getrandbits(64))
        if self._observe is not None:
            self._observe(cluster)
            self._history.recorder = cluster.recorder
        nemesis = Nemesis(cluster, random.Random(self._dice.getrandbits(64)))
        checks = [*all_checks(), LogTimeIsBounded()]
        await watched(cluster, checks, self._play(cluster, nemesis))
        look(cluster, checks)

    async def _play(self, cluster: SimCluster, nemesis: Nemesis) -> None:
        await cluster.start()
        await cluster.until_leader()
        self._start_s = cluster.loop.time()
        numbers = sorted({call.client for call in self._script.calls})
        clients = [asyncio.ensure_future(self._client(cluster, number)) for number in numbers]
        recovery = asyncio.ensure_future(self._recover(nemesis))
        try:
            await self._strike(nemesis)
            await asyncio.wait([asyncio.gather(*clients)], timeout=RECOVER_S)
        finally:
            recovery.cancel()
            await asyncio.gather(recovery, return_exceptions=True)
        await nemesis.mend()
        cluster.note("mended")
        await cluster.until_leader(60)
        await asyncio.wait_for(asyncio.gather(*clients), 60 + DEADLINE_S * len(self._script.calls))
        await self._read_again(cluster)
        await cluster.until_equal()

    async def _strike(self, nemesis: Nemesis) -> None:
        for fault in sorted(self._script.faults, key=lambda fault: fault.at_ms):
            await self._until(fault.at_ms)
            await nemesis.strike(fault.kind, fault.chance)

    async def _recover(self, nemesis: Nemesis) -> None:
        dice = random.Random(self._script.seed)
        while True:
            await asyncio.sleep(dice.uniform(0.5, 1.5) * RECOVER_S)
            await nemesis.strike(dice.choice(["restart", "heal"]), dice.getrandbits(32))

    async def _until(self, at_ms: int) -> None:
        left = self._start_s + at_ms / 1000 - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.sleep(left)

    async def _client(self, cluster: SimCluster, number: int) -> None:
        client = cluster.client(deadline_s=DEADLINE_S, sessions=True)
        calls = [call for call in self._script.calls if call.client == number]
        try:
            for call in sorted(calls, key=lambda call: call.at_ms):
                await self._until(call.at_ms)
                await self._call(client, number, call)
        finally:
            await client.close()

    async def _read_again(self, cluster: SimCluster) -> None:
        """Read everything once more after the recovery: what was acknowledged must be there."""
        again: dict[str, Call] = {}
        for call in self._script.calls:
            if self._machine.methods[call.name].is_query and len(again) < READ_AGAIN_MAX:
                again[call.described] = call
        client = cluster.client(deadline_s=DEADLINE_S)
        for call in again.values():
            await self._call(client, 0, call)
        await client.close()

    async def _call(self, client: Any, number: int, call: Call) -> None:
        loop = asyncio.get_running_loop()
        args = arguments(self._machine, call.name, call.args)
        key, is_read = self._key_of(call.name, args), self._machine.methods[call.name].is_query
        operation = self._history.call(number, key, call.name, args, loop.time(), is_read=is_read)
        try:
            result: object = Returned(await client.call(call.name, *call.args))
        except (Indeterminate, SessionExpired):
            return
        except NotAccepted:
            self._history.refused(operation)
            return
        except Rejected as rejected:
            result = Raised(rejected.error_type, rejected.message)
        self._history.returned(operation, result, loop.time())

    def _key_of(self, name: str, args: tuple[Any, ...]) -> Any:
        if self._key is None:
            return None
        return freeze(args[list(self._machine.methods[name].signature.parameters).index(self._key)])

    def _judge(self) -> None:
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
