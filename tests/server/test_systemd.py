"""What a node tells its supervisor, and when it no longer does; in virtual time, to a real socket."""

from __future__ import annotations

import os
import secrets
import socket
import sys

import pytest

from raftkv.server.systemd import STATUS_CHARS_MAX, Supervisor
from raftkv.testing.world.loop import elapse
from tests.logged import capture_logs
from tests.node.parts import Worker, tell

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is there on Linux only")

WATCHDOG = {"WATCHDOG_USEC": "40000000"}


class Systemd:
    """The other end: keeps what it was told."""

    def __init__(self) -> None:
        self.name = f"@raftkv-{secrets.token_hex(8)}"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + self.name[1:])
        self.socket.setblocking(False)
        self.spoken: list[Supervisor] = []

    def told(self) -> list[str]:
        """What has come since the last question."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found


@pytest.fixture
def systemd():
    """A supervisor that listens."""
    listening = Systemd()
    yield listening
    listening.socket.close()
    for each in listening.spoken:
        each.close()


def supervisor(systemd, **more):
    """What speaks to it."""
    found = Supervisor.of({"NOTIFY_SOCKET": systemd.name, **more}, os.getpid())
    assert found is not None
    systemd.spoken.append(found)
    return found


def test_it_hears_of_the_start_of_each_change_and_of_the_end(systemd):
    """READY comes once, with the status; the status again only when it is another one; STOPPING with the reason."""

    async def story():
        spoken, line = supervisor(systemd), "node 1 follows no leader"
        spoken.starting()
        assert systemd.told() == ["STATUS=recovering what is on its disk"]
        spoken.serving(lambda: line, Worker())
        assert systemd.told() == [f"READY=1\nSTATUS={line}"]
        await elapse(60)
        assert systemd.told() == []
        line = "node 1 leads\nWATCHDOG=1" + "x" * 1000
        await elapse(6)
        (said,) = systemd.told()
        assert said.startswith("STATUS=node 1 leads WATCHDOG=1x") and len(said) <= len("STATUS=") + STATUS_CHARS_MAX
        spoken.stopping("was asked to stop")
        assert systemd.told() == ["STOPPING=1\nSTATUS=was asked to stop"]
        spoken.close()
        await elapse(60)
        assert systemd.told() == []

    tell(story)


def test_the_watchdog_hears_of_a_node_only_while_its_disk_answers(systemd):
    """At least every half of its time while all is well; nothing while the disk's thread hangs, then at once again."""

    async def story():
        spoken, worker = supervisor(systemd, **WATCHDOG), Worker()
        spoken.serving(lambda: "well", worker)
        await elapse(20)
        assert systemd.told().count("WATCHDOG=1") >= 2
        worker.eager = False
        await elapse(20)
        systemd.told()
        await elapse(100)
        assert systemd.told() == [] and len(worker.queue) == 1, "it is asked once, however long it hangs"
        worker.work()
        await elapse(0)
        assert systemd.told() == ["WATCHDOG=1"]
        await elapse(20)
        assert len(worker.queue) == 1
        spoken.stopping("the disk hangs")
        await worker.work_off()
        await elapse(20)
        assert systemd.told() == ["STOPPING=1\nSTATUS=the disk hangs"], "a node that ends is not looked at"

    tell(story)


def test_a_loop_that_hangs_is_not_heard_of(systemd):
    """No thread speaks for it: what the loop does not send, nobody sends."""

    async def story():
        spoken, worker = supervisor(systemd, **WATCHDOG), Worker()
        spoken.serving(lambda: "well", worker)
        systemd.told()

    tell(story)
    assert systemd.told() == []


def test_the_watchdog_of_another_process_is_none_of_ours(systemd):
    """WATCHDOG_PID says whose it is; what can't be read is said and not obeyed."""

    async def beats(**environment):
        spoken = supervisor(systemd, **environment)
        spoken.serving(lambda: "well", Worker())
        await elapse(100)
        spoken.stopping("")
        return systemd.told().count("WATCHDOG=1")

    async def story():
        assert await beats(**WATCHDOG, WATCHDOG_PID=str(os.getpid())) > 0
        assert await beats(**WATCHDOG, WATCHDOG_PID=str(os.getpid() + 1)) == 0
        with capture_logs() as events:
            assert await beats(WATCHDOG_USEC="soon") == 0
        assert [event["event"] for event in events] == ["not_watched"]

    tell(story)


def test_ready_is_said_again_until_it_has_got_through():
    """A supervisor whose socket is not there, or full, costs nothing but one line of the log."""

    async def story():
        systemd = Systemd()
        systemd.socket.close()
        with capture_logs() as events:
            spoken = supervisor(systemd)
            spoken.starting()
            spoken.serving(lambda: "well", Worker())
            await elapse(20)
        assert [event["event"] for event in events] == ["supervisor_unreached"]
        systemd.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        systemd.socket.bind("\0" + systemd.name[1:])
        systemd.socket.setblocking(False)
        await elapse(6)
        assert systemd.told() == ["READY=1\nSTATUS=well"]
        spoken.stopping("")
        systemd.socket.close()

    tell(story)


def test_without_an_address_there_is_nobody():
    """Nothing is set: nothing is said. What is no address of a socket of the machine is said in the log."""
    assert Supervisor.of({}, 1) is None
    with capture_logs() as events:
        assert Supervisor.of({"NOTIFY_SOCKET": "vsock:2:1234"}, 1) is None
        assert Supervisor.of({"NOTIFY_SOCKET": "@"}, 1) is None
    assert [event["event"] for event in events] == ["not_notified"] * 2
