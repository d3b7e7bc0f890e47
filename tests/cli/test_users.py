"""`raftkv user`, `role` and `auth`: who may do what, from an empty cluster to one that asks who one is."""

from __future__ import annotations

import json

import pytest

from raftkv.access import VERBS
from raftkv.cli.users import NEW_PASSWORD
from tests.cli.commands import error_of, invoke, value_of, when_led
from tests.forked import ForkedCluster

PASSWORD = "correct horse"
OTHER = "incorrect donkey"


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A cluster of one, of this module's own: others would not get in while it is on."""
    with ForkedCluster(tmp_path_factory.mktemp("users"), 1) as cluster:
        cluster.start_all()
        when_led(cluster.nodes[1])
        yield cluster.nodes[1]


@pytest.fixture
def run(node):
    """Run a command against it, with more of an environment."""

    def run_here(*arguments, **environment):
        return invoke(*arguments, env={"RAFTKV_ADDRESS": node.member.client_address, **environment})

    return run_here


def secret_file(tmp_path, text, mode=0o600):
    """A file with a password."""
    path = tmp_path / "secret"
    path.write_text(text + "\n")
    path.chmod(mode)
    return str(path)


def test_users_and_roles_are_made_listed_and_removed(run, tmp_path):
    """Each order says what is so now; what can't be is exit code 1, with the reason's name in the text."""
    assert run("role", "add", "clerk").stdout == "role clerk is there\n"
    assert run("role", "grant", "clerk", "command", "put*").stdout == "role clerk has command put*\n"
    assert run("role", "grant", "clerk", "read", "shop/").stdout == "role clerk has read 'shop/'\n"
    assert run("role", "grant", "clerk", "write", "--hex", "ff00").exit_code == 0
    path = secret_file(tmp_path, PASSWORD)
    done = run("user", "add", "ann", "--role", "clerk", "--certificate", "ann.example.com", "--new-password-file", path)
    assert done.stdout == "user ann is there\n"
    twice = run("user", "add", "ann", "--no-password", "--json")
    assert twice.exit_code == 1 and error_of(twice)["error"] == "AccessRejected"
    assert "UserExists" in error_of(twice)["message"]
    roles = value_of(run("role", "list", "--json"))
    assert roles["roles"] == [
        {
            "role": "clerk",
            "grants": [
                {"what": "command", "pattern": "put*"},
                {"what": "read", "prefix": "shop/"},
                {"what": "write", "prefix_hex": "ff00"},
            ],
        }
    ]
    users = value_of(run("user", "list", "--json"))["users"]
    assert users == [
        {"user": "ann", "roles": ["clerk"], "certificates": ["ann.example.com"], "has_password": True, "tokens": []}
    ]
    for command in ("user", "role"):
        shown = run(command, "list")
        assert "clerk" in shown.stdout and "none of this counts yet" in shown.stderr
    assert run("user", "passwd", "ann", **{NEW_PASSWORD: OTHER}).stdout == "user ann has another password\n"
    assert run("user", "passwd", "ann", "--no-password").stdout == "user ann has no password\n"
    assert run("user", "certificate", "ann").stdout == "user ann has the certificates (none)\n"
    assert run("role", "revoke", "clerk", "write", "--hex", "ff00").exit_code == 0
    assert run("role", "revoke", "clerk", "write", "--hex", "ff00").exit_code == 1
    assert run("role", "remove", "clerk").exit_code == 1
    assert run("role", "take", "ann", "clerk").stdout == "user ann does not have the role clerk\n"
    assert run("role", "give", "ann", "clerk").stdout == "user ann has the role clerk\n"
    assert run("user", "remove", "ann").stdout == "user ann is gone\n"
    assert run("role", "remove", "clerk").stdout == "role clerk is gone\n"


def test_a_token_is_printed_once_and_removed_by_what_the_list_shows(run):
    """Nobody can read it later; an end is shown, and the number of them."""
    assert run("user", "add", "robot", "--no-password").exit_code == 0
    token = run("user", "token", "robot", "--ttl", "30d").stdout.strip()
    assert token.startswith("rkv_") and len(token) == 47
    made = value_of(run("user", "token", "robot", "--json"))
    assert made["token"] != token and made["ttl_ms"] is None
    listed = run("user", "list", "--json").stdout
    assert token not in listed and made["token"] not in listed
    (robot,) = json.loads(listed)["users"]
    assert sorted(each["expires_ms"] is None for each in robot["tokens"]) == [False, True]
    begins = next(each["begins"] for each in robot["tokens"] if each["expires_ms"] is None)
    assert run("user", "token", "robot", "--remove", begins).stdout == "removed\n"
    shown = run("user", "list").stdout
    assert begins not in shown and "robot" in shown
    assert run("user", "token", "robot", "--remove-all").exit_code == 0
    assert run("user", "token", "robot", "--remove-all").exit_code == 1
    assert run("user", "token", "robot", "--remove", "").exit_code == 2
    assert run("user", "token", "robot", "--ttl", "1h", "--remove", "a").exit_code == 2
    assert run("user", "remove", "robot").exit_code == 0


def test_a_password_is_never_an_argument_and_its_file_is_nobody_elses(run, tmp_path):
    """A file that others can read is refused, and nothing that is printed quotes it."""
    open_file = secret_file(tmp_path, PASSWORD, 0o644)
    for arguments in (
        ("user", "add", "ann", "--new-password-file", open_file),
        ("user", "add", "ann", "--new-password-file", str(tmp_path / "missing")),
        ("user", "add", "ann"),
        ("user", "add", "ann", "--no-password", "--new-password-file", open_file),
        ("role", "grant", "clerk", "command", "--hex", "ff"),
        ("role", "grant", "clerk", "fly", "x"),
    ):
        refused = run(*arguments)
        assert refused.exit_code == 2 and PASSWORD not in refused.output, arguments
    short = run("user", "add", "ann", **{NEW_PASSWORD: "short"})
    assert short.exit_code == 2 and "8 to 1024" in short.stderr
    assert value_of(run("user", "list", "--json"))["users"] == []


def test_an_order_that_there_is_not_is_not_granted(run):
    """It would look like a right, and be none. With `*`, one order must be meant; taking such a grant stays possible,
    as an older raftkv has given it."""
    assert run("role", "add", "clerk").exit_code == 0
    refused = run("role", "grant", "clerk", "admin", "snapshots")
    assert refused.exit_code == 2
    assert f"there are {', '.join(VERBS)}; did you mean 'snapshot'?" in refused.stderr
    assert run("role", "grant", "clerk", "admin", "nosuch*").exit_code == 2
    assert run("role", "grant", "clerk", "admin", "snap*").exit_code == 0
    assert run("role", "revoke", "clerk", "admin", "nosuch").exit_code == 1
    assert run("role", "remove", "clerk").exit_code == 0


def test_the_help_names_all_orders(run):
    """So that nobody has to try."""
    shown = run("role", "grant", "--help").stdout
    assert ", ".join(VERBS) in " ".join(shown.split())


def test_it_is_turned_on_by_who_has_shown_to_be_root_and_off_again(run):
    """Nobody is locked out: without a root user, and without signing in as one, it stays off."""
    assert run("auth", "status").exit_code == 1
    assert "NotProven" in run("auth", "on").stderr
    assert run("user", "add", "boss", "--role", "root", **{NEW_PASSWORD: PASSWORD}).exit_code == 0
    boss = {"RAFTKV_USER": "boss", "RAFTKV_PASSWORD": PASSWORD}
    assert "NotProven" in run("auth", "on").stderr
    assert run("auth", "status").stdout == "off: everybody may do everything; 1 users, 0 roles, 0 tokens\n"
    assert run("auth", "on", **boss).stdout == "on: from now on only what a grant allows is done\n"
    state = run("auth", "status", "--json", **boss)
    assert state.exit_code == 0 and value_of(state) == {"is_on": True, "users": 1, "roles": 0, "tokens": 0}
    last = run("user", "remove", "boss", **boss)
    assert last.exit_code == 1 and "LastRoot" in last.stderr
    assert run("auth", "off", **boss).stdout == "off: everybody may do everything\n"
    assert run("user", "remove", "boss").exit_code == 0


def test_who_has_lost_all_passwords_gets_in_again_with_the_disk(tmp_path):
    """One node alone, which is its own majority: nobody gets in from outside, and `recover --auth-off` on its stopped
    directory makes a cluster with the same data that asks nobody; without that word there is nothing to recover."""
    with ForkedCluster(tmp_path, 1) as cluster:
        cluster.start_all()
        node = cluster.nodes[1]
        when_led(node)
        address = {"RAFTKV_ADDRESS": node.member.client_address}
        boss = {**address, "RAFTKV_USER": "boss", "RAFTKV_PASSWORD": PASSWORD}
        assert invoke("put", "a", "1", env=address).exit_code == 0
        added = invoke("user", "add", "boss", "--role", "root", env={**address, NEW_PASSWORD: PASSWORD})
        assert added.exit_code == 0 and invoke("auth", "on", env=boss).exit_code == 0
        assert invoke("get", "a", env=address).exit_code != 0
        cluster.kill_all()
        words = ["recover", node.data_dir, "--i-accept-loss", "--cluster-name", "raftkv"]
        assert "nothing needs to be given up" in invoke(*words).stderr
        done = invoke(*words, "--auth-off")
        assert done.exit_code == 0 and "raftkv user passwd" in done.stdout, done.output
        node.arguments[node.arguments.index("--member") :] = []
        node.start()
        when_led(node)
        assert invoke("get", "a", env=address).stdout == "1\n"
        assert invoke("user", "passwd", "boss", env={**address, NEW_PASSWORD: OTHER}).exit_code == 0
        assert invoke("auth", "on", env={**boss, "RAFTKV_PASSWORD": OTHER}).exit_code == 0
