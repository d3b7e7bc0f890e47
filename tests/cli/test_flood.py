"""A log stays readable and small whatever happens how often, and says what it leaves out."""

from __future__ import annotations

from raftkv.cli import flood
from raftkv.cli.flood import KINDS_MAX, LINES_MAX, WINDOW_S, Flood
from raftkv.cli.logs import process_log
from raftkv.logs import EventLog, written_to


class Log:
    """Keeps what is written; its time passes when a test says so."""

    def __init__(self):
        self.now = 0.0
        self.lines = []
        self.flood = Flood(self.write, lambda: self.now)
        self.events = EventLog("test")

    def write(self, name, level, event, fields):
        self.lines.append((event, fields))

    def count(self, event, **fields):
        """How many lines of an event have these fields."""
        return sum(found == event and fields.items() <= had.items() for found, had in self.lines)


def test_a_peer_that_flaps_for_an_hour_is_a_few_lines_a_minute():
    """Ten times a second, with another peer that comes and goes once: that one is said, and all that is left out is
    counted."""
    log, flaps = Log(), 36_000
    with written_to(log.flood):
        for flap in range(flaps):
            log.now = flap / 10
            log.events.warning("peer_lost", peer=2, reason="reset")
            log.events.info("peer_connected", peer=2)
            if flap == flaps // 2:
                log.events.warning("peer_lost", peer=3, reason="reset")
        log.now += WINDOW_S
        log.events.info("serving")
    for event in ("peer_lost", "peer_connected"):
        written = log.count(event, peer=2)
        assert written <= 61 * LINES_MAX
        left_out = [had["lines"] for found, had in log.lines if found == "log_lines_left_out" and had["of"] == event]
        assert written + sum(left_out) == flaps, "each is written or counted"
    assert log.count("peer_lost", peer=3) == log.count("serving") == 1
    assert log.count("log_lines_left_out") <= 2 * 61
    assert log.lines[0][0] == "peer_lost", "the first of its kind comes at once"
    assert len(log.lines) < 61 * 2 * (LINES_MAX + 1) + 3


def test_no_error_is_left_out_and_nothing_that_is_for_debugging():
    """Errors are rare, and the last of them is why a node has ended."""
    log = Log()
    with written_to(log.flood):
        for _ in range(10 * LINES_MAX):
            log.events.error("node_failed", peer=1)
            log.events.debug("link_lost", peer=1)
    assert log.count("node_failed") == log.count("link_lost") == 10 * LINES_MAX
    log.flood.flush()
    assert log.count("log_lines_left_out") == 0


def test_what_is_left_out_is_said_at_the_end_too():
    """The end of a process does not wait for the end of a minute."""
    log = Log()
    with written_to(log.flood):
        for _ in range(LINES_MAX + 7):
            log.events.info("role_changed")
        log.flood.flush()
        log.flood.flush()
    assert log.lines[-1] == ("log_lines_left_out", {"of": "role_changed", "lines": 7, "seconds": 0})
    assert log.count("log_lines_left_out") == 1


def test_the_memory_for_kinds_is_bounded():
    """A bug that makes up events, or another library whose texts all differ, costs a few lines and no more memory."""
    log = Log()
    with written_to(log.flood):
        for number in range(3 * KINDS_MAX):
            log.events.info(f"event-{number}")
            log.events.warning(f"text {number}", logger="library")
        assert len(log.flood._windows) <= KINDS_MAX + 1
        assert log.count("event-0") == 1
        assert sum(had.get("logger") == "library" for _, had in log.lines) == LINES_MAX
        log.flood.flush()
    assert {had["of"] for found, had in log.lines if found == "log_lines_left_out"} == {
        "others",
        "lines of another library",
    }


def test_a_nodes_process_writes_its_log_through_it(monkeypatch, capfd):
    """A line that comes a hundred times is there a few times, with how many are not."""
    monkeypatch.setattr(flood, "LINES_MAX", 3)
    with process_log(as_json=False, level="info"):
        for _ in range(100):
            EventLog("test").info("again", peer=2)
    said = capfd.readouterr().err
    assert said.count("again ") == 3 + 1 and "log_lines_left_out" in said and "lines=97" in said
