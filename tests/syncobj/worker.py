"""A process of an application on `raftkv.syncobj`, driven by lines on its standard input.

`write NAME COUNT`: that many calls, a few under way at a time; says `ack NAME NUMBER` for each that was acknowledged.
`read`: linearizable, says `state [...]` with everything applied, in order. `local`: says `local STALE LENGTH`.
`leader`: says `leader True` or `leader False`.
"""

from __future__ import annotations

import json
import sys
import threading

from raftkv.syncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated
from raftkv.syncobj.batteries import ReplDict

WINDOW = 16


class Recorder(SyncObj):
    """Everything that was ever written, in the order in which it was applied."""

    def __init__(self, own, others, journal):
        self.last = ReplDict()
        conf = SyncObjConf(journalFile=journal, logCompactionMinEntries=100)
        super().__init__(own, others, conf, consumers=[self.last])
        self.written = []

    @replicated
    def write(self, name, number):
        """One more; gives how many there are."""
        self.written.append((name, number))
        return len(self.written)


def say(*words):
    """A whole line at once, as acknowledgements come on another thread."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def write(recorder, name, count):
    """Make the calls; those whose callback says success are acknowledged."""
    room = threading.Semaphore(WINDOW)

    def done(number, reason):
        if reason == FAIL_REASON.SUCCESS:
            say("ack", name, number)
        room.release()

    for number in range(count):
        room.acquire()
        recorder.write(name, number, callback=lambda result, reason, number=number: done(number, reason))
    for _ in range(WINDOW):
        room.acquire()
    say("done", name)


def main():
    """Until the input ends."""
    own, journal, *others = sys.argv[1:]
    recorder = Recorder(own, others, journal)
    say("started")
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "write":
            threading.Thread(target=write, args=(recorder, arguments[0], int(arguments[1])), daemon=True).start()
        elif command == "read":
            recorder.readBarrier()
            say("state", json.dumps(recorder.written))
        elif command == "local":
            # The mark after the value: what was fresh when it was read may be old when it is said, not the other way.
            say("local", recorder.isStale, len(recorder.written))
        elif command == "leader":
            say("leader", recorder._isLeader())
    recorder.destroy()


if __name__ == "__main__":
    main()
