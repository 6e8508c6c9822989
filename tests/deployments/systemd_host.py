"""A host under systemd with broker, agent and nginx on it, set up by what the documents say.

What can be taken from a page is taken from it: the broker's configuration and policy from README.md
and docs/agents.md, the agent's file and its drop-in from docs/agents.md, the units from
deploy/systemd.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from tests.deployments.penstock import REPOSITORY
from tests.peers import process
from tests.peers.debian import BROKER_HOME
from tests.peers.machine import Machine

__all__ = ["AGENT", "BROKER", "NAME", "NGINX", "NODE", "PAIR", "SystemdHost"]

BROKER: Final = "penstock.service"
AGENT: Final = "penstock-agent.service"
NGINX: Final = "nginx.service"

UNITS: Final = REPOSITORY / "deploy" / "systemd"

NODE: Final = "web-01.web.corp.example"
NAME: Final = "www.corp.example"
PAIR: Final = "/etc/nginx/tls/www"
"""Node, name and folder in the sample of docs/agents.md."""

PATIENCE_SECONDS: Final = 60.0
"""Longest wait for a certificate, in seconds; on an idle machine it takes two."""

PENSTOCK: Final = f"{BROKER_HOME}/bin/penstock"

CONFIG: Final = "/etc/penstock/penstock.yaml"
POLICY: Final = "/etc/penstock/policies/default.yaml"
AGENT_CONFIG: Final = "/etc/penstock/agent.toml"
INCLUDED: Final = "/etc/penstock/agent.d/more.toml"

SYSTEM: Final = "/etc/systemd/system"
DROP_IN: Final = f"{SYSTEM}/{{unit}}.d/test.conf"

CREDENTIAL: Final = "/etc/credstore/penstock.join-token"

SOON: Final = "[Service]\nRestartSec=100ms\n"
"""A drop-in of tests: the five seconds that the units wait before a restart show nothing."""

SITE: Final = """\
server {
    listen 127.0.0.1:443 ssl;
    ssl_certificate /etc/nginx/tls/www/fullchain.pem;
    ssl_certificate_key /etc/nginx/tls/www/privkey.pem;
    return 200 "nginx\\n";
}
"""

PROBE: Final = Path(__file__).with_name("systemd_probe.py")

_OF_THE_PROGRAM: Final = ("Type=", "NotifyAccess=", "Exec", "Restart", "WatchdogSec=", "WantedBy=")
"""How lines of a unit begin that are about its program, and not about what shuts it in."""

_YAML_FILE: Final = re.compile(r"<!-- file: (\S+) -->\n```yaml\n(.*?)```", re.DOTALL)
_YAML: Final = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
_TOML: Final = re.compile(
    r"<!-- agent: whole -->\n *```toml\n(.*?)^ *```", re.DOTALL | re.MULTILINE
)
_DROP_IN: Final = re.compile(r"```ini\n *# (/etc/systemd/\S+)\n(.*?)```", re.DOTALL)


def build_wheels(folder: Path) -> list[Path]:
    """Build both wheels, as docs/operations/install.md says."""
    for project in (REPOSITORY, REPOSITORY / "agents"):
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir"]
        done = subprocess.run(
            [*command, str(folder), str(project)],
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            raise process.PeerFailed(f"the wheel of {project} was not built: {done.stderr}")
    return sorted(folder.glob("*.whl"))


def build_zipapp(folder: Path) -> Path:
    """Build the agent as one file, as ``make agent`` does."""
    target = folder / "penstock-agent.pyz"
    program = [sys.executable, str(REPOSITORY / "deploy" / "agent_zipapp.py"), "--target"]
    subprocess.run([*program, str(target)], check=True, capture_output=True, timeout=60)
    return target


class SystemdHost:
    """Broker, agent and nginx on one machine; all of it is asked for by ``systemctl``."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._changed: set[str] = set()
        self._is_policy_changed = False
        self._probes = 0

    # --------------------------------------------------------------------------------- broker

    def install_broker(self, folder: Path) -> None:
        """Install the wheels, make the user and its files, the CAs, and start the service."""
        machine = self.machine
        for wheel in build_wheels(folder):
            machine.copy(wheel, f"/root/dist/{wheel.name}")
        install = f"{BROKER_HOME}/bin/python -m pip install --quiet --no-index /root/dist/*.whl"
        machine.run("sh", "-c", install)
        home = ["--home-dir", "/var/lib/penstock", "--shell", "/usr/sbin/nologin"]
        machine.run("useradd", "--system", *home, "penstock")
        machine.run("install", "-d", "-m", "0755", "/etc/penstock", "/etc/penstock/policies")
        owned = ["-o", "penstock", "-g", "penstock"]
        machine.run("install", "-d", "-m", "0700", *owned, "/var/lib/penstock")
        passphrase = "a passphrase for tests\n"
        machine.write("/etc/penstock/passphrase", passphrase, mode="0600", owner="penstock")
        self.machine.write(CONFIG, json.dumps(self.broker_document(), indent=1))
        self.machine.write(POLICY, json.dumps(self.policy_document(), indent=1))
        reason = ["--reason", "first start"]
        self.penstock("ca", "init", "--upstream", "local", "--permit-name", "corp.example", *reason)
        nodes = ["--upstream", "nodes", "--permit-name", "node.penstock.internal"]
        self.penstock("ca", "init", *nodes, *reason)
        self.install_unit(BROKER)
        machine.run("systemctl", "enable", "--now", BROKER)
        process.wait_until(self._is_broker_ready, PATIENCE_SECONDS, "the broker is ready")

    def broker_document(self) -> dict[str, Any]:
        """Return what README.md has as a first configuration, with nodes by docs/agents.md."""
        shown = dict(_YAML_FILE.findall(_page("README.md")))
        document = _read_yaml(shown[CONFIG])
        return _merged(document, _read_yaml(_YAML.findall(_page("docs/agents.md"))[0]))

    def policy_document(self) -> dict[str, Any]:
        """Return the policy of README.md, which trusts the nodes of docs/agents.md."""
        shown = dict(_YAML_FILE.findall(_page("README.md")))
        document = _read_yaml(shown[POLICY])
        return {**document, **_read_yaml(_YAML.findall(_page("docs/agents.md"))[1])}

    def change_broker(self, **sections: Any) -> None:
        """Put other sections into the broker's configuration, until ``put_back``."""
        self._changed.add(BROKER)
        self.machine.write(CONFIG, json.dumps({**self.broker_document(), **sections}))

    def change_policy(self, **sections: Any) -> None:
        """Put other sections into the policy, until ``put_back``; a reload reads them."""
        self._is_policy_changed = True
        self.machine.write(POLICY, json.dumps({**self.policy_document(), **sections}))

    def penstock(self, *arguments: str, status: int | None = 0) -> str:
        """Run a command as the broker's user and return what it printed."""
        return self.machine.run(
            "runuser", "-u", "penstock", "--", PENSTOCK, *arguments, status=status
        ).stdout

    def penstock_json(self, *arguments: str) -> Any:
        """Run a command with ``--json`` and return what it printed."""
        return json.loads(self.penstock(*arguments, "--json"))

    def policy_sha256(self) -> str:
        """Return the SHA-256 of the policy that is in force."""
        found: str = self.penstock_json("status")["policies"]["default"]
        return found

    def _is_broker_ready(self) -> bool:
        ask = "import urllib.request as r; r.urlopen('http://127.0.0.1:8081/readyz', timeout=2)"
        return self.machine.run("python3", "-c", ask, status=None).returncode == 0

    # ---------------------------------------------------------------------------------- agent

    def install_agent(self, zipapp: Path) -> None:
        """Install the one file, its configuration, token and drop-in, and start the service."""
        machine = self.machine
        machine.copy(zipapp, "/usr/local/bin/penstock-agent", mode="0755")
        root = self.penstock_json("ca", "show", "--upstream", "local")["root_pem"]
        for name in ("broker-ca.pem", "corp-roots.pem"):
            machine.write(f"/etc/penstock/{name}", root)
        machine.write(AGENT_CONFIG, agent_text())
        owner = ["--owner", "Web team", "--contact", "web@corp.example"]
        token = self.penstock_json("node", "token", "--node", NODE, *owner)["token"]
        machine.write(CREDENTIAL, token, mode="0600")
        machine.write(f"{SYSTEM}/{AGENT}.d/paths.conf", documented(AGENT, "paths"))
        machine.run("penstock-agent", "check")
        self.install_unit(AGENT)
        machine.run("systemctl", "enable", "--now", AGENT)

    def change_agent(self, former: str, text: str, more: str = "") -> None:
        """Put *text* in the place of *former* in agent.toml, and *more* beside it as a file of
        agent.d, until ``put_back``."""
        self._changed.add(AGENT)
        assert former in agent_text()
        self.machine.write(AGENT_CONFIG, agent_text().replace(former, text, 1))
        self.machine.write(INCLUDED, more)

    def install_unit(self, unit: str) -> None:
        """Install a unit of ours."""
        self.machine.copy(UNITS / unit, f"{SYSTEM}/{unit}")
        self.machine.write(f"{SYSTEM}/{unit}.d/soon.conf", SOON)
        self.machine.run("systemctl", "daemon-reload")

    def agent_status(self) -> dict[str, dict[str, Any]]:
        """Return what ``penstock-agent status`` tells, by the names of certificates."""
        done = self.machine.run("penstock-agent", "status", "--json", status=None)
        found = json.loads(done.stdout)["certificates"] if done.stdout.startswith("{") else []
        return {one["name"]: one for one in found}

    def wait_agent(self, certificate: str, **expected: Any) -> dict[str, Any]:
        """Wait until the agent tells this about a certificate, and return all that it tells."""

        def tells() -> bool:
            found = self.agent_status().get(certificate, {})
            return all(found.get(key) == value for key, value in expected.items())

        what = f"the agent tells {expected} of {certificate!r}"
        try:
            process.wait_until(tells, PATIENCE_SECONDS, what)
        except process.PeerFailed as error:
            said = process.tail(self.machine.journal(AGENT))
            raise process.PeerFailed(f"{error}: {self.agent_status()}\n{said}") from None
        return self.agent_status()[certificate]

    # ---------------------------------------------------------------------------------- units

    def drop_in(self, unit: str, *lines: str) -> None:
        """Add lines to the section of a unit's service, until ``put_back``."""
        self._changed.add(unit)
        text = "\n".join(["[Service]", *lines]) + "\n"
        self.machine.write(DROP_IN.format(unit=unit), text)
        self.machine.run("systemctl", "daemon-reload")

    def drop_in_documented(self, unit: str, name: str) -> None:
        """Put a drop-in of docs/agents.md beside a unit, until ``put_back``."""
        _, *lines = documented(unit, name).splitlines()
        self.drop_in(unit, *lines)

    def put_back(self) -> None:
        """Have everything that was changed as it was installed, and running."""
        if self._is_policy_changed:
            self._is_policy_changed = False
            self.machine.write(POLICY, json.dumps(self.policy_document(), indent=1))
            self.machine.run("systemctl", "reload", BROKER)
        if not self._changed:
            return
        for unit in self._changed:
            self.machine.run("rm", "-f", DROP_IN.format(unit=unit))
        self.machine.run("rm", "-f", INCLUDED)
        self.machine.write(CONFIG, json.dumps(self.broker_document(), indent=1))
        self.machine.write(AGENT_CONFIG, agent_text())
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "restart", *sorted(self._changed))
        self._changed.clear()

    def probe(self, unit: str, *folders: str) -> dict[str, str]:
        """Try forbidden things in the place of a unit's program, and return how each try ended.

        What shuts the program in is the unit's own text and drop-ins, copied under another name.
        """
        self._probes += 1
        machine, name = self.machine, f"probe-{self._probes}-{unit}"
        machine.copy(PROBE, "/usr/local/lib/systemd_probe.py")
        kept = [line for line in _page(f"deploy/systemd/{unit}").splitlines() if _is_kept(line)]
        start = f"ExecStart=/usr/bin/python3 /usr/local/lib/systemd_probe.py {' '.join(folders)}"
        lines = [*kept, "[Service]", "Type=oneshot", start]
        machine.write(f"{SYSTEM}/{name}", "\n".join(lines) + "\n")
        copy = '! [ -d "$0.d" ] || cp -r "$0.d" "$1.d"'
        machine.run("sh", "-c", copy, f"{SYSTEM}/{unit}", f"{SYSTEM}/{name}")
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "start", name, status=None)
        journal = machine.journal(name)
        told = [one for one in journal.splitlines() if one.startswith("{")]
        if not told:
            raise process.PeerFailed(f"the probe of {unit} told nothing: {journal}")
        found: dict[str, str] = json.loads(told[-1])
        return found

    def probe_outside(self, user: str, *folders: str) -> dict[str, str]:
        """Try the same things as *user*, without a unit around it."""
        program = ["python3", "/usr/local/lib/systemd_probe.py", *folders]
        found: dict[str, str] = json.loads(self.machine.read("runuser", "-u", user, "--", *program))
        return found

    # ---------------------------------------------------------------------------------- nginx

    def install_nginx(self) -> None:
        """Give nginx a pair that nobody trusts, to start with, and start it."""
        machine = self.machine
        machine.run("install", "-d", PAIR)
        pair = ["-keyout", f"{PAIR}/privkey.pem", "-out", f"{PAIR}/fullchain.pem"]
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        machine.run("openssl", "req", "-x509", *kind, "-subj", f"/CN={NAME}", *pair)
        machine.run("rm", "-f", "/etc/nginx/sites-enabled/default")
        machine.write("/etc/nginx/sites-enabled/www", SITE)
        machine.run("systemctl", "restart", NGINX)

    def break_nginx(self) -> None:
        """Put a line into nginx's configuration that it cannot read."""
        self.machine.write("/etc/nginx/conf.d/broken.conf", "penstock_was_here {\n")

    def mend_nginx(self) -> None:
        """Take the line away again."""
        self.machine.run("rm", "-f", "/etc/nginx/conf.d/broken.conf")

    def served(self) -> str:
        """Return the SHA-256 of the certificate that nginx serves."""
        connect = "openssl s_client -connect 127.0.0.1:443 -servername www.corp.example </dev/null"
        return self._fingerprint(f"{connect} 2>/dev/null | openssl x509")

    def installed(self, folder: str = PAIR) -> str:
        """Return the SHA-256 of the certificate in the files."""
        return self._fingerprint(f"openssl x509 -in {folder}/fullchain.pem")

    def _fingerprint(self, source: str) -> str:
        said = self.machine.read("sh", "-c", f"{source} -noout -fingerprint -sha256")
        return said.partition("=")[2].replace(":", "").lower()


def documented(unit: str, name: str) -> str:
    """Return a drop-in that docs/agents.md shows."""
    shown = dict(_DROP_IN.findall(_page("docs/agents.md")))
    return re.sub(r"^ +", "", shown[f"{SYSTEM}/{unit}.d/{name}.conf"], flags=re.MULTILINE)


def agent_text() -> str:
    """Return the file of the agent that docs/agents.md shows whole."""
    (text,) = _TOML.findall(_page("docs/agents.md"))
    return re.sub(r"^   ", "", text, flags=re.MULTILINE)


def _is_kept(line: str) -> bool:
    """Say whether a line of a unit is about what shuts its program in."""
    return not line.startswith(_OF_THE_PROGRAM)


def _page(name: str) -> str:
    return (REPOSITORY / name).read_text("utf-8")


def _read_yaml(text: str) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return found


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return both documents as one, members of tables put side by side."""
    made = dict(below)
    for key, value in above.items():
        is_table = isinstance(value, Mapping) and isinstance(made.get(key), Mapping)
        made[key] = _merged(made[key], value) if is_table else value
    return made
