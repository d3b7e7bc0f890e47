"""Models of recipes: who holds what and who waits, until when, in plain lists."""

from __future__ import annotations

from typing import NamedTuple

from raftkv.recipes import Holder, LockLost, OtherLimit, OtherParties
from raftkv.recipes.turns import Hold


class Row(NamedTuple):
    """A holder or a waiter."""

    owner: str
    number: int
    weight: int
    ttl_ms: int
    ends_ms: int
    data: str


class TurnsModel:
    """One queue and one list of holders a name. `last` numbers tokens, and places in the queue."""

    def __init__(self) -> None:
        self.last = 0
        self.held: dict[str, list[Row]] = {}
        self.queue: dict[str, list[Row]] = {}

    def room(self, name: str, weight: int) -> bool:
        return not self.held[name]

    def ended(self, name: str) -> None:
        pass

    def look(self, name: str, now_ms: int) -> None:
        """Nobody sees what is over."""
        for rows in (self.held, self.queue):
            rows[name] = [each for each in rows.get(name, []) if each.ends_ms > now_ms]

    def ask(self, name: str, owner: str, weight: int, ttl_s: float, wait_s: float, now_ms: int, data: str = "") -> int:
        self.look(name, now_ms)
        if token := self.find(self.held[name], owner):
            self.settle(name, now_ms)
            return token
        ends_ms, queue = now_ms + round((wait_s or 0.1) * 1000), self.queue[name]
        if not self.find(queue, owner):
            self.last += 1
            queue.append(Row(owner, self.last, weight, round(ttl_s * 1000), ends_ms, data))
        elif wait_s:
            queue[:] = [each._replace(ends_ms=ends_ms) if each.owner == owner else each for each in queue]
        self.settle(name, now_ms)
        token = self.find(self.held[name], owner)
        if not token and not wait_s:
            queue[:] = [each for each in queue if each.owner != owner]
        return token

    @staticmethod
    def find(rows: list[Row], owner: str) -> int:
        return next((each.number for each in rows if each.owner == owner), 0)

    def settle(self, name: str, now_ms: int) -> None:
        while self.queue[name] and self.room(name, self.queue[name][0].weight):
            self.grant(name, self.queue[name].pop(0), now_ms)

    def grant(self, name: str, row: Row, now_ms: int) -> None:
        self.last += 1
        self.held[name].append(row._replace(number=self.last, ends_ms=now_ms + row.ttl_ms))

    def gone(self, name: str, now_ms: int) -> None:
        self.ended(name)
        self.settle(name, now_ms)

    def renew(self, name: str, token: int, now_ms: int) -> None:
        self.look(name, now_ms)
        if token not in [each.number for each in self.held[name]]:
            raise LockLost(name=name, token=token)
        self.held[name] = [
            each._replace(ends_ms=now_ms + each.ttl_ms) if each.number == token else each for each in self.held[name]
        ]

    def release(self, name: str, token: int, now_ms: int) -> bool:
        self.look(name, now_ms)
        held = self.held[name]
        self.held[name] = [each for each in held if each.number != token]
        if len(self.held[name]) == len(held):
            return False
        self.gone(name, now_ms)
        return True

    def leave(self, name: str, owner: str, now_ms: int) -> bool:
        self.look(name, now_ms)
        if token := self.find(self.held[name], owner):
            return self.release(name, token, now_ms)
        if not self.find(self.queue[name], owner):
            return False
        self.queue[name] = [each for each in self.queue[name] if each.owner != owner]
        self.gone(name, now_ms)
        return True

    def hold_is_over(self, key: tuple[str, int], hold: Hold, now_ms: int) -> None:
        self.look(key[0], now_ms)
        self.gone(key[0], now_ms)

    def wait_is_over(self, key: tuple[str, int], waiter: Hold, now_ms: int) -> None:
        self.look(key[0], now_ms)
        self.gone(key[0], now_ms)

    def token_of(self, name: str, owner: str, now_ms: int) -> int:
        self.look(name, now_ms)
        return self.find(self.held[name], owner)

    def holders(self, name: str, now_ms: int) -> list[Holder]:
        self.look(name, now_ms)
        return [Holder(each.owner, each.number, each.data) for each in self.held[name]]

    def waiting(self, name: str, now_ms: int) -> list[str]:
        self.look(name, now_ms)
        return [each.owner for each in self.queue[name]]


class LocksModel(TurnsModel):
    """Of `Locks`."""

    def acquire(self, name: str, owner: str, ttl_s: float, wait_s: float, now_ms: int) -> int:
        return self.ask(name, owner, 1, ttl_s, wait_s, now_ms)


class ReadWriteModel(TurnsModel):
    """Of `ReadWriteLocks`."""

    def room(self, name: str, weight: int) -> bool:
        return all(each.weight == weight == 1 for each in self.held[name])

    def acquire_read(self, name: str, owner: str, ttl_s: float, wait_s: float, now_ms: int) -> int:
        return self.ask(name, owner, 1, ttl_s, wait_s, now_ms)

    def acquire_write(self, name: str, owner: str, ttl_s: float, wait_s: float, now_ms: int) -> int:
        return self.ask(name, owner, 2, ttl_s, wait_s, now_ms)


class SemaphoresModel(TurnsModel):
    """Of `Semaphores`."""

    def __init__(self) -> None:
        super().__init__()
        self.limits: dict[str, int] = {}

    def used(self, name: str) -> int:
        return sum(each.weight for each in self.held[name])

    def room(self, name: str, weight: int) -> bool:
        return self.used(name) + weight <= self.limits.get(name, 0)

    def ended(self, name: str) -> None:
        if not self.held[name] and not self.queue[name]:
            self.limits.pop(name, None)

    def acquire(self, name: str, owner: str, limit: int, permits: int, ttl_s: float, wait_s: float, now_ms: int) -> int:
        if self.limits.setdefault(name, limit) != limit:
            raise OtherLimit(name=name, limit=self.limits[name])
        token = self.ask(name, owner, permits, ttl_s, wait_s, now_ms)
        self.ended(name)
        return token

    def resize(self, name: str, limit: int, now_ms: int) -> None:
        self.look(name, now_ms)
        if name in self.limits:
            self.limits[name] = limit
            self.settle(name, now_ms)

    def free(self, name: str, now_ms: int) -> int | None:
        self.look(name, now_ms)
        return max(0, self.limits[name] - self.used(name)) if name in self.limits else None


class ElectionsModel(TurnsModel):
    """Of `Elections`."""

    def campaign(self, name: str, owner: str, data: str, ttl_s: float, wait_s: float, now_ms: int) -> int:
        return self.ask(name, owner, 1, ttl_s, wait_s, now_ms, data)

    def proclaim(self, name: str, token: int, data: str, now_ms: int) -> None:
        self.look(name, now_ms)
        if token not in [each.number for each in self.held[name]]:
            raise LockLost(name=name, token=token)
        self.held[name] = [each._replace(data=data) for each in self.held[name]]

    def leader(self, name: str, now_ms: int) -> Holder | None:
        return next(iter(self.holders(name, now_ms)), None)


class MembersModel(TurnsModel):
    """Of `Members`."""

    def room(self, name: str, weight: int) -> bool:
        return True

    def join(self, group: str, member: str, data: str, ttl_s: float, now_ms: int) -> int:
        self.look(group, now_ms)
        self.held[group] = [each for each in self.held[group] if each.owner != member]
        return self.ask(group, member, 1, ttl_s, 0.0, now_ms, data)

    def present(self, group: str, now_ms: int) -> list[Holder]:
        return self.holders(group, now_ms)


class BarriersModel(TurnsModel):
    """Of `Barriers`."""

    def settle(self, name: str, now_ms: int) -> None:
        queue = self.queue[name]
        if self.held[name] or not queue or len(queue) < queue[0].weight:
            return
        count, begun = queue[0].weight, self.last + 1
        for row in queue[:count]:
            self.grant(name, row._replace(data=str(begun)), now_ms)
        del queue[:count]

    def enter(self, name: str, owner: str, parties: int, ttl_s: float, wait_s: float, now_ms: int) -> int:
        self.look(name, now_ms)
        if self.queue[name] and self.queue[name][0].weight != parties:
            raise OtherParties(name=name, parties=self.queue[name][0].weight)
        return self.ask(name, owner, parties, ttl_s, wait_s, now_ms)

    def inside(self, name: str, now_ms: int) -> int:
        self.look(name, now_ms)
        return len(self.held[name])
