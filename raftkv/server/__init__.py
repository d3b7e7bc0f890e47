"""A node with everything around it: inside another program, or as a process of its own."""

import typing

from raftkv.lazy import exports as _exports

if typing.TYPE_CHECKING:
    from raftkv.server.server import Listen, Server
    from raftkv.server.tls import Tls
else:
    __getattr__, __dir__ = _exports(
        __name__,
        {
            "raftkv.server.server": "Listen Server",
            "raftkv.server.tls": "Tls",
        },
    )

__all__ = ["Listen", "Server", "Tls"]
