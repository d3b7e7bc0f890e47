"""Who may do what: users with roles, kept in the replicated state, and what follows for each request.

`Access` has all of it as it is, makes each change, and gives everybody's `Rights`. Nothing here knows of clocks,
threads, sockets or stores; `passwords` alone needs a library, and is imported by those who hash.
"""

import typing

from raftkv.lazy import exports as _exports

if typing.TYPE_CHECKING:
    from raftkv.access.access import Access
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
        decode_access_change,
        encode_access_change,
    )
    from raftkv.access.model import ROOT, VERBS, Grant, Token, User, What
    from raftkv.access.orders import (
        AccessAsk,
        AccessOrder,
        AccessShown,
        Enable,
        NewPassword,
        NewToken,
        NewUser,
        ShownRole,
        ShownToken,
        ShownUser,
        shown,
    )
    from raftkv.access.rights import NO_RIGHTS, Kind, Rights, Touch, check_verb
    from raftkv.access.tokens import digest_of, new_token
else:
    __getattr__, __dir__ = _exports(
        __name__,
        {
            "raftkv.access.access": "Access",
            "raftkv.access.changes": (
                "AccessChange AddRole AddToken AddUser GiveRole GrantRight RemoveRole RemoveToken RemoveUser "
                "RevokeRight SetCertificates SetPassword TakeRole TurnOff TurnOn check_change decode_access_change "
                "encode_access_change"
            ),
            "raftkv.access.model": "ROOT VERBS Grant Token User What",
            "raftkv.access.orders": (
                "AccessAsk AccessOrder AccessShown Enable NewPassword NewToken NewUser ShownRole ShownToken "
                "ShownUser shown"
            ),
            "raftkv.access.rights": "NO_RIGHTS Kind Rights Touch check_verb",
            "raftkv.access.tokens": "digest_of new_token",
        },
    )

__all__ = [
    "NO_RIGHTS",
    "ROOT",
    "VERBS",
    "Access",
    "AccessAsk",
    "AccessChange",
    "AccessOrder",
    "AccessShown",
    "AddRole",
    "AddToken",
    "AddUser",
    "Enable",
    "GiveRole",
    "Grant",
    "GrantRight",
    "Kind",
    "NewPassword",
    "NewToken",
    "NewUser",
    "RemoveRole",
    "RemoveToken",
    "RemoveUser",
    "RevokeRight",
    "Rights",
    "SetCertificates",
    "SetPassword",
    "ShownRole",
    "ShownToken",
    "ShownUser",
    "TakeRole",
    "Token",
    "Touch",
    "TurnOff",
    "TurnOn",
    "User",
    "What",
    "check_change",
    "check_verb",
    "decode_access_change",
    "digest_of",
    "encode_access_change",
    "new_token",
    "shown",
]
