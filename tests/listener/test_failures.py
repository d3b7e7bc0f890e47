"""Who guesses has to wait, longer each time; who mistypes, and everybody else, has not."""

from __future__ import annotations

from raftkv.listener import failures
from raftkv.listener.failures import HOST, LOOKED_MAX, PLACES_MAX, QUIET_S, USER, USER_FROM_HOST, Failures


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def guess(table: Failures, clock: Clock, user: str, host: str, times: int) -> list[float]:
    """Fail so often, each time as soon as one may; returns how long each try had to wait."""
    waits = []
    for _ in range(times):
        waits.append(table.wait_s(user, host))
        clock.now += waits[-1]
        assert table.wait_s(user, host) == 0.0
        table.failed(user, host)
    return waits


def test_the_wait_grows_up_to_a_minute() -> None:
    """Five tries are free; then each waits twice as long as the one before."""
    clock = Clock()
    table = Failures(clock)
    waits = guess(table, clock, "ann", "10.0.0.1", 16)
    assert waits[: USER_FROM_HOST.free + 1] == [0.0] * (USER_FROM_HOST.free + 1)
    assert waits[6:13] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert waits[13:] == [60.0, 60.0, 60.0]


def test_a_user_from_elsewhere_and_others_from_there_need_not_wait() -> None:
    """Who guesses ann's password from one place locks neither ann out elsewhere, nor others there."""
    clock = Clock()
    table = Failures(clock)
    guess(table, clock, "ann", "10.0.0.1", 10)
    assert table.wait_s("ann", "10.0.0.1") > 0
    assert table.wait_s("ann", "10.0.0.2") == table.wait_s("bob", "10.0.0.1") == 0.0


def test_guessing_one_password_from_many_places_is_slowed() -> None:
    """Beyond fifty failures a user is tried once in ten seconds at most, wherever it comes from."""
    clock = Clock()
    table = Failures(clock)
    for number in range(USER.free + 20):
        clock.now += table.wait_s("ann", f"10.0.1.{number}")
        table.failed("ann", f"10.0.1.{number}")
    assert table.wait_s("ann", "10.0.2.1") == USER.longest_s
    assert table.wait_s("bob", "10.0.2.1") == 0.0


def test_guessing_many_passwords_from_one_place_is_slowed() -> None:
    """The same for a place that tries one user after the other, or tokens, which name nobody."""
    for names in ([f"user {number}" for number in range(HOST.free + 20)], [""] * (HOST.free + 20)):
        clock = Clock()
        table = Failures(clock)
        for name in names:
            clock.now += table.wait_s(name, "10.0.0.1")
            table.failed(name, "10.0.0.1")
        assert table.wait_s("somebody else", "10.0.0.1") == HOST.longest_s
        assert table.wait_s("somebody else", "10.0.0.2") == 0.0


def test_all_is_forgotten_after_a_quiet_quarter_of_an_hour() -> None:
    """Then the first failures are free again."""
    clock = Clock()
    table = Failures(clock)
    guess(table, clock, "ann", "10.0.0.1", 12)
    clock.now += QUIET_S
    assert guess(table, clock, "ann", "10.0.0.1", 6) == [0.0] * 6


def test_who_gets_in_had_mistyped() -> None:
    """A success ends the wait of that user from there, and nobody else's."""
    clock = Clock()
    table = Failures(clock)
    for user in ("ann", "bob"):
        guess(table, clock, user, "10.0.0.1", 8)
    table.succeeded("ann", "10.0.0.1")
    assert table.wait_s("ann", "10.0.0.1") == 0.0
    assert table.wait_s("bob", "10.0.0.1") > 0.0


def test_the_tables_are_bounded() -> None:
    """A stranger who makes names up fills no memory, and does not make the last ones forgotten."""
    clock = Clock()
    table = Failures(clock)
    for number in range(PLACES_MAX + 100):
        table.failed(f"user {number}", f"host {number}")
    assert len(table) == 3 * PLACES_MAX
    for _ in range(USER_FROM_HOST.free):
        table.failed("user 10000", "host 10000")
    assert table.wait_s("user 10000", "host 10000") == failures.FIRST_WAIT_S


def test_a_crowd_of_guessers_does_not_lock_a_user_out_where_that_user_came_in_before() -> None:
    """For hours, from hundreds of places, and from that very place as well: only failures of the user from there count,
    and a month later it is a place as any other."""
    clock = Clock()
    table = Failures(clock)
    table.succeeded("ann", "10.0.0.1")
    for number in range(1_000):
        clock.now += 10.0
        table.failed("ann", f"10.0.{number % 200}.7")
        table.failed("bob", "10.0.0.1")
    assert table.wait_s("ann", "10.0.3.9") == USER.longest_s
    assert table.wait_s("cat", "10.0.0.1") == HOST.longest_s
    assert table.wait_s("ann", "10.0.0.1") == 0.0
    for _ in range(USER_FROM_HOST.free + 1):
        table.failed("ann", "10.0.0.1")
    assert table.wait_s("ann", "10.0.0.1") == failures.FIRST_WAIT_S
    clock.now += failures.KNOWN_S - 10
    table.failed("bob", "10.0.0.1")
    for number in range(USER.free + 20):
        table.failed("ann", f"10.0.{number}.7")
    clock.now += 5
    assert table.wait_s("ann", "10.0.0.1") > 0.0


def test_places_where_somebody_came_in_are_bounded() -> None:
    """The one where nobody came in for longest is forgotten."""
    clock = Clock()
    table = Failures(clock)
    for number in range(PLACES_MAX + 1):
        table.succeeded("ann", f"host {number}")
    assert len(table._came_in) == PLACES_MAX
    assert not table.is_known("ann", "host 0") and table.is_known("ann", "host 1")


def test_who_has_to_wait_is_told_with_the_most_failures_first() -> None:
    """Each for what its failures are counted, while they count; a few are no news."""
    clock = Clock()
    table = Failures(clock)
    guess(table, clock, "ann", "10.0.0.1", USER_FROM_HOST.free)
    assert table.slowed(10) == (0, [])
    guess(table, clock, "ann", "10.0.0.1", 2)
    for number in range(HOST.free + 1):
        table.failed(f"ghost {number}", "10.0.0.2")
    for number in range(USER.free + 1):
        table.failed("boss", f"host {number}")
    clock.now += 5.0
    count, found = table.slowed(10)
    assert count == 3
    assert [(each.failures, each.of, each.user, each.host) for each in found] == [
        (51, "user", "boss", ""),
        (51, "host", "", "10.0.0.2"),
        (7, "user from host", "ann", "10.0.0.1"),
    ]
    assert [each.ago_s for each in found] == [5.0, 5.0, 5.0]
    assert table.slowed(1) == (3, found[:1])
    clock.now += QUIET_S - 5.0
    assert table.slowed(10) == (0, [])


def test_who_has_to_wait_is_found_in_bounded_work_however_many_guess() -> None:
    """A status is asked for every second: of ten thousand places, those that failed last are looked at."""
    clock = Clock()
    table = Failures(clock)
    for number in range(2 * LOOKED_MAX):
        for _ in range(USER_FROM_HOST.free + 1):
            table.failed(f"user {number}", f"host {number}")
        clock.now += 0.001
    count, found = table.slowed(2)
    assert count == LOOKED_MAX and all(int(each.user.split()[1]) >= LOOKED_MAX for each in found)
