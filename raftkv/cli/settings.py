"""The settings of `raftkv serve`: flags win over the environment, that over a file, and that over the defaults. Errors
name the wrong setting and where it came from."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from raftkv.addresses import address_problems
from raftkv.config import Config
from raftkv.errors import ConfigError
from raftkv.model import NODE_ID_MAX, Member, NodeId
from raftkv.server.settings import (
    DEFAULT_LISTEN,
    DEFAULT_PEER_LISTEN,
    HTTP_SIGN_IN_MODES,
    HTTP_TLS_MODES,
    Found,
    Settings,
    parse_address,
)
from raftkv.spelling import meant

T = TypeVar("T")

LOG_LEVELS = ("debug", "info", "warning", "error")

CLIENT_VARIABLES = ("RAFTKV_ADDRESS", "RAFTKV_TIMEOUT")
"""Variables of the commands that talk to a cluster; `serve` has no use for them, and no quarrel with them."""


def parse_member(text: str) -> Member:
    """A member as `ID=PEER_HOST:PORT/CLIENT_HOST:PORT`; raises `ValueError`."""
    form = "must be ID=PEER_HOST:PORT/CLIENT_HOST:PORT, such as 1=10.0.0.1:8001/10.0.0.1:7001"
    number, _, addresses = text.partition("=")
    if addresses and number.strip().isascii() and number.strip().isdigit():
        _node_id(number.strip())  # one that is no id is said to be none, and not that the form is another
    peer, _, client = addresses.partition("/")
    try:
        member = Member(node_id=_node_id(number.strip()), peer_address=peer.strip(), client_address=client.strip())
        if "://" not in addresses:
            for address in (member.peer_address, member.client_address):
                parse_address(address)
    except ValueError:
        raise ValueError(form) from None
    if "://" in addresses:
        raise ValueError(f"{form}; not a URL")
    if problems := address_problems([member]):
        raise ValueError("; ".join(problems))
    return member


FLAG_WORDS = {
    **dict.fromkeys(("1", "t", "true", "y", "yes", "on"), True),
    **dict.fromkeys(("", "0", "f", "false", "n", "no", "off"), False),
}
"""How a flag is written, in any case: as the options of other commands take it from the environment."""


def parse_setting(name: str, text: str) -> Any:
    """The value of a setting of `Config`: where that is a flag, all words for one; else as `parse_value`.

    Nothing at all is no word there: some are true by default, so it would not mean what leaving them out means.
    """
    field = _config_fields().get(name)
    if field is not None and field.type is bool and text.strip():
        return FLAG_WORDS.get(text.strip().lower(), text)
    return parse_value(text)


def parse_value(text: str) -> Any:
    """A number, a boolean, or a size such as 64MiB."""
    lowered = text.strip().lower()
    if lowered in ("true", "yes", "on"):
        return True
    if lowered in ("false", "no", "off"):
        return False
    for suffix, factor in (("kib", 2**10), ("mib", 2**20), ("gib", 2**30), ("", 1)):
        number = lowered.removesuffix(suffix).strip()
        if lowered.endswith(suffix):
            for kind in (int, float):
                try:
                    return int(kind(number) * factor) if suffix else kind(number)
                except ValueError:
                    continue
    return text


def _node_id(given: Any) -> NodeId:
    number = int(given) if isinstance(given, str) and given.isascii() and given.isdigit() else given
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= NODE_ID_MAX:
        raise ValueError(f"must be a whole number from 1 to {NODE_ID_MAX}")
    return number


def _text(given: Any) -> str:
    if not isinstance(given, str) or not given:
        raise ValueError("must be a text that is not empty")
    return given


def _address(given: Any) -> str:
    parse_address(given if isinstance(given, str) else "")
    return str(given)


def _flag(given: Any) -> bool:
    value = FLAG_WORDS.get(given.strip().lower()) if isinstance(given, str) else given
    if not isinstance(value, bool):
        raise ValueError("must be true or false (or 1, 0, yes, no, on, off)")
    return value


def _level(given: Any) -> str:
    if given not in LOG_LEVELS:
        raise ValueError(f"must be one of {', '.join(LOG_LEVELS)}")
    return str(given)


def _http_tls(given: Any) -> str:
    if given not in HTTP_TLS_MODES:
        raise ValueError(f"must be one of {', '.join(HTTP_TLS_MODES)}")
    return str(given)


def _http_sign_in(given: Any) -> str:
    if given not in HTTP_SIGN_IN_MODES:
        raise ValueError(f"must be one of {', '.join(HTTP_SIGN_IN_MODES)}")
    return str(given)


def _names(given: Any) -> tuple[str, ...]:
    texts = given.split(",") if isinstance(given, str) else given
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError("must be any, member, or names separated by commas")
    return tuple(text.strip() for text in texts)


def _members(given: Any) -> tuple[Member, ...]:
    # One variable of the environment holds all of them, separated by commas; flags and files have a list.
    texts = given.split(",") if isinstance(given, str) else given
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError("must be a list of ID=PEER/CLIENT")
    return tuple(parse_member(text.strip()) for text in texts)


def asks_for_json(flags: Mapping[str, Any]) -> bool:
    """Whether errors are to be JSON. It is asked when the settings can't be read, so it looks only for this one."""
    try:
        return bool(flags["log_json"]) or _flag(os.environ.get("RAFTKV_LOG_JSON", "false"))
    except ValueError:
        return False


PARSERS: dict[str, Callable[[Any], Any]] = {
    "node_id": _node_id,
    "data_dir": _text,
    "listen": _address,
    "peer_listen": _address,
    "http": _address,
    "http_tls": _http_tls,
    "http_sign_in": _http_sign_in,
    "member": _members,
    "join": _flag,
    "cluster_name": _text,
    "machine": _text,
    "rebuild": _flag,
    "log_json": _flag,
    "log_level": _level,
    "tls_ca": _text,
    "tls_cert": _text,
    "tls_key": _text,
    "tls_peer_ca": _text,
    "tls_peer_names": _names,
    "peer_secret_file": _text,
    "insecure": _flag,
}
"""The settings of `raftkv serve` itself, by the name that a settings file uses; those of `Config` come beside them."""


def load_file(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a TOML file: (settings of `serve`, the values of its `[config]` table).

    Raises `ConfigError` naming the file, and the key that is unknown.
    """
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: not valid TOML: {exc}") from exc
    config = content.pop("config", {})
    if not isinstance(config, dict):
        raise ConfigError(f"config = {config!r} (from {path}): must be a table, [config]")
    settings = {key.replace("-", "_"): value for key, value in content.items()}
    for key in settings:
        if key not in PARSERS:
            there = f"there are {', '.join(PARSERS)}, and [config]"
            hint = f"; it belongs into the table [config] of {path}" if key in _config_fields() else meant(key, PARSERS)
            raise ConfigError(f"{key} (from {path}): no such setting; {there}{hint}")
    return settings, {key.replace("-", "_"): value for key, value in config.items()}


def gather(
    flags: Mapping[str, Any],
    config_flags: Sequence[str] = (),
    path: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Put together what was given; of several places the first in flags, environment, file wins.

    `flags` are by name, None for one that was not given. Raises `ConfigError` naming the setting, its
    value, where it came from and what is allowed.
    """
    environment = os.environ if environment is None else environment
    in_file, config_in_file = load_file(path) if path is not None else ({}, {})
    found: dict[str, Found[Any]] = {}
    for name, parse in PARSERS.items():
        given = _first(name, flags, environment, in_file, path)
        if given is not None:
            found[name] = Found(_checked(name, given, parse), given.source)
    config, sources = _make_config(config_flags, environment, config_in_file, path)
    return msgspec.structs.replace(_settle(found, config), given=sources)


def _first(
    name: str, flags: Mapping[str, Any], environment: Mapping[str, str], in_file: Mapping[str, Any], path: str | None
) -> Found[Any] | None:
    variable = "RAFTKV_" + name.upper()
    if flags.get(name) not in (None, ()):
        return Found(flags[name], "--" + name.replace("_", "-"))
    if variable in environment:
        return Found(environment[variable], f"the environment, {variable}")
    if name in in_file:
        return Found(in_file[name], str(path))
    return None


def _checked(name: str, given: Found[Any], parse: Callable[[Any], T]) -> T:
    try:
        return parse(given.value)
    except ValueError as exc:
        raise ConfigError(f"{name} = {given.value!r} (from {given.source}): {exc}") from None


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Environment variables that look like settings but are none: typing errors, or another program's. With what to
    do about each."""
    known = {"RAFTKV_" + name.upper() for name in (*PARSERS, *_config_fields(), "config")}
    unknown = sorted({name for name in environment if name.startswith("RAFTKV_")} - known - set(CLIENT_VARIABLES))
    there = "no setting of this name; raftkv serve --help"
    return {name: f"{there}{meant(name, sorted(known))}" for name in unknown}


def _meant_in_config(name: str, fields: Iterable[str]) -> str:
    if name in PARSERS:
        return f"; {name} is an option of its own: --{name.replace('_', '-')}"
    return meant(name, fields)


def _config_fields() -> dict[str, msgspec.structs.FieldInfo]:
    return {field.name: field for field in msgspec.structs.fields(Config)}


def _make_config(
    flags: Sequence[str], environment: Mapping[str, str], in_file: Mapping[str, Any], path: str | None
) -> tuple[Config, dict[str, str]]:
    """The node's `Config` from a file's table, the environment, and `--set name=value`; and where each is from."""
    fields = _config_fields()
    given = {name: Found(value, f"[config] of {path}") for name, value in in_file.items()}
    for name in fields:
        if (variable := "RAFTKV_" + name.upper()) in environment:
            given[name] = Found(parse_setting(name, environment[variable]), f"the environment, {variable}")
    for item in flags:
        name, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(f"--set {item!r}: must be NAME=VALUE, such as --set snapshot_entries=100000")
        name = name.strip().replace("-", "_")
        given[name] = Found(parse_setting(name, text), "--set")
    for name, found in given.items():
        if name not in fields:
            there = f"there are {', '.join(fields)}{_meant_in_config(name, fields)}"
            raise ConfigError(f"{name} (from {found.source}): no such setting; {there}")
        # Each by itself first, so that the error can say where the value came from.
        _check_type(name, found, fields[name].type)
    return _checked_config(given), {name: found.source for name, found in given.items()}


def _check_type(name: str, found: Found[Any], kind: Any) -> None:
    try:
        msgspec.convert(found.value, kind)
    except msgspec.ValidationError:
        words = {int: "a whole number", float: "a number", bool: "true or false"}
        allowed = words.get(kind, str(kind))
        raise ConfigError(f"{name} = {found.value!r} (from {found.source}): must be {allowed}") from None


def _checked_config(given: Mapping[str, Found[Any]]) -> Config:
    try:
        return Config(**{name: found.value for name, found in given.items()})
    except ConfigError as exc:
        # A default may be wrong beside what was given, so when the text names nothing of it, all of it is meant.
        named = {name: found for name, found in given.items() if name in str(exc)} or given
        sources = ", ".join(f"{name} = {found.value!r} from {found.source}" for name, found in named.items())
        raise ConfigError(f"{exc} (given: {sources})") from None


def _settle(found: dict[str, Found[Any]], config: Config) -> Settings:
    """Fill in settings that follow from others, and refuse settings that contradict each other."""
    values = {name: given.value for name, given in found.items() if name not in ("member", "listen", "peer_listen")}
    if "http" in found:
        values["http"] = found["http"]
    members: tuple[Member, ...] = found["member"].value if "member" in found else ()
    node_id = values.get("node_id", 1)
    if members and values.get("join"):
        raise ConfigError(
            f"join (from {found['join'].source}) and member (from {found['member'].source}) exclude each other: "
            "a founder is named by --member, a node that is added later is started with --join alone"
        )
    own = next((member for member in members if member.node_id == node_id), None)
    if problems := address_problems(members):
        raise ConfigError(f"members: {'; '.join(problems)} (from {found['member'].source})")
    if members and own is None:
        raise ConfigError(
            f"member = {[member.node_id for member in members]} (from {found['member'].source}): "
            f"this node, {node_id}, is not among them; set node_id, or start a node that is added later with --join"
        )
    for name, default, field in (
        ("listen", DEFAULT_LISTEN, "client_address"),
        ("peer_listen", DEFAULT_PEER_LISTEN, "peer_address"),
    ):
        fallback = Found(default, "the default", False)
        if own is not None:
            fallback = Found(getattr(own, field), "this node's --member", False)
        values[name] = found.get(name, fallback)
    return Settings(members=members, config=config, **values)
