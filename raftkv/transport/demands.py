"""What nodes demand of each other before the first message counts."""

from __future__ import annotations

import msgspec

from raftkv.transport.peernames import PeerNames
from raftkv.transport.secret import PeerSecret


class Demands(msgspec.Struct, frozen=True):
    """Beyond TLS, which is below all this; by default nothing."""

    secret: PeerSecret | None = None
    """What both sides prove to know."""
    names: PeerNames | None = None
    """What the certificate of one who dials must be for; None for any of the authority."""
