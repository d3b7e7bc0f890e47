"""Signing in: who gets in by what, what it costs, and what somebody who guesses learns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from raftkv.access import Access, AddToken, RemoveUser, SetCertificates, SetPassword, digest_of
from raftkv.errors import Busy
from raftkv.listener.identity import Identity, certificate_names, host_of
from raftkv.listener.limits import ServerStats
from raftkv.listener.signins import (
    REMEMBERED_MAX,
    REMEMBERED_S,
    TRIED_FROM_ONE_MAX,
    TRIED_MAX,
    WRONG_REMEMBERED_S,
    SignIns,
    verify,
)
from raftkv.testing.world.loop import SimLoop
from raftkv.wire import SignIn
from tests.listener.people import NOW_MS, USERS, hashed, make, password_of, peopled, shows, signs_in


class Door:
    """Signs clients in, with a worker that does what it was given when it is told to."""

    def __init__(self) -> None:
        self.access = peopled()
        self.stats = ServerStats()
        self.now, self.now_ms = 0.0, NOW_MS
        self.given: list[tuple[Callable[[], bool], asyncio.Future[bool]]] = []
        self.tried: list[tuple[str, str]] = []
        self.fails: Exception | None = None
        self.sign_ins = SignIns(
            lambda: self.access,
            self.stats,
            [self.run],
            clock=lambda: self.now,
            now_ms=lambda: self.now_ms,
            verify=self.verify,
        )

    def verify(self, kept: str, password: str) -> bool:
        self.tried.append((kept, password))
        if self.fails is not None:
            raise self.fails
        return verify(kept, password) if kept else False

    def run(self, work: Callable[[], bool]) -> asyncio.Future[bool]:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.given.append((work, future))
        return future

    async def work(self) -> None:
        """Do all that was given."""
        given, self.given = self.given, []
        for work, future in given:
            try:
                future.set_result(work())
            except ValueError as exc:
                future.set_exception(exc)
        await asyncio.sleep(0)

    def begin(self, shown: SignIn | None, host: str = "10.0.0.1", names: tuple[str, ...] = ()) -> list[Identity]:
        """Begin to sign in; who it is comes into the list that is returned."""
        found: list[Identity] = []
        self.sign_ins.begin(shown, names, host, found.append)
        return found

    async def sign_in(self, shown: SignIn | None, host: str = "10.0.0.1", names: tuple[str, ...] = ()) -> Identity:
        found = self.begin(shown, host, names)
        await self.work()
        (identity,) = found
        return identity


def at_the_door(story: Callable[[Door], object]) -> None:
    """Tell `story` on a loop in virtual time."""
    loop = SimLoop()

    async def main() -> None:
        await story(Door())  # type: ignore[misc]

    loop.run(main())
    assert loop.failures == []


def test_each_gets_in_by_a_password_a_token_or_a_certificate() -> None:
    """Whoever shows the right thing is that user, and it says by what."""

    async def story(door: Door) -> None:
        for user in USERS:
            found = await door.sign_in(signs_in(user))
            assert (found.user, found.by) == (user, "password")
            found = await door.sign_in(None, names=("other", f"{user}.example"))
            assert (found.user, found.by) == (user, "certificate")
        found = await door.sign_in(shows("the token of tenant"))
        assert (found.user, found.by) == ("tenant", "token")
        assert door.stats.sign_ins == len(USERS) + 1 and door.stats.sign_ins_failed == 0

    at_the_door(story)


WRONG = [
    *((user, password_of(other)) for user in USERS for other in USERS if user != other),
    *((user, "") for user in USERS),
    *((user, password_of(user) + end) for user in USERS for end in (" ", "x")),
    *((user, password_of(user)[:-1]) for user in USERS),
    *((user, password_of(user).upper()) for user in USERS),
    ("ghost", password_of("ghost")),
    ("", ""),
    ("BOSS", password_of("boss")),
    ("boss\0", password_of("boss")),
    ("b" * 5_000, password_of("boss")),
    ("boss", "x" * 5_000),
]


def test_no_wrong_password_gets_in() -> None:
    """Many of them, each from a place of its own, so that none is refused for those before."""
    assert len(WRONG) >= 40

    async def story(door: Door) -> None:
        for number, (user, password) in enumerate(WRONG):
            found = await door.sign_in(SignIn(user, password or "-"), host=f"host {number}")
            assert found.user is None, (user, password)
            assert "no user of this name with this password" in found.why or "too many" in found.why
        assert door.stats.sign_ins == 0

    at_the_door(story)


def test_no_wrong_token_gets_in() -> None:
    """Neither parts of a right one, nor the digest that is kept, nor one that is over."""
    right = "the token of tenant"
    wrong = [right[:cut] for cut in range(1, len(right))] + [right + end for end in " x\0"]
    wrong += [digest_of(right).hex(), digest_of(right).decode("latin-1"), right.upper(), "y" * 10_000]
    wrong += [f"guess {number}" for number in range(20)]
    assert len(wrong) >= 40

    async def story(door: Door) -> None:
        for number, token in enumerate(wrong):
            assert (await door.sign_in(shows(token), host=f"host {number}")).user is None, token
        door.now_ms += 59_999
        assert (await door.sign_in(shows("for a minute"))).user == "tenant"
        door.now_ms += 1
        assert (await door.sign_in(shows("for a minute"))).user is None

    at_the_door(story)


def test_who_is_no_user_gets_the_same_answer_after_the_same_work() -> None:
    """Neither the text nor what is tried tells whether there is such a user, or whether they have a password."""

    async def story(door: Door) -> None:
        make(door.access, SetPassword("idler", ""))
        told = {
            user: await door.sign_in(SignIn(user, "a wrong one"), host=f"at {user}")
            for user in ("boss", "idler", "ghost")
        }
        assert len({(found.user, found.by, found.why) for found in told.values()}) == 1
        assert [(bool(kept), password) for kept, password in door.tried] == [
            (True, "a wrong one"),
            (False, "a wrong one"),  # `verify_password` takes as long over these
            (False, "a wrong one"),
        ]

    at_the_door(story)


def test_an_empty_hash_lets_nobody_in() -> None:
    """Even if whatever tries passwords took it for the right one."""

    async def story(door: Door) -> None:
        door.verify = lambda kept, password: True  # type: ignore[method-assign]
        door.sign_ins._verify = door.verify
        assert (await door.sign_in(SignIn("ghost", "anything"))).user is None

    at_the_door(story)


def test_a_password_that_was_right_is_not_tried_again_for_a_while() -> None:
    """Thousands of clients who come back at once cost one trial; after ten minutes there is another one."""

    async def story(door: Door) -> None:
        for _ in range(1_000):
            assert (await door.sign_in(signs_in("tenant"))).user == "tenant"
        assert len(door.tried) == 1
        door.now += REMEMBERED_S
        assert (await door.sign_in(signs_in("tenant"))).user == "tenant"
        assert len(door.tried) == 2

    at_the_door(story)


def test_those_who_come_at_once_share_a_trial() -> None:
    """A password that is being tried is not tried a second time beside that."""

    async def story(door: Door) -> None:
        found = [door.begin(signs_in("tenant")) for _ in range(1_000)]
        assert len(door.given) == 1 and not any(found)
        await door.work()
        assert all(each[0].user == "tenant" for each in found)

    at_the_door(story)


def test_what_was_remembered_is_of_no_use_once_another_password_is_set() -> None:
    """The old one is wrong from that entry on, and the new one right, whatever was tried before."""

    async def story(door: Door) -> None:
        assert (await door.sign_in(signs_in("tenant"))).user == "tenant"
        assert (await door.sign_in(SignIn("tenant", "the new one"))).user is None
        make(door.access, SetPassword("tenant", hashed("the new one")))
        assert (await door.sign_in(signs_in("tenant"))).user is None
        assert (await door.sign_in(SignIn("tenant", "the new one"))).user == "tenant"
        make(door.access, RemoveUser("tenant"))
        assert (await door.sign_in(SignIn("tenant", "the new one"))).user is None

    at_the_door(story)


def test_a_user_who_is_gone_before_the_trial_ends_is_nobody() -> None:
    """The trial was of what was kept before, so who it is has to be looked at once more."""

    async def story(door: Door) -> None:
        found = door.begin(signs_in("tenant"))
        make(door.access, RemoveUser("tenant"))
        await door.work()
        assert found[0].now(door.access, door.now_ms).user is None

    at_the_door(story)


def test_the_same_wrong_password_again_and_again_is_no_guess() -> None:
    """A client that is set up wrongly costs one trial a minute, and locks nobody out; its answer is the same."""

    async def story(door: Door) -> None:
        for _ in range(1_000):
            assert "no user of this name" in (await door.sign_in(SignIn("tenant", "an old one"))).why
            door.now += 0.01
        assert len(door.tried) == 1
        assert (await door.sign_in(signs_in("tenant"))).user == "tenant"
        door.now += WRONG_REMEMBERED_S
        await door.sign_in(SignIn("tenant", "an old one"))
        assert len(door.tried) == 3

    at_the_door(story)


def test_who_guesses_is_tried_more_and_more_seldom() -> None:
    """In a quarter of an hour of guessing as fast as can be, about twenty passwords are tried, and the right one does
    not get in while one has to wait; who came in before goes on doing so."""

    async def story(door: Door) -> None:
        assert (await door.sign_in(signs_in("boss"), host="10.0.0.9")).user == "boss"
        door.tried.clear()
        while door.now < 900:
            await door.sign_in(SignIn("tenant", f"guess {door.now}"))
            door.now += 0.25
        assert 15 <= len(door.tried) <= 30
        assert door.stats.sign_ins_delayed > 3_000
        refused = await door.sign_in(signs_in("tenant"))
        assert refused.user is None and "try again in" in refused.why
        assert (await door.sign_in(signs_in("tenant"), host="10.0.0.8")).user == "tenant"
        assert (await door.sign_in(signs_in("tenant"))).user == "tenant"  # it was right a moment ago
        assert (await door.sign_in(signs_in("boss"), host="10.0.0.9")).user == "boss"

    at_the_door(story)


def test_trials_are_bounded() -> None:
    """Those from one place, and all together: more are refused for now, with an error that is tried again."""

    async def story(door: Door) -> None:
        for number in range(TRIED_FROM_ONE_MAX):
            door.begin(SignIn("tenant", f"{number}"))
        with pytest.raises(Busy):
            door.begin(SignIn("tenant", "one more"))
        for number in range(TRIED_MAX - TRIED_FROM_ONE_MAX):
            door.begin(SignIn("tenant", f"other {number}"), host=f"host {number}")
        with pytest.raises(Busy):
            door.begin(SignIn("tenant", "one more"), host="another")
        assert len(door.given) == TRIED_MAX
        await door.work()
        door.now += 60
        assert (await door.sign_in(signs_in("boss"), host="another")).user == "boss"

    at_the_door(story)


def test_what_is_remembered_is_bounded() -> None:
    """Who makes tokens up fills no memory, and makes nobody's password forgotten."""

    async def story(door: Door) -> None:
        await door.sign_in(signs_in("tenant"))
        for number in range(REMEMBERED_MAX + 100):
            await door.sign_in(shows(f"guess {number}"))
        assert len(door.sign_ins._wrong) == REMEMBERED_MAX
        await door.sign_in(signs_in("tenant"))
        assert len(door.tried) == 1

    at_the_door(story)


def test_passwords_that_can_not_be_tried_are_said_to_be_so() -> None:
    """A library that is missing, say: nobody gets in, nothing is remembered, and nobody counts as one who guesses."""

    async def story(door: Door) -> None:
        door.fails = ValueError("no argon2")
        for _ in range(20):
            found = await door.sign_in(signs_in("tenant"))
            assert found.user is None and "no argon2" in found.why
        door.fails = None
        assert (await door.sign_in(signs_in("tenant"))).user == "tenant"

    at_the_door(story)


def test_secrets_are_in_no_repr() -> None:
    """Neither what is shown, nor who it is then, shows it to a log."""
    shown = SignIn("tenant", "my secret", "my other secret")
    assert "secret" not in repr(shown) and "tenant" in repr(shown)
    identity = Identity("tenant", "password", "$argon2id$the hash")
    assert "argon2" not in repr(identity) and "tenant" in repr(identity)


def test_an_identity_holds_as_long_as_what_it_rests_on() -> None:
    """A removed user, another password, a token that is over or taken back, a certificate of somebody else: nobody."""
    access = peopled()
    by_password = Identity("tenant", "password", access.users["tenant"].password)
    by_token = Identity("tenant", "token", digest_of("for a minute"))
    by_certificate = Identity("tenant", "certificate", names=("tenant.example",))
    for identity in (by_password, by_token, by_certificate):
        assert identity.now(access, NOW_MS) is identity
    assert by_token.now(access, NOW_MS + 60_000).user is None
    make(access, SetCertificates("tenant", ()))
    assert by_certificate.now(access, NOW_MS).user is None
    make(access, SetPassword("tenant", hashed("another")))
    assert by_password.now(access, NOW_MS).user is None
    make(access, RemoveUser("tenant"))
    assert by_token.now(access, NOW_MS).user is None


def test_a_certificate_that_becomes_another_users_makes_nobody_that_user() -> None:
    """A connection is one user's or nobody's, from its beginning to its end."""
    access = peopled()
    identity = Identity("tenant", "certificate", names=("tenant.example",))
    make(access, SetCertificates("tenant", ()), SetCertificates("boss", ("boss.example", "tenant.example")))
    assert identity.now(access, NOW_MS).user is None


def test_nobody_with_a_certificate_is_a_user_once_there_is_one() -> None:
    """Then the connection need not be made anew; a password that was wrong stays wrong."""
    access = Access()
    nobody = Identity(None, "certificate", names=("tenant.example",))
    assert nobody.now(access, NOW_MS).user is None
    people = peopled()
    assert nobody.now(people, NOW_MS).user == "tenant"
    assert Identity(None, "password").now(people, NOW_MS).user is None


def test_nobody_with_a_token_is_a_user_once_it_is_there_and_while_it_lasts() -> None:
    """A node that has applied little when a token is shown knows its user later, on the same connection (F90)."""
    digest = digest_of("for a minute")
    nobody = Identity(None, "token", digest, why="the token is of no user here, or over")
    assert nobody.now(Access(), NOW_MS) is nobody
    people = peopled()
    found = nobody.now(people, NOW_MS)
    assert (found.user, found.by, found.kept) == ("tenant", "token", digest)
    assert nobody.now(people, NOW_MS + 60_000) is nobody
    assert Identity(None, "token", b"another").now(people, NOW_MS).user is None


def test_the_names_of_a_certificate_are_those_that_tls_has_accepted() -> None:
    """The common name first, then hosts, addresses, mail and URIs; without a certificate there are none."""
    certificate = {
        "subject": ((("organizationName", "Shop"),), (("commonName", "ann"),)),
        "subjectAltName": (("DNS", "ann.example"), ("IP Address", "10.0.0.1"), ("URI", "spiffe://ann"), ("other", "x")),
    }
    assert certificate_names(certificate) == ("ann", "ann.example", "10.0.0.1", "spiffe://ann")
    assert certificate_names(None) == () and certificate_names({}) == ()


def test_one_customers_network_is_one_place() -> None:
    """An address of IPv4 is one, a /64 of IPv6 too; what has no address is one of its own."""
    assert host_of(("10.0.0.1", 5)) == host_of(("::ffff:10.0.0.1", 6, 0, 0)) == "10.0.0.1"
    assert host_of(("2001:db8::1", 5, 0, 0)) == host_of(("2001:db8::ffff:2", 7, 0, 0)) != host_of(("2001:db9::1", 5))
    assert host_of(None) == host_of(()) == "unknown"
    assert host_of(("fe80::1%eth0", 5, 0, 2)).endswith("/64") and host_of(("pipe", 0)) == "pipe"


def test_a_token_of_another_cluster_is_no_users() -> None:
    """What is kept is the digest, so a token is right only where it was made."""

    async def story(door: Door) -> None:
        other = Access()
        assert other.user_of_token(digest_of("the token of tenant"), NOW_MS) is None
        make(door.access, AddToken("tenant", digest_of("another"), None))
        assert (await door.sign_in(shows("another"))).user == "tenant"

    at_the_door(story)


def test_a_crowd_of_strangers_keeps_nobody_out_who_came_in_before() -> None:
    """Guesses from hundreds of places take all the turns and make the user wait elsewhere; the user's own place has
    turns of its own, and does not wait. A token needs neither."""

    async def story(door: Door) -> None:
        assert (await door.sign_in(signs_in("tenant"), host="home")).user == "tenant"
        door.now += REMEMBERED_S
        for number in range(TRIED_MAX):
            door.begin(SignIn("tenant", f"{number}"), host=f"host {number}")
        with pytest.raises(Busy):
            door.begin(signs_in("tenant"), host="elsewhere")
        found = door.begin(signs_in("tenant"), host="home")
        assert (await door.sign_in(shows("the token of tenant"), host="elsewhere")).user == "tenant"
        assert found[0].user == "tenant"
        door.now += REMEMBERED_S
        for number in range(100):
            await door.sign_in(SignIn("tenant", f"again {number}"), host=f"host {number}")
        assert "try again in" in (await door.sign_in(signs_in("tenant"), host="elsewhere")).why
        assert (await door.sign_in(signs_in("tenant"), host="home")).user == "tenant"

    at_the_door(story)
