"""Rows that have a time, and the time that queries see, in whole clusters: through idleness, crashes and clocks."""

from __future__ import annotations

from raftkv.machine import FIRED_AT_ONCE, StateMachine, Table, command, on_expire, query
from raftkv.testing import elapse, scenario


class Leases(StateMachine):
    """Leases, and when each ran out."""

    leases = Table(str, int, expires=True)
    ran = Table(str, tuple[int, int])

    @command
    def take(self, key: str, ttl_ms: int) -> int:
        """Take one; returns when it runs out."""
        self.leases.put(key, self.now_ms + ttl_ms, ttl_s=ttl_ms / 1000)
        return self.now_ms + ttl_ms

    @command
    def take_many(self, count: int, ttl_ms: int) -> None:
        """Take many at once."""
        for number in range(count):
            self.leases.put(f"b{number}", self.now_ms + ttl_ms, ttl_s=ttl_ms / 1000)

    @command
    def renew(self, key: str, ttl_ms: int) -> bool:
        """Have it for longer."""
        return self.leases.touch(key, ttl_ms / 1000)

    @command
    def time(self) -> int:
        """An entry's."""
        return self.now_ms

    @command
    @on_expire("leases")
    def ran_out(self, key: str, ends_ms: int) -> None:
        """Write it down."""
        assert key not in self.ran, "once"
        self.ran[key] = ends_ms, self.now_ms

    @query
    def held(self) -> list[str]:
        """Those that are held."""
        assert len(self.leases) == len(list(self.leases))
        return list(self.leases)

    @query
    def over(self) -> dict[str, tuple[int, int]]:
        """Those that ran out."""
        return dict(self.ran.items())

    @query
    def present_ms(self) -> int:
        """What time it is."""
        return self.now_ms


@scenario(Leases)
async def test_an_idle_cluster_shows_no_lease_after_its_time(cluster):
    """Not even between its time and the entry that removes it; for a thousand rows that is a few entries."""
    remote = cluster.client().remote
    ends_ms = await remote.take("a", 1_000)
    seen = []
    for _ in range(400):
        seen.append((await remote.present_ms(), await remote.held(), await remote.present_ms()))
        await elapse(0.003)
    assert seen[-1][0] >= ends_ms + 50, "time goes on, though nobody writes"
    assert all(held == ["a"] for _, held, after_ms in seen if after_ms < ends_ms)
    assert all(held == [] for before_ms, held, _ in seen if before_ms >= ends_ms)
    await remote.take_many(1_000, 20_000)
    before = cluster.leader.raft.log.last_index
    await elapse(19)
    assert cluster.leader.raft.log.last_index == before
    await elapse(2)
    assert await remote.held() == []
    assert len(await remote.over()) == 1_001
    assert cluster.leader.raft.log.last_index == before + -(-1_000 // FIRED_AT_ONCE)
    await elapse(600)
    assert cluster.leader.raft.log.last_index == before + -(-1_000 // FIRED_AT_ONCE)


@scenario(Leases, seed=3)
async def test_the_next_leader_removes_what_the_last_one_did_not(cluster):
    """Leaders crash while leases run out: each is told of once, none before its time, and the states agree."""
    remote = cluster.client(sessions=True, deadline_s=30).remote
    for number in range(40):
        await remote.take(f"{number:02}", 100 * (number + 1))
    for number in range(20, 30):
        assert await remote.renew(f"{number:02}", 20_000)
    for _ in range(3):
        await elapse(0.7)
        leader = await cluster.until_leader()
        cluster.nodes[leader.node_id].crash()
        await cluster.until_leader()
        await cluster.nodes[leader.node_id].start()
    await elapse(5)
    assert await remote.held() == [f"{number:02}" for number in range(20, 30)]
    over = await remote.over()
    assert len(over) == 30
    assert all(at_ms >= ends_ms for ends_ms, at_ms in over.values())
    await elapse(20)
    assert await remote.held() == []
    assert len(await remote.over()) == 40
    await cluster.until_equal()


@scenario(Leases, seed=4)
async def test_leases_are_in_snapshots(cluster):
    """A node whose files are gone gets them with their times, and removes them when it leads."""
    remote = cluster.client(deadline_s=30).remote
    for number in range(10):
        await remote.take(f"{number}", 5_000 + number)
    leader = await cluster.until_leader()
    await leader.orders.take_snapshot()
    behind = next(sim for sim in cluster.nodes.values() if sim.node_id != leader.node_id)
    behind.crash()
    await behind.start(rebuild=True)
    await cluster.until_equal()
    await leader.orders.transfer_leadership(behind.node_id)
    assert len(await remote.held()) == 10
    await elapse(6)
    assert await remote.held() == []
    assert len(await remote.over()) == 10
    await cluster.until_equal()


@scenario(Leases, seed=5)
async def test_the_present_does_not_go_back(cluster):
    """A leader's clock that is set back, within what log time allows: neither a query nor an entry says so."""
    remote = cluster.client(deadline_s=30).remote
    await remote.time()
    await elapse(5)
    first_ms = await remote.present_ms()
    leader = await cluster.until_leader()
    cluster.nodes[leader.node_id].clock.set_wrong(-300)
    assert await remote.present_ms() >= first_ms
    assert await remote.time() >= first_ms
    await elapse(1)
    later_ms = await remote.present_ms()
    assert first_ms + 600 <= later_ms <= first_ms + 1_100
