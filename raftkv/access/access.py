"""Who may do what: users, roles and tokens as they are, what follows for each user, and every change of that."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never

import msgspec

from raftkv.access.changes import (
    AccessChange,
    AddRole,
    AddToken,
    AddUser,
    GiveRole,
    GrantRight,
    RemoveRole,
    RemoveToken,
    RemoveUser,
    RevokeRight,
    SetCertificates,
    SetPassword,
    TakeRole,
    TurnOff,
    TurnOn,
    check_change,
)
from raftkv.access.model import (
    GRANTS_MAX,
    GRANTS_OF_ONE_MAX,
    ROLES_MAX,
    ROLES_OF_ONE_MAX,
    ROOT,
    TOKENS_MAX,
    TOKENS_OF_ONE_MAX,
    USERS_MAX,
    Grant,
    Token,
    User,
)
from raftkv.access.records import WHOLE, Records, Whole, encode_record, role_place, token_place, user_place
from raftkv.access.rights import NO_RIGHTS, Rights
from raftkv.errors import AccessRejected, InvalidArgument

OVER_REMOVED_MAX = 100
"""Tokens that are over go when another one is added, so many at once."""

RIGHTS_MAX = 1_000
"""Sets of roles whose rights are kept ready; there is one for all users with the same roles."""

Effects = dict[bytes, bytes | None]


class Access:
    """Users, roles and tokens, and whether they count. For one thread.

    Invariants: each role that a user has is there, or `ROOT`; each token is of a user; a certificate's name is of one
    user at most; while it is on, somebody with the role `ROOT` can sign in, today and later.
    """

    def __init__(self, records: Records | None = None) -> None:
        records = records if records is not None else Records()
        self.is_on = records.whole.is_on
        """Whether what no grant allows is refused; else everybody may do everything."""
        self.generation = records.whole.generation
        """Goes up with each change; what was decided by an earlier one may be otherwise now."""
        self._users = records.users
        self._roles = records.roles
        self._tokens = records.tokens
        self._by_certificate = {name: user for user, each in self._users.items() for name in each.certificates}
        self._grants = sum(map(len, self._roles.values()))
        self._rights: dict[tuple[str, ...], Rights] = {}

    @classmethod
    def read(cls, pairs: Iterable[tuple[bytes, bytes]]) -> Access:
        """As it was written: keys and values as `apply` gave them. Raises `StateCorruption`."""
        records = Records()
        for place, data in pairs:
            records.read(place, data)
        return cls(records)

    @property
    def users(self) -> Mapping[str, User]:
        """By name."""
        return self._users

    @property
    def roles(self) -> Mapping[str, tuple[Grant, ...]]:
        """The grants of each role, by its name; `ROOT` is not among them."""
        return self._roles

    @property
    def tokens(self) -> Mapping[bytes, Token]:
        """By the SHA-256 of what their holders show."""
        return self._tokens

    def rights(self, user: str | None) -> Rights:
        """What a user may do while it is on; nothing, for None and for who is no user."""
        found = self._users.get(user) if user is not None else None
        if found is None:
            return NO_RIGHTS
        rights = self._rights.get(found.roles)
        if rights is None:
            grants = [grant for role in found.roles for grant in self._roles.get(role, ())]
            if len(self._rights) >= RIGHTS_MAX:
                self._rights.clear()
            rights = self._rights[found.roles] = Rights(grants, is_root=ROOT in found.roles)
        return rights

    def user_of_token(self, digest: bytes, now_ms: int) -> str | None:
        """Whose token it is, by the SHA-256 of what is shown; None for one that is over, or is none."""
        token = self._tokens.get(digest)
        return None if token is None or token.is_over(now_ms) else token.user

    def user_of_certificate(self, names: Sequence[str]) -> str | None:
        """Who shows a certificate with these names; None when no user has any of them, or several have."""
        found = {user for name in names if (user := self._by_certificate.get(name)) is not None}
        return found.pop() if len(found) == 1 else None

    def tokens_ending(self, since_ms: int, before_ms: int) -> dict[str, int]:
        """The users whose last token ends in this time, and when; milliseconds since the epoch. Who has a later one,
        or one for good, is none of them."""
        last: dict[str, int | None] = {}
        for token in self._tokens.values():
            until = last.get(token.user, 0)
            last[token.user] = None if until is None or token.expires_ms is None else max(until, token.expires_ms)
        return {user: until for user, until in last.items() if until is not None and since_ms <= until < before_ms}

    def tokens_of(self, user: str) -> dict[bytes, Token]:
        """The tokens of a user."""
        return {digest: token for digest, token in self._tokens.items() if token.user == user}

    def apply(self, change: AccessChange, now_ms: int) -> Effects:
        """Make a change; returns which records are otherwise by it, by their keys (None: it is gone).

        Raises `AccessRejected`, and nothing is changed then.
        """
        try:
            check_change(change)
        except InvalidArgument as exc:
            raise AccessRejected("InvalidArgument", str(exc)) from exc
        effects = self._apply(change, now_ms)
        if effects:
            self.generation += 1
            self._rights.clear()
            effects[WHOLE] = encode_record(Whole(self.is_on, self.generation))
        return effects

    def _apply(self, change: AccessChange, now_ms: int) -> Effects:
        match change:
            case AddUser() | RemoveUser() | SetPassword() | SetCertificates() | GiveRole() | TakeRole():
                return self._change_user(change)
            case AddRole():
                return self._add_role(change.role)
            case RemoveRole():
                return self._remove_role(change.role)
            case GrantRight() | RevokeRight():
                return self._change_grants(change)
            case AddToken():
                return self._add_token(change, now_ms)
            case RemoveToken():
                return self._remove_tokens(change)
            case TurnOn() | TurnOff():
                return self._turn(isinstance(change, TurnOn))
            case _:
                assert_never(change)

    def _change_user(
        self, change: AddUser | RemoveUser | SetPassword | SetCertificates | GiveRole | TakeRole
    ) -> Effects:
        name = change.user
        before = self._users.get(name)
        if isinstance(change, AddUser):
            if before is not None:
                raise AccessRejected("UserExists", f"there is a user {name} already")
            if len(self._users) >= USERS_MAX:
                raise AccessRejected("TooMany", f"there are {USERS_MAX} users, and can't be more")
            roles, certificates = _sorted(change.roles), _sorted(change.certificates)
            return self._set_user(name, User(change.password, roles, certificates))
        if before is None:
            raise AccessRejected("UnknownUser", f"there is no user {name}")
        match change:
            case RemoveUser():
                self._check_root_stays(without=name)
                tokens = self.tokens_of(name)
                return {**self._set_user(name, None), **self._drop_tokens(tokens)}
            case SetPassword():
                after = msgspec.structs.replace(before, password=change.password)
            case SetCertificates():
                after = msgspec.structs.replace(before, certificates=_sorted(change.certificates))
            case GiveRole():
                after = msgspec.structs.replace(before, roles=_sorted((*before.roles, change.role)))
            case TakeRole():
                if change.role not in before.roles:
                    raise AccessRejected("UnknownRole", f"the user {name} does not have the role {change.role}")
                roles = tuple(role for role in before.roles if role != change.role)
                after = msgspec.structs.replace(before, roles=roles)
            case _:
                assert_never(change)
        return {} if after == before else self._set_user(name, after)

    def _set_user(self, name: str, after: User | None) -> Effects:
        """Have a user be so, or (None) gone."""
        before = self._users.get(name)
        if after is not None:
            self._check_user(name, after)
            if before is not None and not self._is_way_in(name, after):
                self._check_root_stays(without=name)
        for certificate in before.certificates if before is not None else ():
            del self._by_certificate[certificate]
        if after is None:
            self._users.pop(name, None)
            return {user_place(name): None}
        self._by_certificate.update(dict.fromkeys(after.certificates, name))
        self._users[name] = after
        return {user_place(name): encode_record(after)}

    def _check_user(self, name: str, user: User) -> None:
        if len(user.roles) > ROLES_OF_ONE_MAX:
            raise AccessRejected("TooMany", f"the user {name} has {ROLES_OF_ONE_MAX} roles, and can't have more")
        for role in user.roles:
            if role != ROOT and role not in self._roles:
                raise AccessRejected("UnknownRole", f"there is no role {role}")
        for certificate in user.certificates:
            other = self._by_certificate.get(certificate, name)
            if other != name:
                raise AccessRejected("CertificateTaken", f"{certificate!r} is the certificate of the user {other}")

    def _is_way_in(self, name: str, user: User, without: Mapping[bytes, Token] | None = None) -> bool:
        """Whether such a user can sign in and do everything, also later: a token that ends is no way in."""
        if ROOT not in user.roles:
            return False
        if user.password or user.certificates:
            return True
        gone = without or {}
        return any(
            token.user == name and token.expires_ms is None and digest not in gone
            for digest, token in self._tokens.items()
        )

    def _check_root_stays(self, *, without: str) -> None:
        """Raises `AccessRejected` when nobody but this user could do everything, while it is on."""
        others = (name != without and self._is_way_in(name, user) for name, user in self._users.items())
        if self.is_on and not any(others):
            raise AccessRejected(
                "LastRoot",
                f"{without} is the last user with the role {ROOT} who can sign in for good: give it to another one "
                "first, or turn it off",
            )

    def _add_role(self, role: str) -> Effects:
        if role in self._roles:
            raise AccessRejected("RoleExists", f"there is a role {role} already")
        if len(self._roles) >= ROLES_MAX:
            raise AccessRejected("TooMany", f"there are {ROLES_MAX} roles, and can't be more")
        return self._set_grants(role, ())

    def _remove_role(self, role: str) -> Effects:
        self._grants_of(role)
        holder = min((name for name, user in self._users.items() if role in user.roles), default=None)
        if holder is not None:
            raise AccessRejected("RoleInUse", f"the user {holder} has the role {role}: take it from all users first")
        self._grants -= len(self._roles.pop(role))
        return {role_place(role): None}

    def _grants_of(self, role: str) -> tuple[Grant, ...]:
        grants = self._roles.get(role)
        if grants is None:
            raise AccessRejected("UnknownRole", f"there is no role {role}")
        return grants

    def _change_grants(self, change: GrantRight | RevokeRight) -> Effects:
        role, grant = change.role, change.grant
        before = self._grants_of(role)
        if isinstance(change, RevokeRight):
            if grant not in before:
                raise AccessRejected("NotGranted", f"the role {role} does not have {grant.describe()}")
            return self._set_grants(role, tuple(each for each in before if each != grant))
        if grant in before:
            return {}
        if len(before) >= GRANTS_OF_ONE_MAX:
            raise AccessRejected("TooMany", f"the role {role} has {GRANTS_OF_ONE_MAX} grants, and can't have more")
        if self._grants >= GRANTS_MAX:
            raise AccessRejected("TooMany", f"all roles together have {GRANTS_MAX} grants, and can't have more")
        return self._set_grants(role, tuple(sorted((*before, grant), key=Grant.order)))

    def _set_grants(self, role: str, grants: tuple[Grant, ...]) -> Effects:
        self._grants += len(grants) - len(self._roles.get(role, ()))
        self._roles[role] = grants
        return {role_place(role): encode_record(grants)}

    def _add_token(self, change: AddToken, now_ms: int) -> Effects:
        if change.user not in self._users:
            raise AccessRejected("UnknownUser", f"there is no user {change.user}")
        if change.digest in self._tokens:
            raise AccessRejected("TokenExists", "there is such a token already")
        # First the user's own: there are few, so all of them go.
        over = heapq.nsmallest(
            OVER_REMOVED_MAX,
            (
                (token.user != change.user, token.expires_ms or 0, digest)
                for digest, token in self._tokens.items()
                if token.is_over(now_ms)
            ),
        )
        goes = {digest for *_, digest in over}
        of_user = sum(1 for digest in self.tokens_of(change.user) if digest not in goes)
        if of_user >= TOKENS_OF_ONE_MAX:
            raise AccessRejected("TooMany", f"the user {change.user} has {of_user} tokens, and can't have more")
        if len(self._tokens) - len(goes) >= TOKENS_MAX:
            raise AccessRejected("TooMany", f"there are {TOKENS_MAX} tokens, and can't be more")
        effects = self._drop_tokens(goes)
        token = Token(change.user, None if change.ttl_ms is None else now_ms + change.ttl_ms)
        self._tokens[change.digest] = token
        return {**effects, token_place(change.digest): encode_record(token)}

    def _remove_tokens(self, change: RemoveToken) -> Effects:
        user = self._users.get(change.user)
        if user is None:
            raise AccessRejected("UnknownUser", f"there is no user {change.user}")
        found = {d: token for d, token in self.tokens_of(change.user).items() if d.hex().startswith(change.begins)}
        if not found:
            raise AccessRejected("UnknownToken", f"the user {change.user} has no token that begins so")
        if change.begins and len(found) > 1:
            raise AccessRejected("UnknownToken", f"{len(found)} tokens of the user {change.user} begin so: say more")
        if self._is_way_in(change.user, user) and not self._is_way_in(change.user, user, found):
            self._check_root_stays(without=change.user)
        return self._drop_tokens(found)

    def _drop_tokens(self, digests: Iterable[bytes]) -> Effects:
        effects: Effects = {}
        for digest in sorted(digests):
            del self._tokens[digest]
            effects[token_place(digest)] = None
        return effects

    def _turn(self, on: bool) -> Effects:
        if self.is_on is on:
            return {}
        if on and not any(self._is_way_in(name, user) for name, user in self._users.items()):
            raise AccessRejected(
                "NoRoot",
                f"nobody could turn it off again: give a user the role {ROOT}, and a password, a certificate, or a "
                "token that does not end, first",
            )
        self.is_on = on
        return {WHOLE: None}  # `apply` says what is there now


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))
