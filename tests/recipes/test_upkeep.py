"""What keeps up a lock, a seat or a membership, when its client ends."""

from __future__ import annotations

import threading

from raftkv import BlockingClient
from raftkv.kv import KeyValue
from raftkv.recipes import LockLost
from raftkv.recipes.upkeep import Upkeep

WAIT_S = 20.0


def test_a_client_that_is_closed_does_not_wait_for_what_it_keeps_up():
    """It would be renewed in an hour: whoever holds it is told at once that nobody will, and the client is closed."""
    client = BlockingClient(KeyValue, ["127.0.0.1:1"])
    lost = threading.Event()

    async def renew():
        raise AssertionError("it is not time for that")

    async def begin():
        upkeep = Upkeep(10_000, renew, LockLost)
        upkeep.on_lost(lost.set)
        upkeep.start(upkeep.now())

    client.run(begin())
    closing = threading.Thread(target=client.close, daemon=True)
    closing.start()
    closing.join(WAIT_S)
    assert not closing.is_alive()
    assert lost.is_set()
