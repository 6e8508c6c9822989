"""Broker, agent and nginx under a real systemd, installed as the documents say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.deployments.systemd_host import (
    AGENT,
    BROKER,
    CREDENTIAL,
    NAME,
    NGINX,
    NODE,
    PAIR,
    SystemdHost,
    build_zipapp,
)
from tests.peers.machine import Machine
from tests.peers.process import wait_until

pytestmark = pytest.mark.e2e

SECONDS: Final = 60.0
"""Longest wait for what takes one or two on an idle machine, in seconds."""

SHOP: Final = "/etc/shop"
"""A folder that agent.toml may allow, and that the unit's drop-in does not name."""

SHOP_CERTIFICATE: Final = f"""\
[[certificate]]
name = "shop"
names = ["shop.apps.corp.example"]
[certificate.files]
directory = "{SHOP}/tls"
[certificate.expects]
anchors = "/etc/penstock/corp-roots.pem"
"""

READ_ONLY: Final = ("/srv/open", "/etc/penstock", "/usr/local/bin", "/run", "/run/lock")
"""Folders that nothing of ours writes into; the first and the last are open to every user."""

FORBIDDEN: Final = {
    **{f"write {folder}": "EROFS" for folder in READ_ONLY},
    "set-uid": "EPERM",
    "cgroup": "EROFS",
    "namespace": "EPERM",
    "personality": "EPERM",
    "netlink": "EAFNOSUPPORT",
    "packet": "EAFNOSUPPORT",
    "others' /tmp": "ENOENT",
}
"""What the units of both forbid, and how a try ends."""

FREE: Final = {"write /srv/open", "set-uid", "namespace", "personality", "netlink", "others' /tmp"}
"""What of that every user may where no unit shuts it in."""

OWN: Final[dict[str, dict[str, Any]]] = {
    AGENT: {
        "home": "/etc/nginx/tls",
        "forbidden": {
            **dict.fromkeys(("mount", "chroot", "hostname"), "SIGSYS"),
            **dict.fromkeys(("write /home", "write /var/log/penstock"), "EROFS"),
        },
        "allowed": {"write /var/lib/penstock-agent", "manager"},
        "free": {"write /run", "write /home", "mount", "chroot", "hostname", "packet", "cgroup"},
    },
    BROKER: {
        "home": "/var/lib/penstock",
        "forbidden": {
            **dict.fromkeys(("mount", "chroot", "hostname"), "EPERM"),
            **dict.fromkeys(("others' home", "write /var/lib/penstock-agent", "manager"), "EACCES"),
        },
        "allowed": {"write /var/log/penstock"},
        "free": {"write /run/lock", "others' home"},
    },
}
"""What each forbids and allows besides, and what its user may where no unit shuts it in."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdHost]:
    """A host that serves www.corp.example by a certificate that its agent put there."""
    folder = tmp_path_factory.mktemp("host")
    with Machine(folder) as machine:
        made = SystemdHost(machine)
        made.install_broker(folder)
        made.install_nginx()
        made.install_agent(build_zipapp(folder))
        made.wait_agent("www", state="seen")
        yield made


@pytest.fixture
def host(installed: SystemdHost) -> Iterator[SystemdHost]:
    """The same, as it was installed."""
    yield installed
    installed.put_back()


def renew(host: SystemdHost, name: str = NAME, *, status: int = 0) -> dict[str, Any]:
    """Renew a certificate of the host, and return how that ended as the broker tells it."""
    asked = ["renew", name, "--reason", "a test", "--wait", "50", "--json"]
    (row,) = json.loads(host.penstock(*asked, status=status))
    found: dict[str, Any] = row
    return found


def main_pid(host: SystemdHost, unit: str) -> int:
    """Return the process of a service, 0 if there is none."""
    return int(host.machine.property_of(unit, "MainPID"))


def is_active(host: SystemdHost, unit: str) -> bool:
    """Ask systemd."""
    return host.machine.run("systemctl", "is-active", unit, status=None).returncode == 0


def wait_connected(host: SystemdHost) -> None:
    """Wait until the agent tells systemd that it has its connection."""
    wait_until(
        lambda: host.machine.property_of(AGENT, "StatusText") == "connected",
        SECONDS,
        "the agent is connected",
    )


def wait_new_process(host: SystemdHost, unit: str, former: int) -> None:
    """Wait until the service has another process and is ready."""
    wait_until(
        lambda: main_pid(host, unit) not in (0, former) and is_active(host, unit),
        SECONDS,
        f"{unit} is started anew",
    )


# ------------------------------------------------------------------------------- as documented


def test_services_are_up_and_the_certificate_is_served(host: SystemdHost) -> None:
    """Both told systemd that they are ready; the agent saw the server serve what it installed."""
    machine = host.machine
    for unit in (BROKER, AGENT):
        assert is_active(host, unit)
        assert machine.property_of(unit, "Type") == "notify"
        assert machine.property_of(unit, "NRestarts") == "0"
    assert machine.property_of(AGENT, "StatusText") == "connected"
    assert machine.run("penstock-agent", "ready").stderr == ""
    status = host.agent_status()["www"]
    assert (status["state"], status["fault"]) == ("seen", None)
    assert status["fingerprint"] == host.served() == host.installed()
    shown = machine.read("stat", "-L", "-c", "%a %U %G", f"{PAIR}/privkey.pem")
    assert shown == "640 root www-data"


def test_programs_run_as_whom_they_should(host: SystemdHost) -> None:
    """The broker as its user with nothing, the agent as root with four capabilities."""
    capabilities = {"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_FOWNER": 3, "CAP_KILL": 5}
    held = sum(1 << number for number in capabilities.values())
    expected = {BROKER: ("penstock", 0), AGENT: ("root", held)}
    for unit, (user, mask) in expected.items():
        pid = main_pid(host, unit)
        assert host.machine.read("stat", "-c", "%U", f"/proc/{pid}") == user
        lines = host.machine.read("cat", f"/proc/{pid}/status").splitlines()
        facts = dict(line.split(":\t", 1) for line in lines)
        assert [int(facts[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")] == [mask] * 3
        assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
        limits = host.machine.read("cat", f"/proc/{pid}/limits")
        assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)


def test_renewed_certificate_is_taken_up_by_a_reload(host: SystemdHost) -> None:
    """By systemctl, out of the agent's sandbox: the same nginx, and the new certificate."""
    before, pid = host.served(), main_pid(host, NGINX)
    reloads = host.machine.journal(NGINX).count("Reloaded nginx.service")
    row = renew(host)
    assert (row["stage"], row["note"]) == ("seen", None)
    assert host.served() == host.installed() != before
    assert main_pid(host, NGINX) == pid
    assert host.machine.journal(NGINX).count("Reloaded nginx.service") == reloads + 1


def test_unit_that_cannot_reload_gets_the_old_one_back(host: SystemdHost) -> None:
    """The server goes on with what it had, agent and broker tell why; mended, it gets a new one."""
    before, pid = host.served(), main_pid(host, NGINX)
    host.break_nginx()
    row = renew(host, status=1)
    host.mend_nginx()
    assert row["stage"] == "restored"
    assert "reload failed: unit 'systemctl' ended with status 1" in row["note"]
    assert host.served() == host.installed() == before
    assert (is_active(host, NGINX), main_pid(host, NGINX)) == (True, pid)
    status = host.agent_status()["www"]
    assert (status["state"], status["fingerprint"]) == ("seen", before)
    assert "reload failed" in status["fault"]
    assert renew(host)["stage"] == "seen"
    assert host.served() == host.installed() != before
    assert host.agent_status()["www"]["fault"] is None


# ------------------------------------------------------------------------------------- shut in


def test_agent_writes_nowhere_else_than_its_drop_in_says(host: SystemdHost) -> None:
    """A folder that agent.toml allows stays as it is until the unit allows it too."""
    machine = host.machine
    machine.run("install", "-d", SHOP)
    host.change_agent('allowed = ["', f'allowed = ["{SHOP}", "', SHOP_CERTIFICATE)
    machine.run("systemctl", "reload", AGENT)
    refused = "Read-only file system"
    wait_until(lambda: refused in machine.journal(AGENT), SECONDS, "writing is refused")
    # A delivery of which the broker has not heard the end would be gone on with.
    asked = ("renew", "shop.apps.corp.example", "--dry-run", "--json")
    wait_until(lambda: json.loads(host.penstock(*asked))[0]["fault"], SECONDS, "it is told")
    assert machine.read("find", SHOP) == SHOP
    host.drop_in(AGENT, f"ReadWritePaths={SHOP}")
    machine.run("systemctl", "restart", AGENT)
    assert renew(host, "shop.apps.corp.example")["stage"] == "seen"
    assert host.agent_status()["shop"]["fingerprint"] == host.installed(f"{SHOP}/tls")


@pytest.mark.parametrize("unit", OWN)
def test_what_the_unit_forbids_fails(host: SystemdHost, unit: str) -> None:
    """Tried in its place: other folders, sockets, namespaces, devices; as the same user it goes."""
    open_to_all = "install -d -m 1777 /srv/open; touch /tmp/of-somebody"
    host.machine.run("sh", "-c", f"{open_to_all}; install -D /dev/null /home/somebody/file")
    own = OWN[unit]
    more = ("/home", "/tmp", "/var/lib/penstock-agent", "/var/log/penstock")
    folders = (own["home"], *READ_ONLY, *more)
    found = host.probe(unit, *folders)
    expected = FORBIDDEN | own["forbidden"]
    assert {what: found[what] for what in expected} == expected
    allowed = own["allowed"] | {f"write {own['home']}", "write /tmp", "tcp"}
    assert {what: found[what] for what in allowed} == dict.fromkeys(allowed, "done")
    user = host.machine.property_of(unit, "User") or "root"
    outside = host.probe_outside(user, *folders)
    free = FREE | own["free"]
    assert {what: outside[what] for what in free} == dict.fromkeys(free, "done")


def test_agent_that_reloads_no_unit_need_not_reach_systemd(host: SystemdHost) -> None:
    """Whoever speaks to systemd as root can have it do anything: a line in a drop-in ends that."""
    assert host.probe(AGENT, "/etc/nginx/tls")["manager"] == "done"
    host.drop_in_documented(AGENT, "no-units")
    assert host.probe(AGENT, "/etc/nginx/tls")["manager"] == "ECONNREFUSED"


def test_check_runs_in_the_sandbox_of_the_agent(host: SystemdHost) -> None:
    """`nginx -t` wants its log, its pid file and its ports: it fails until a drop-in gives them."""
    unit = 'systemd = "nginx.service"'
    host.change_agent(unit, f'{unit}\n   check = ["/usr/sbin/nginx", "-t", "-q"]')
    host.machine.run("systemctl", "restart", AGENT)
    row = renew(host, status=1)
    assert row["stage"] == "restored"
    assert "check '/usr/sbin/nginx' ended with status 1" in row["note"]
    host.drop_in_documented(AGENT, "nginx-check")
    host.machine.run("systemctl", "restart", AGENT)
    assert renew(host)["stage"] == "seen"


# ----------------------------------------------------------------------------- agent and systemd


def test_configuration_with_a_fault_is_told_and_changes_nothing(host: SystemdHost) -> None:
    """`systemctl reload` has the files read anew; the twin is read and taken up."""
    machine, pid = host.machine, main_pid(host, AGENT)
    host.change_agent("[node]", "[node]", "[[certificate]]\nnonsense = true\n")
    for text, more in (
        ("configuration refused, the old one stays", "[[certificate]]\nnonsense = true\n"),
        ("configuration read", ""),
    ):
        before = machine.journal(AGENT).count(text)
        host.change_agent("[node]", "[node]", more)
        machine.run("systemctl", "reload", AGENT)
        wait_until(
            lambda text=text, before=before: machine.journal(AGENT).count(text) > before,
            SECONDS,
            text,
        )
    assert (is_active(host, AGENT), main_pid(host, AGENT)) == (True, pid)


def test_agent_that_hangs_is_started_anew(host: SystemdHost) -> None:
    """The watchdog is fed while the agent runs, and bites when it stands still."""
    machine = host.machine
    host.drop_in(AGENT, "WatchdogSec=2s", "TimeoutStopSec=5s")
    machine.run("systemctl", "restart", AGENT)
    pid = main_pid(host, AGENT)
    wait_connected(host)
    fed = machine.property_of(AGENT, "WatchdogTimestampMonotonic")
    wait_until(
        lambda: machine.property_of(AGENT, "WatchdogTimestampMonotonic") != fed,
        SECONDS,
        "the watchdog is fed",
    )
    assert main_pid(host, AGENT) == pid
    machine.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", AGENT)
    wait_new_process(host, AGENT, pid)
    assert "Watchdog timeout" in machine.journal(AGENT)
    wait_connected(host)


def test_agent_stops_cleanly_and_starts_without_its_token(host: SystemdHost) -> None:
    """The token is spent: with it removed, as the page says, the node is known all the same."""
    machine, served = host.machine, host.served()
    machine.run("systemctl", "stop", AGENT)
    assert machine.property_of(AGENT, "Result") == "success"
    assert machine.property_of(AGENT, "ExecMainStatus") == "0"
    assert host.served() == served
    machine.run("rm", "-f", CREDENTIAL)
    machine.run("systemctl", "start", AGENT)
    wait_connected(host)
    assert renew(host)["stage"] == "seen"


# ---------------------------------------------------------------------------- broker and systemd


def test_broker_that_is_killed_comes_back_and_its_agent_with_it(host: SystemdHost) -> None:
    """Restarted by systemd; what is served is served meanwhile."""
    pid, served = main_pid(host, BROKER), host.served()
    host.machine.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", BROKER)
    assert host.served() == served
    wait_new_process(host, BROKER, pid)
    wait_until(
        lambda: bool(host.penstock_json("node", "show", NODE)["connected"]),
        SECONDS,
        "the agent is back",
    )


def test_broker_that_is_told_to_reload_while_it_starts_goes_on(host: SystemdHost) -> None:
    """The hang-up is kept until the broker says that it serves: before, it would end it."""
    machine = host.machine
    before = host.policy_sha256()
    machine.run("systemctl", "restart", "--no-block", BROKER)
    machine.run("systemctl", "reload", BROKER)
    pid = main_pid(host, BROKER)
    assert is_active(host, BROKER)
    host.change_policy(cap="20d")
    machine.run("systemctl", "reload", BROKER)
    wait_until(lambda: host.policy_sha256() != before, SECONDS, "the policy is read")
    assert main_pid(host, BROKER) == pid


def test_reload_takes_another_configuration_up_in_the_same_process(host: SystemdHost) -> None:
    """The service manager sees it reload and run; a broken file, the twin, changes nothing."""
    machine = host.machine

    def configuration() -> dict[str, Any]:
        found: dict[str, Any] = host.penstock_json("status")["configuration"]
        return found

    pid, before = main_pid(host, BROKER), configuration()["sha256"]
    host.change_broker(limits={"body": "100KiB"})
    machine.run("systemctl", "reload", BROKER)
    wait_until(lambda: configuration()["sha256"] != before, SECONDS, "it is taken up")
    wait_until(lambda: is_active(host, BROKER), SECONDS, "systemd knows that it serves")
    assert main_pid(host, BROKER) == pid
    taken = configuration()["sha256"]
    host.change_broker(limits={"order_lifetime": "1h", "body": "1B", "colour": "red"})
    machine.run("systemctl", "reload", BROKER)
    wait_until(lambda: "configuration refused" in machine.journal(BROKER), SECONDS, "it is told")
    assert is_active(host, BROKER)
    assert main_pid(host, BROKER) == pid
    host.change_broker(limits={"body": "100KiB"})
    machine.run("systemctl", "reload", BROKER)
    assert configuration()["sha256"] == taken
    wait_until(
        lambda: bool(host.penstock_json("node", "show", NODE)["connected"]),
        SECONDS,
        "the agent is back",
    )


def test_broker_stops_cleanly_and_starts_with_a_secret_that_systemd_hands_it(
    host: SystemdHost,
) -> None:
    """A passphrase that root alone can read, as a credential; without it nothing is started."""
    machine = host.machine
    machine.run("systemctl", "stop", BROKER)
    assert machine.property_of(BROKER, "Result") == "success"
    assert machine.property_of(BROKER, "ExecMainStatus") == "0"
    machine.run("cp", "-p", "/etc/penstock/passphrase", "/etc/penstock/passphrase.root")
    machine.run("chown", "root:", "/etc/penstock/passphrase.root")
    host.change_broker(keys={"passphrase": f"file:/run/credentials/{BROKER}/passphrase"})
    machine.run("systemctl", "start", BROKER, status=1)
    assert "passphrase cannot be read" in machine.journal(BROKER)
    machine.run("systemctl", "stop", BROKER)
    host.drop_in(BROKER, "LoadCredential=passphrase:/etc/penstock/passphrase.root")
    machine.run("systemctl", "start", BROKER)
    assert host.penstock_json("ca", "show", "--upstream", "local")["root_pem"]
