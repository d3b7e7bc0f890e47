"""Commands that are in the log and raise, on every node and again at each start (F75)."""

from __future__ import annotations

import pytest

from raftkv.errors import Indeterminate, MachineFailed, Rejected, Unavailable
from raftkv.machine import StateMachine, Table, command, query
from raftkv.testing import SimCluster
from raftkv.testing.world.loop import SimLoop


class Notes(StateMachine):
    """Keeps text; two of its commands are mistakes."""

    notes = Table(str, str)

    @command
    def note(self, name: str, text: str) -> int:
        """Keep it; returns how many there are."""
        self.notes[name] = text
        return sum(1 for _ in self.notes)

    @command
    def expand(self, name: str) -> int:
        """Has no end."""
        self.notes[name] = "expanded"
        return self.expand(name)

    @command
    def read_in(self, name: str) -> int:
        """Depends on a file of the node that runs it."""
        with open(f"/no/such/file/{name}") as file:
            return self.note(name, file.read())

    @query
    def all(self) -> dict[str, str]:
        """All of them."""
        return dict(self.notes.items())


class Mended(Notes):
    """The same command, without the mistake."""

    @command
    def read_in(self, name: str) -> int:
        """Says so."""
        raise ValueError("a command can't read files")


Mended.__name__ = "Notes"  # a new version of it


def test_a_recursion_without_end_is_rejected_alike_on_every_node():
    """By the leader, by followers, at a start, and behind a snapshot: nobody stops, and the states are equal."""

    async def story():
        cluster = SimCluster(Notes, 3, seed=1)
        await cluster.start()
        client = cluster.client(sessions=True)
        assert await client.remote.note("a", "1") == 1
        for _ in range(3):
            with pytest.raises(Rejected, match=r"^RecursionError: maximum recursion depth exceeded"):
                await client.remote.expand("b")
        assert await client.remote.note("c", "2") == 2
        await cluster.until_equal()
        for sim in cluster.nodes.values():
            sim.crash()
        await cluster.start()
        assert await client.remote.note("d", "3") == 3
        await cluster.until_equal()
        assert len(cluster.running) == 3
        assert await client.remote.all() == {"a": "1", "c": "2", "d": "3"}
        await client.close()
        await cluster.stop()

    SimLoop().run(story())


def test_all_nodes_with_a_mended_class_go_on_behind_an_entry_that_stopped_them_all():
    """The way out that the documentation names: nothing is lost, and the entry has one outcome everywhere."""

    async def story():
        cluster = SimCluster(Notes, 3, seed=1)
        await cluster.start()
        client = cluster.client(sessions=True)
        assert await client.remote.note("a", "1") == 1
        with pytest.raises((Indeterminate, Unavailable)):
            await client.remote.read_in.within(3.0)("b")
        await cluster.until(lambda: not cluster.leader, 60, "no leader is left")
        for _ in range(2):
            for sim in cluster.nodes.values():
                sim.crash()
            await cluster.start()
            await cluster.until(lambda: len(cluster.running) < 2, 60, "they stop again")
        failures = [sim.node.failure for sim in cluster.nodes.values() if sim.node.failure is not None]
        assert len(failures) >= 2
        for failure in failures:
            assert isinstance(failure, MachineFailed)
            assert "read_in in entry" in str(failure)
            assert "test_poison.py:" in str(failure)
            assert "start all of them with a mended class" in str(failure)
        for sim in cluster.nodes.values():
            sim.crash()
            sim.machine = Mended
        await cluster.start()
        assert await client.remote.note("c", "2") == 2
        assert await client.remote.all() == {"a": "1", "c": "2"}
        with pytest.raises(Rejected, match="can't read files"):
            await client.remote.read_in("b")
        await cluster.until_equal()
        assert len(cluster.running) == 3
        await client.close()
        await cluster.stop()

    SimLoop().run(story())
