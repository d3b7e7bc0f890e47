"""Where settings come from, which wins, and what an error says."""

from __future__ import annotations

import pytest
from click.types import BoolParamType

from raftkv.cli.settings import (
    FLAG_WORDS,
    PARSERS,
    gather,
    load_file,
    parse_member,
    parse_value,
    unknown_variables,
)
from raftkv.config import MIB
from raftkv.errors import ConfigError
from raftkv.model import Member
from raftkv.server.settings import lone_founder, parse_address


@pytest.fixture
def file(tmp_path):
    """Writes a settings file."""

    def write(text):
        path = tmp_path / "node.toml"
        path.write_text(text)
        return str(path)

    return write


def test_without_anything_it_is_one_node_on_loopback():
    """No file, no flag: the defaults that the help names."""
    settings = gather({}, environment={})
    assert (settings.node_id, settings.data_dir) == (1, "raftkv-data")
    assert (settings.listen.value, settings.peer_listen.value) == ("127.0.0.1:7001", "127.0.0.1:8001")
    assert settings.http is None and not settings.members
    assert lone_founder(settings) == Member(1, "127.0.0.1:8001", "127.0.0.1:7001")


def test_flags_win_over_the_environment_and_that_over_the_file(file):
    """Three places, one value each, and where it is from is remembered."""
    path = file('listen = "127.0.0.1:1"\nhttp = "127.0.0.1:2"\ndata-dir = "from-file"\n')
    environment = {"RAFTKV_LISTEN": "127.0.0.1:3", "RAFTKV_HTTP": "127.0.0.1:4"}
    settings = gather({"listen": "127.0.0.1:5"}, (), path, environment)
    assert settings.listen.value == "127.0.0.1:5" and settings.listen.source == "--listen"
    assert settings.http is not None and settings.http.value == "127.0.0.1:4"
    assert settings.data_dir == "from-file"


def test_the_nodes_settings_come_from_the_same_places(file):
    """--set over RAFTKV_NAME over the table [config]."""
    path = file("[config]\nheartbeat_ms = 50\nsnapshot-entries = 7\nkeep_entries = 1\nauto-upgrade = false\n")
    environment = {"RAFTKV_SNAPSHOT_ENTRIES": "8", "RAFTKV_KEEP_ENTRIES": "2", "RAFTKV_LEASE_READS": "yes"}
    config = gather({}, ("keep-entries=3", "segment_bytes=2MiB"), path, environment).config
    assert (config.heartbeat_ms, config.snapshot_entries, config.keep_entries) == (50, 8, 3)
    assert config.segment_bytes == 2 * MIB and config.lease_reads and not config.auto_upgrade


def test_members_come_as_a_list_or_with_commas(file):
    """A file has a list, a variable one text."""
    one, two = "1=a:8001/a:7001", "2=b:8001/b:7001"
    in_file = gather({}, (), file(f'member = ["{one}", "{two}"]\n'), {})
    in_environment = gather({}, (), None, {"RAFTKV_MEMBER": f"{one}, {two}"})
    assert in_file.members == in_environment.members == (Member(1, "a:8001", "a:7001"), Member(2, "b:8001", "b:7001"))


def test_a_founder_listens_where_the_members_say():
    """The addresses of --member need not be repeated."""
    settings = gather({"node_id": "2", "member": ("1=a:1/a:2", "2=b:3/b:4")}, environment={})
    assert (settings.listen.value, settings.peer_listen.value) == ("b:4", "b:3")


WRONG = [
    ({"node_id": "0"}, (), ("node_id = '0'", "--node-id", "from 1 to")),
    ({"node_id": "one"}, (), ("node_id = 'one'", "--node-id", "whole number")),
    ({"listen": "7001"}, (), ("listen = '7001'", "--listen", "HOST:PORT")),
    ({"listen": "a:70000"}, (), ("listen = 'a:70000'", "HOST:PORT")),
    ({"log_level": "loud"}, (), ("log_level = 'loud'", "--log-level", "debug, info, warning, error")),
    ({"member": ("1=a:1",)}, (), ("member = ('1=a:1',)", "--member", "ID=PEER_HOST:PORT/CLIENT_HOST:PORT")),
    ({"member": ("1=a:0/a:1",)}, (), ("member", "--member", "node 1: 'a:0' has port 0", "write the port")),
    ({"member": ("1=a:1/0.0.0.0:2",)}, (), ("member", "'0.0.0.0:2'", "nobody can dial it", "as 10.0.0.1:2")),
    ({"member": ("1=[::]:1/a:2",)}, (), ("member", "'[::]:1'", "nobody can dial it")),
    ({"member": ("1=http://a:1/http://a:2",)}, (), ("member", "ID=PEER_HOST:PORT", "not a URL")),
    ({"member": ("1=a:1/a:1",)}, (), ("member", "a:1 is given twice, of node 1 for nodes and of node 1 for clients")),
    ({"member": ("1=a:1/a:2", "2=a:3/a:1")}, (), ("member", "a:1 is given twice, of node 1 for nodes and of node 2")),
    ({"member": ("2=a:1/a:2",)}, (), ("member = [2]", "this node, 1, is not among them")),
    ({"member": ("1=a:1/a:2",), "join": True}, (), ("join (from --join)", "member (from --member)", "exclude")),
    ({}, ("heartbeat_ms=fast",), ("heartbeat_ms = 'fast'", "--set", "a whole number")),
    ({}, ("heartbeat_ms=1",), ("heartbeat_ms = 1", "--set", "at least 15")),
    ({}, ("heartbeat_ms=400",), ("election_timeout_ms = 510", "at least 2000", "heartbeat_ms = 400 from --set")),
    ({}, ("heartbeats=1",), ("heartbeats (from --set)", "no such setting", "heartbeat_ms")),
    ({}, ("snapshot_entires=1",), ("no such setting", "; did you mean 'snapshot_entries'?")),
    ({}, ("log-json=1",), ("no such setting", "; log_json is an option of its own: --log-json")),
    ({}, ("heartbeat_ms",), ("--set 'heartbeat_ms'", "NAME=VALUE")),
]


@pytest.mark.parametrize(("flags", "values", "said"), WRONG)
def test_a_wrong_setting_is_named_with_its_value_its_place_and_what_is_allowed(flags, values, said):
    """Whoever reads the error knows what to change, and where."""
    with pytest.raises(ConfigError) as raised:
        gather(flags, values, None, {})
    for words in said:
        assert words in str(raised.value)


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("RAFTKV_NODE_ID", "x", "node_id = 'x' (from the environment, RAFTKV_NODE_ID): must be a whole number"),
        ("RAFTKV_JOIN", "perhaps", "join = 'perhaps' (from the environment, RAFTKV_JOIN): must be true or false"),
        ("RAFTKV_KEEP_BYTES", "much", "keep_bytes = 'much' (from the environment, RAFTKV_KEEP_BYTES)"),
    ],
)
def test_a_wrong_variable_is_named(variable, text, said):
    """The environment is a place where one forgets things; so the error says that it was there."""
    with pytest.raises(ConfigError) as raised:
        gather({}, (), None, {variable: text})
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("node_id = 0\n", "node_id = 0 (from {path}): must be a whole number"),
        ("node_id = true\n", "node_id = True (from {path}): must be a whole number"),
        ("listne = 'a:1'\n", "listne (from {path}): no such setting; there are node_id"),
        ("keep_bytes = 1\n", "and [config]; it belongs into the table [config] of {path}"),
        ("listne = 'a:1'\n", "; did you mean 'listen'?"),
        ("config = 3\n", "config = 3 (from {path}): must be a table"),
        ("[config]\nkeep_bytes = 'x'\n", "keep_bytes = 'x' (from [config] of {path}): must be a whole number"),
        ("[config]\nkeep_byts = 1\n", "keep_byts (from [config] of {path}): no such setting"),
        ("node_id = \n", "{path}: not valid TOML"),
    ],
)
def test_a_wrong_file_is_named(file, text, said):
    """Also the key that nobody knows, and the syntax."""
    path = file(text)
    with pytest.raises(ConfigError) as raised:
        gather({}, (), path, {})
    assert said.format(path=path) in str(raised.value)


def test_a_missing_file_is_named(tmp_path):
    """It was asked for, so its absence is an error."""
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        load_file(str(tmp_path / "none.toml"))


def test_an_address_that_nobody_could_use_is_refused():
    """A lone founder writes its address into the membership; 0.0.0.0 would send others to themselves."""
    settings = gather({"listen": "0.0.0.0:7001"}, environment={})
    with pytest.raises(ConfigError, match=r"--member 1=HOST:PEER_PORT/HOST:CLIENT_PORT"):
        lone_founder(settings)


def test_variables_that_are_no_settings_are_noticed():
    """A typing error in the environment is silent otherwise; the clients' variables are none."""
    environment = {
        "RAFTKV_LISTNE": "1",
        "RAFTKV_ADDRESS": "1",
        "RAFTKV_CONFIG": "1",
        "RAFTKV_TICK_MS": "1",
        "HOME": "1",
    }
    (unknown,) = unknown_variables(environment).items()
    assert unknown == ("RAFTKV_LISTNE", "no setting of this name; raftkv serve --help; did you mean 'RAFTKV_LISTEN'?")


@pytest.mark.parametrize("word", ["1", "0", "t", "F", "True", "no", "ON", "off", "y", "N", " yes ", ""])
def test_a_flag_in_the_environment_is_written_as_for_other_commands(word):
    """What click takes for a flag is one, and nothing else; for settings of the node as well, but an empty one."""
    expected = BoolParamType.str_to_bool(word)
    assert gather({}, (), None, {"RAFTKV_LOG_JSON": word}).log_json is expected
    if word:
        assert gather({}, (), None, {"RAFTKV_LEASE_READS": word}).config.lease_reads is expected
        assert gather({}, (f"lease_reads={word}",), None, {}).config.lease_reads is expected
    assert set(FLAG_WORDS) == set(BoolParamType.bool_states)
    for wrong in ("2", "jein"):
        for name in ("RAFTKV_LOG_JSON", "RAFTKV_LEASE_READS"):
            with pytest.raises(ConfigError, match="must be true or false"):
                gather({}, (), None, {name: wrong})
    with pytest.raises(ConfigError, match="must be true or false"):
        gather({}, (), None, {"RAFTKV_LEASE_READS": ""})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-2", -2),
        ("1.5", 1.5),
        ("on", True),
        ("No", False),
        ("64MiB", 64 * MIB),
        ("1.5 kib", 1536),
        ("a", "a"),
    ],
)
def test_values_are_read_as_people_write_them(text, value):
    """Sizes with units, and the usual words for yes and no."""
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_addresses_may_be_of_either_internet():
    """Brackets keep an IPv6 address's colons apart from the port's."""
    assert parse_address("[::1]:80") == ("::1", 80)
    assert parse_member("3=[::1]:1/[::1]:2") == Member(3, "[::1]:1", "[::1]:2")


def test_a_number_that_is_no_id_is_said_to_be_none():
    """All else about the member is as it must be."""
    for number in ("0", "99999999999999999999"):
        with pytest.raises(ValueError, match=r"^must be a whole number from 1 to"):
            parse_member(f"{number}=h:1/h:2")
    with pytest.raises(ValueError, match=r"^must be ID=PEER_HOST"):
        parse_member("0")


def test_every_flag_is_a_setting_and_the_other_way_round():
    """What the command line offers can be in a file too."""
    from raftkv.cli.serve import serve

    flags = {parameter.name for parameter in serve.params} - {"path", "config_values"}
    assert flags == set(PARSERS)
