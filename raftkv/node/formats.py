"""Which formats this raftkv writes and reads, by name: nodes tell them in their status, for who plans a change.

There is a way back to the minor before, with the data directories that nodes have then. So a release reads another
version of a format one minor before any writes it, and nodes speak another protocol only where the other end does,
too. `tests/formats/test_downgrade.py` has the release before read what this one writes.
"""

from __future__ import annotations

from raftkv.log.sealed import FORMAT_VERSION as LOG_FORMAT
from raftkv.snapshot.backup import FORMAT_VERSION as BACKUP_FORMAT
from raftkv.snapshot.manifest import FORMAT_VERSION as SNAPSHOT_FORMAT
from raftkv.state.interface import FORMAT_VERSION as STATE_FORMAT
from raftkv.wire.frame import PROTOCOL_VERSION

PROTOCOL = "protocol"
"""What nodes speak with each other and with clients; those of two versions refuse each other."""

FORMATS = {
    PROTOCOL: PROTOCOL_VERSION,
    "log": LOG_FORMAT,
    "state": STATE_FORMAT,
    "snapshot": SNAPSHOT_FORMAT,
    "backup": BACKUP_FORMAT,
}

OLDEST_READ = {"log": 2, "state": 2, "snapshot": 1, "backup": 1}
"""Of each format the oldest version that is read, too. Whoever gives one another version says here what it can read."""
