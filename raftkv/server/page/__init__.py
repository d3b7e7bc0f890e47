"""The page that shows a cluster: the file, what it is told once a second, and how a browser has to treat it."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from raftkv.server.page.feed import Feed, Watched

__all__ = ["Feed", "Watched", "page"]


@cache
def page() -> tuple[bytes, list[tuple[str, str]]]:
    """The file, and the headers that go with it: what stands in it may run, and nothing else, from nowhere else."""
    text = files(__name__).joinpath("page.html").read_text("utf-8")
    allowed = {"script": _hash(text, "script"), "style": _hash(text, "style")}
    policy = (
        f"default-src 'none'; script-src '{allowed['script']}'; style-src '{allowed['style']}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text.encode(), [("Content-Security-Policy", policy), *HEADERS]


HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
]


def _hash(text: str, element: str) -> str:
    """The hash of the only `element` in the file, as a policy names what it allows."""
    found = re.findall(f"<{element}>(.*?)</{element}>", text, re.DOTALL)
    assert len(found) == 1, f"{len(found)} <{element}> in the page"
    return "sha256-" + base64.b64encode(hashlib.sha256(found[0].encode()).digest()).decode()
