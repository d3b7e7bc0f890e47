"""Users, roles and tokens: each change, what refuses it, and that what is kept says the same to another process."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.access import (
    NO_RIGHTS,
    ROOT,
    Access,
    AccessAsk,
    AccessChange,
    AddRole,
    AddToken,
    AddUser,
    Enable,
    GiveRole,
    Grant,
    GrantRight,
    NewPassword,
    NewUser,
    RemoveRole,
    RemoveToken,
    RemoveUser,
    RevokeRight,
    SetCertificates,
    SetPassword,
    TakeRole,
    Touch,
    TurnOff,
    TurnOn,
    decode_access_change,
    digest_of,
    encode_access_change,
    new_token,
    shown,
)
from raftkv.access import access as access_module
from raftkv.errors import AccessRejected, InvalidArgument, StateCorruption
from tests.access.people import HASH, Kept, all_of, digest

PUT, READ_A = Grant("command", "put*"), Grant("read", b"a/")


def crowd() -> Kept:
    """A root user, a clerk with a role, and a user without any."""
    kept = Kept()
    kept.do(
        AddUser("boss", HASH, (ROOT,)),
        AddRole("clerk"),
        GrantRight("clerk", PUT),
        GrantRight("clerk", READ_A),
        AddUser("ann", HASH, ("clerk",), ("ann.example.com",)),
        AddUser("guest"),
        AddToken("ann", digest(1), 60_000),
    )
    return kept


def test_in_the_beginning_there_is_nobody_and_it_is_off() -> None:
    """So a cluster that never heard of users works as before."""
    access = Access()
    assert not access.is_on and not access.users and not access.roles and access.generation == 0
    assert Access.read([]).generation == 0


def test_a_user_has_the_rights_of_all_their_roles() -> None:
    """Who is no user has none."""
    access = crowd().access
    assert access.rights("boss").is_root
    ann = access.rights("ann")
    assert ann.may_call("command", "put_all") and ann.may_touch(Touch.of_key("read", b"a/1")) and not ann.is_root
    for nobody in ("guest", "stranger", None):
        assert not access.rights(nobody).may_call("command", "put")
    assert access.rights("stranger") is NO_RIGHTS


def test_rights_change_with_each_change() -> None:
    """At once, and the generation says so; what changes nothing keeps it."""
    kept = crowd()
    access = kept.access
    steps: list[tuple[AccessChange, bool]] = [
        (RevokeRight("clerk", PUT), False),
        (GrantRight("clerk", PUT), True),
        (TakeRole("ann", "clerk"), False),
        (GiveRole("ann", "clerk"), True),
        (GiveRole("ann", ROOT), True),
        (RemoveUser("ann"), False),
    ]
    for change, may in steps:
        before = access.generation
        access.rights("ann")
        kept.do(change)
        assert access.generation == before + 1
        assert access.rights("ann").may_call("command", "put") is may, change
    for change in (GrantRight("clerk", PUT), GiveRole("boss", ROOT), TurnOff(), SetCertificates("guest", ())):
        before = access.generation
        assert access.apply(change, 0) == {} and access.generation == before, change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (AddUser("ann"), "UserExists"),
        (AddUser("bob", "", ("nothing",)), "UnknownRole"),
        (AddUser("bob", "", (), ("ann.example.com",)), "CertificateTaken"),
        (SetCertificates("guest", ("x", "ann.example.com")), "CertificateTaken"),
        (RemoveUser("bob"), "UnknownUser"),
        (SetPassword("bob", HASH), "UnknownUser"),
        (SetCertificates("bob", ()), "UnknownUser"),
        (GiveRole("bob", "clerk"), "UnknownUser"),
        (GiveRole("ann", "nothing"), "UnknownRole"),
        (TakeRole("guest", "clerk"), "UnknownRole"),
        (TakeRole("bob", "clerk"), "UnknownUser"),
        (AddRole("clerk"), "RoleExists"),
        (RemoveRole("nothing"), "UnknownRole"),
        (RemoveRole("clerk"), "RoleInUse"),
        (GrantRight("nothing", PUT), "UnknownRole"),
        (RevokeRight("nothing", PUT), "UnknownRole"),
        (RevokeRight("clerk", Grant("query", "put*")), "NotGranted"),
        (AddToken("bob", digest(2), None), "UnknownUser"),
        (AddToken("guest", digest(1), None), "TokenExists"),
        (RemoveToken("bob", ""), "UnknownUser"),
        (RemoveToken("ann", "ff"), "UnknownToken"),
        (RemoveToken("guest", ""), "UnknownToken"),
        (AddUser(""), "InvalidArgument"),
        (AddUser("a b"), "InvalidArgument"),
        (AddUser("x" * 65), "InvalidArgument"),
        (AddUser("-x"), "InvalidArgument"),
        (AddUser("ümlaut"), "InvalidArgument"),
        (AddUser("bob\n"), "InvalidArgument"),
        (AddUser("bob", "in clear"), "InvalidArgument"),
        (SetPassword("ann", "in clear"), "InvalidArgument"),
        (SetPassword("ann", HASH + "x" * 512), "InvalidArgument"),
        (AddUser("bob", "", (), ("",)), "InvalidArgument"),
        (AddUser("bob", "", (), ("a\0b",)), "InvalidArgument"),
        (AddUser("bob", "", (), tuple(map(str, range(17)))), "InvalidArgument"),
        (SetCertificates("ann", ("x" * 257,)), "InvalidArgument"),
        (AddUser("bob", "", tuple(f"r{n}" for n in range(101))), "InvalidArgument"),
        (AddRole(ROOT), "InvalidArgument"),
        (RemoveRole(ROOT), "InvalidArgument"),
        (GrantRight(ROOT, PUT), "InvalidArgument"),
        (RevokeRight(ROOT, PUT), "InvalidArgument"),
        (AddRole("a/b"), "InvalidArgument"),
        (GrantRight("clerk", Grant("command", b"put")), "InvalidArgument"),
        (GrantRight("clerk", Grant("read", "a/")), "InvalidArgument"),
        (GrantRight("clerk", Grant("command", "")), "InvalidArgument"),
        (GrantRight("clerk", Grant("query", "get[ab]")), "InvalidArgument"),
        (GrantRight("clerk", Grant("write", b"x" * 1_025)), "InvalidArgument"),
        (AddToken("ann", b"short", None), "InvalidArgument"),
        (AddToken("ann", digest(2), 0), "InvalidArgument"),
        (AddToken("ann", digest(2), 10**15), "InvalidArgument"),
        (TurnOn(), "NoRoot"),
    ],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
def test_a_change_that_is_not_possible_changes_nothing(change: AccessChange, why: str) -> None:
    """It is refused with the reason's name, and everything is as before."""
    kept = crowd()
    kept.do(SetPassword("boss", ""))  # so nobody can sign in and do everything
    assert kept.refused(change) == why


def test_it_is_turned_on_only_when_somebody_can_turn_it_off() -> None:
    """A user with the role root, and a way in that lasts: a password, a certificate, a token that does not end."""
    way_in: dict[str, list[AccessChange]] = {
        "a password": [SetPassword("boss", HASH)],
        "a certificate": [SetCertificates("boss", ("boss",))],
        "a token": [AddToken("boss", digest(7), None)],
    }
    for name, changes in way_in.items():
        kept = Kept()
        kept.do(AddUser("boss", "", (ROOT,)), AddUser("ann", HASH), AddToken("boss", digest(6), 10**9))
        assert kept.refused(TurnOn()) == "NoRoot", name
        kept.do(*changes, TurnOn())
        assert kept.access.is_on, name


@pytest.mark.parametrize(
    "change",
    [
        RemoveUser("boss"),
        TakeRole("boss", ROOT),
        SetPassword("boss", ""),
        RemoveToken("keeper", ""),
        RemoveUser("keeper"),
    ],
    ids=repr,
)
def test_the_last_way_in_of_root_stays_while_it_is_on(change: AccessChange) -> None:
    """Each of these would lock everybody out, if the other root user had gone before; with both, one may go."""
    kept = Kept()
    kept.do(AddUser("boss", HASH, (ROOT,)), AddUser("keeper", "", (ROOT,)), AddToken("keeper", digest(1), None))
    kept.do(AddToken("keeper", digest(2), 10**9), AddUser("ann", HASH, (), ("ann",)), TurnOn())
    user = getattr(change, "user", "")
    other = "keeper" if user == "boss" else "boss"
    kept.do(RemoveUser(other))
    assert kept.refused(change) == "LastRoot"
    kept.do(RemoveUser("ann"), TurnOff(), change)


def test_with_two_root_users_one_may_go() -> None:
    """And a token of root that ends may be removed any time: it was no way in to rely on."""
    kept = Kept()
    kept.do(AddUser("boss", HASH, (ROOT,)), AddUser("keeper", "", (ROOT,), ("keeper",)), TurnOn())
    kept.do(AddToken("boss", digest(1), 1_000), TakeRole("keeper", ROOT), RemoveToken("boss", digest(1).hex()))
    assert kept.refused(SetPassword("boss", "")) == "LastRoot"
    kept.do(SetPassword("boss", HASH + "x"), SetCertificates("boss", ("boss",)), SetPassword("boss", ""))
    assert kept.refused(SetCertificates("boss", ())) == "LastRoot"


def test_a_token_is_its_users_until_it_is_over() -> None:
    """To the millisecond; an unknown one is nobody's."""
    kept = crowd()
    access, end = kept.access, kept.now_ms + 60_000
    assert access.user_of_token(digest(1), end - 1) == "ann"
    assert access.user_of_token(digest(1), end) is None
    assert access.user_of_token(digest(2), 0) is None
    kept.do(AddToken("guest", digest(2), None))
    assert access.user_of_token(digest(2), 2**62) == "guest"
    kept.do(RemoveUser("guest"))
    assert access.user_of_token(digest(2), 0) is None and set(access.tokens) == {digest(1)}


def test_tokens_that_are_over_go_when_others_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bounded number at once, the user's own first; so no entry changes many rows, and none is in the way."""
    monkeypatch.setattr(access_module, "OVER_REMOVED_MAX", 3)
    kept = crowd()
    kept.do(*(AddToken("guest", digest(10 + n), 1_000 + n) for n in range(5)))
    kept.do(AddToken("ann", digest(20), 5_000), AddToken("guest", digest(21), None))
    kept.now_ms += 59_000
    effects = kept.access.apply(AddToken("ann", digest(30), None), kept.now_ms)
    gone = [place[1:] for place, data in effects.items() if data is None]
    assert gone == [digest(10), digest(11), digest(20)]
    assert len(kept.access.tokens) == 6


def test_numbers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of users, roles, grants, and tokens, of all and of one; what is at the bound is refused."""
    for name, value in {
        "USERS_MAX": 3,
        "ROLES_MAX": 2,
        "ROLES_OF_ONE_MAX": 1,
        "GRANTS_MAX": 4,
        "GRANTS_OF_ONE_MAX": 3,
        "TOKENS_MAX": 3,
        "TOKENS_OF_ONE_MAX": 2,
    }.items():
        monkeypatch.setattr(access_module, name, value)
    kept = crowd()
    kept.do(AddRole("other"))
    assert kept.refused(AddUser("more")) == "TooMany"
    assert kept.refused(AddRole("more")) == "TooMany"
    assert kept.refused(GiveRole("ann", "other")) == "TooMany"
    kept.do(GrantRight("clerk", Grant("query", "a")))
    assert kept.refused(GrantRight("clerk", Grant("query", "b"))) == "TooMany"
    kept.do(GrantRight("other", PUT))
    assert kept.refused(GrantRight("other", READ_A)) == "TooMany"
    kept.do(RevokeRight("clerk", PUT), GrantRight("other", READ_A))
    kept.do(AddToken("ann", digest(2), None))
    assert kept.refused(AddToken("ann", digest(3), None)) == "TooMany"
    kept.do(AddToken("guest", digest(3), None))
    assert kept.refused(AddToken("guest", digest(4), None)) == "TooMany"
    kept.now_ms += 60_000
    kept.do(AddToken("guest", digest(4), None))


def test_a_token_is_removed_by_how_its_hash_begins() -> None:
    """If that is one; all of a user's by nothing."""
    kept = crowd()
    kept.do(*(AddToken("guest", bytes([first]) + bytes(31), None) for first in (0xAB, 0xAC, 0xB0)))
    assert kept.refused(RemoveToken("guest", "a")) == "UnknownToken"
    kept.do(RemoveToken("guest", "ab"))
    assert len(kept.access.tokens_of("guest")) == 2
    kept.do(RemoveToken("guest", ""))
    assert not kept.access.tokens_of("guest") and kept.access.tokens_of("ann")


def test_a_certificate_is_one_users() -> None:
    """Names of two users on one certificate are nobody's; a name is free again once its user has let go of it."""
    kept = crowd()
    access = kept.access
    assert access.user_of_certificate(["x", "ann.example.com"]) == "ann"
    assert access.user_of_certificate(["x"]) is None and access.user_of_certificate([]) is None
    kept.do(SetCertificates("guest", ("guest",)))
    assert access.user_of_certificate(["guest", "ann.example.com"]) is None
    kept.do(SetCertificates("ann", ()), SetCertificates("guest", ("ann.example.com",)))
    assert access.user_of_certificate(["guest", "ann.example.com"]) == "guest"
    kept.do(RemoveUser("guest"))
    assert access.user_of_certificate(["guest", "ann.example.com"]) is None


def can_turn_it_off(access: Access, name: str) -> bool:
    """Whether a user can sign in as root, also in a thousand years."""
    user = access.users[name]
    lasting = [token for token in access.tokens_of(name).values() if token.expires_ms is None]
    return ROOT in user.roles and bool(user.password or user.certificates or lasting)


NAMES = st.sampled_from(["ann", "bob", "boss"])
ROLES = st.sampled_from(["clerk", "driver", ROOT])
GRANTS = st.sampled_from([PUT, READ_A, Grant("admin", "status")])
DIGESTS = st.integers(1, 4).map(digest)
HASHES = st.sampled_from(["", HASH])
CERTIFICATES = st.lists(st.sampled_from(["c1", "c2"]), max_size=2).map(tuple)
CHANGES = st.one_of(
    st.builds(AddUser, NAMES, HASHES, st.lists(ROLES, max_size=2).map(tuple), CERTIFICATES),
    st.builds(RemoveUser, NAMES),
    st.builds(SetPassword, NAMES, HASHES),
    st.builds(SetCertificates, NAMES, CERTIFICATES),
    st.builds(AddRole, ROLES),
    st.builds(RemoveRole, ROLES),
    st.builds(GrantRight, ROLES, GRANTS),
    st.builds(RevokeRight, ROLES, GRANTS),
    st.builds(GiveRole, NAMES, ROLES),
    st.builds(TakeRole, NAMES, ROLES),
    st.builds(AddToken, NAMES, DIGESTS, st.sampled_from([None, 5, 50])),
    st.builds(RemoveToken, NAMES, st.just("")),
    st.just(TurnOn()),
    st.just(TurnOff()),
)


@settings(max_examples=200)
@given(st.lists(CHANGES, max_size=40))
def test_whatever_is_done_what_is_kept_says_the_same(changes: list[AccessChange]) -> None:
    """After any changes, possible or not: the records give an equal `Access`, with equal rights; all invariants hold;
    and while it is on, somebody can turn it off."""
    kept = Kept()
    for change in changes:
        kept.now_ms += 10
        try:
            kept.do(decode_access_change(encode_access_change(change)))
        except AccessRejected:
            continue
        access = kept.access
        again = kept.reread()
        assert all_of(again) == all_of(access)
        for name, user in access.users.items():
            assert set(user.roles) <= {ROOT, *access.roles}
            assert again.rights(name).is_root is access.rights(name).is_root is (ROOT in user.roles)
            for certificate in user.certificates:
                assert again.user_of_certificate([certificate]) == access.user_of_certificate([certificate]) == name
        assert all(token.user in access.users for token in access.tokens.values())
        assert all(list(grants) == sorted(grants, key=Grant.order) for grants in access.roles.values())
        if access.is_on:
            assert any(can_turn_it_off(access, name) for name in access.users)


def test_what_is_damaged_is_not_guessed_at() -> None:
    """A record that can't be read, or is of another kind, or has more fields than this version knows."""
    for place, data in ((b"uann", b"\xc1"), (b"zann", b"\x90"), (b"u\xff", b"\x90"), (b"", b"\x93\xc3\x01\x01")):
        with pytest.raises(StateCorruption):
            Access.read([(place, data)])


def test_a_change_of_a_later_version_is_refused() -> None:
    """Whole, and not without what is not known."""
    for data in (b"\x91\xa8BuyLunch", b"\xc1", b"\x92\xa6TurnOn\x01", b"\x91\xa6SetPas"):
        with pytest.raises(InvalidArgument):
            decode_access_change(data)


def test_no_secret_is_in_what_is_printed() -> None:
    """Neither a password nor its hash, nor what a token is found by: tracebacks and logs show `repr`."""
    secrets = (
        AddUser("ann", HASH),
        SetPassword("ann", HASH),
        AddToken("ann", b"\xab" * 32, None),
        NewUser("ann", "correct horse"),
        NewPassword("ann", "correct horse"),
        Enable("ann", "correct horse", "correct horse"),
        crowd().access.users["ann"],
    )
    for each in secrets:
        for text in (repr(each), str(each), f"{each}", repr([each])):
            assert "argon2" not in text and "xab" not in text and "correct" not in text
    assert repr(AddUser("ann", HASH, ("clerk",))) == "AddUser(user='ann', roles=('clerk',), certificates=())"


def test_tokens_are_long_and_never_the_same() -> None:
    """256 random bits, of which only the hash is kept."""
    made = {new_token() for _ in range(100)}
    assert len(made) == 100 and all(token.startswith("rkv_") and len(token) == 47 for token in made)
    assert len({digest_of(token) for token in made}) == 100 and all(len(digest_of(token)) == 32 for token in made)


def test_what_is_there_is_shown_without_secrets_a_page_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of names; going on behind the last one gives all of them once."""
    kept = crowd()
    kept.do(*(AddUser(f"user{number}") for number in range(20)))
    whole = shown(kept.access, AccessAsk())
    assert not whole.has_more and [each.user for each in whole.some_users] == sorted(kept.access.users)
    (ann,) = [each for each in whole.some_users if each.user == "ann"]
    assert ann.has_password and ann.roles == ("clerk",) and ann.tokens[0].expires_ms == kept.now_ms + 60_000
    assert "argon2" not in repr(whole)
    monkeypatch.setattr("raftkv.access.orders.PAGE_BYTES", 100)
    found, after, pages = [], "", 0
    while True:
        page = shown(kept.access, AccessAsk("users", after))
        found += page.some_users
        pages += 1
        if not page.has_more:
            break
        after = page.some_users[-1].user
    assert found == whole.some_users and pages > 5
    roles = shown(kept.access, AccessAsk("roles"))
    assert [(each.role, each.grants) for each in roles.some_roles] == [("clerk", (PUT, READ_A))]
    assert (roles.users, roles.roles, roles.tokens, roles.is_on) == (23, 1, 1, False)


@pytest.mark.parametrize("pattern", [b"\x07", b"\xc0", b"\x90", b"\x80"])
def test_a_pattern_is_text_or_bytes(pattern: bytes) -> None:
    """Each stays what it was on its way; anything else is refused as what can't be read."""
    good = encode_access_change(GrantRight("clerk", READ_A))
    assert decode_access_change(good) == GrantRight("clerk", READ_A)
    assert good.endswith(b"\xc4\x02a/")
    with pytest.raises(InvalidArgument):
        decode_access_change(good.removesuffix(b"\xc4\x02a/") + pattern)
