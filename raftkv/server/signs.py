"""What a node's status says of sign-ins: who has to wait for guessing, and whose tokens end."""

from __future__ import annotations

from raftkv.listener import Listener
from raftkv.node.status import SignInStatus, Slowed, TokenEnd

SHOWN_MAX = 20
"""Of each kind, those that matter most; how many there are is counted."""

ENDING_MS = 3 * 86_400_000
"""A token that ends within three days is told of: a weekend, and a day to make another one."""

ENDED_MS = 86_400_000
"""And one that has ended, for a day."""


class Signs:
    """Puts together what a listener knows. For the event loop's thread."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._ending: dict[str, int] = {}
        self._asked = (-1, -1)
        """By which state of users, in which minute, `_ending` was found: there may be ten thousand tokens."""

    def __call__(self) -> SignInStatus:
        """Who is no user of this cluster may be anything that was typed, a password too, and is not named."""
        access, stats = self._listener.service.access, self._listener.stats
        count, slowed = self._listener.gate.sign_ins.failures.slowed(SHOWN_MAX)
        ending = sorted(self._tokens_ending().items(), key=lambda each: (each[1], each[0]))
        return SignInStatus(
            failed=stats.sign_ins_failed,
            delayed=stats.sign_ins_delayed,
            slowed=[
                Slowed(
                    user=each.user if each.user in access.users else "",
                    host=each.host,
                    failures=each.failures,
                    ago_s=each.ago_s,
                    of=each.of,
                )
                for each in slowed
            ],
            slowed_count=count,
            ending=[TokenEnd(user, until_ms) for user, until_ms in ending[:SHOWN_MAX]],
            ending_count=len(ending),
        )

    def _tokens_ending(self) -> dict[str, int]:
        access, now_ms = self._listener.service.access, self._listener.service.requests.present_ms()
        asked = (access.generation, now_ms // 60_000)
        if asked != self._asked:
            self._asked, self._ending = asked, access.tokens_ending(now_ms - ENDED_MS, now_ms + ENDING_MS)
        return self._ending
