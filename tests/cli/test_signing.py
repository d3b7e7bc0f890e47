"""How commands sign in: by files that nobody else can read, or the environment; secrets are never arguments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from raftkv.cli.common import Target
from raftkv.cli.signing import read_secret, sign_in_options
from raftkv.client import ClientOptions
from raftkv.errors import ConfigError
from tests.cli.commands import invoke


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the one who runs the tests signs in by is of no matter."""
    for name in list(os.environ):
        if name.startswith("RAFTKV_"):
            monkeypatch.delenv(name)


def kept(tmp_path: Path, text: str | bytes, mode: int = 0o600) -> str:
    """A file with a secret."""
    path = tmp_path / "secret"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return str(path)


def signed(**given: Any) -> ClientOptions:
    """How a command would sign in."""
    return sign_in_options(**{"user": None, "password_file": None, "token_file": None, "insecure": False, **given})


def test_a_secret_is_the_only_line_of_its_file(tmp_path: Path) -> None:
    """With or without an end of line; blanks are part of it."""
    for text in ("secret", "secret\n", "secret\r\n"):
        assert read_secret(kept(tmp_path, text)) == "secret"
    assert read_secret(kept(tmp_path, " se cret \n")) == " se cret "


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o620, 0o601])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """The error says which mode it has and what to type, and does not quote the secret."""
    path = kept(tmp_path, "a secret", mode)
    with pytest.raises(ConfigError, match=f"others can read it \\(mode 0{mode:o}\\): chmod 600") as caught:
        read_secret(path)
    assert "a secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n", "a secret\nanother one\n", "x" * 1025, b"\xff\xfe secret"])
def test_a_file_without_a_single_line_is_refused(tmp_path: Path, text: str | bytes) -> None:
    """An empty one, one of several lines, one that is too long, and one that is no text."""
    with pytest.raises(ConfigError) as caught:
        read_secret(kept(tmp_path, text))
    assert "secret" not in str(caught.value).replace(str(tmp_path / "secret"), "")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """As is one that is a directory."""
    with pytest.raises(ConfigError, match="No such file"):
        read_secret(str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="directory"):
        read_secret(str(tmp_path))


def test_a_user_signs_in_by_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of a file or the environment; the file counts where there are both, and one of them is needed."""
    with pytest.raises(ConfigError, match="needs a password"):
        signed(user="ann")
    monkeypatch.setenv("RAFTKV_PASSWORD", "of the environment")
    assert signed(user="ann") == ClientOptions(user="ann", password="of the environment")
    path = kept(tmp_path, "of the file")
    assert signed(user="ann", password_file=path) == ClientOptions(user="ann", password="of the file")
    assert signed() == ClientOptions()  # it is nobody's
    with pytest.raises(ConfigError, match="whose is it"):
        signed(password_file=path)


def test_a_token_says_who_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of a file or the environment."""
    monkeypatch.setenv("RAFTKV_TOKEN", "of the environment")
    assert signed() == ClientOptions(token="of the environment")
    assert signed(token_file=kept(tmp_path, "of the file")) == ClientOptions(token="of the file")
    assert signed(insecure=True).insecure


def test_commands_have_these_options(tmp_path: Path) -> None:
    """A file that others can read ends a command with the code for wrong usage, before anything is sent."""
    path = kept(tmp_path, "a secret", 0o644)
    for option in ("--token-file", "--password-file"):
        result = invoke("get", "a", "--user", "ann", option, path)
        assert result.exit_code == 2 and "a secret" not in result.output
    result = invoke("get", "a", "-a", "db.example:7001", "--token-file", kept(tmp_path, "a secret"))
    assert result.exit_code == 2 and "without TLS" in result.output + result.stderr


def test_a_target_shows_no_secret() -> None:
    """It may be printed in a traceback."""
    target = Target(addresses=["a:1"], timeout_s=1.0, sign_in=ClientOptions(user="ann", password="my secret"))
    assert "my secret" not in repr(target) and "ann" in repr(target)
    assert target.options.deadline_s == 1.0 and target.options.password == "my secret"
