"""Every command against a broker that runs, and against one that does not.

What a command changed is read from the event table, past the broker; who holds the store is
asked of the lock itself, by a second process.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import signal
import sqlite3
import stat
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.cli import penstock as command_line
from tests.deployments.command_player import CommandPlayer
from tests.deployments.node_agents import TrustingPenstock
from tests.deployments.nodes_at_work import GROUPS, PROFILE, bring_nodes, trusted_nodes
from tests.deployments.penstock import REPOSITORY, AcmeCa, BuiltInCa, Penstock, secret
from tests.deployments.requester import Placed, Requester
from tests.deployments.vaulted import PREFIX, Transit, vault_section
from tests.fakes.cluster_issuer import ClusterIssuer
from tests.fakes.hostile_ca import (
    AfterFinalize,
    Behaviour,
    Fault,
    HostileCaProcess,
    Resource,
    Script,
)
from tests.fakes.hostile_ca.envelope import b64
from tests.fakes.policy_folder import signed_folder
from tests.peers import authority, process
from tests.peers.lego import Lego
from tests.peers.pebble import ChallTestSrv, Pebble, PebbleOptions
from tests.peers.vault import Vault

pytestmark = pytest.mark.peers

TRUSTED: Final = "trusted-tests"
REASON: Final = "because a test says so; 'quotes', \"more\" and ünïcode"
LIFETIME: Final = "7d"
MOUNT: Final = "transit-penstock"
IN_VAULT: Final = {"account_key": {"store": f"vault:{MOUNT}"}}
KEPT_IN_VAULT: Final = ("slow", "adopted", "moved")
"""Upstreams whose account keys are in Vault, in the end."""

HONEST: Final = Behaviour(authorizations_valid=True)
WRONG: Final = Behaviour(authorizations_valid=True, is_ca=True)
SLOW: Final = Behaviour(
    authorizations_valid=True,
    after_finalize=AfterFinalize.PROCESSING,
    polls_until_done=1000,
    retry_after="3600",
)
"""Takes an order, and has its certificate ready long after the tests."""


def named(group: click.Command, word: str) -> click.Command | None:
    """Return the command that *word* names in a group, if it does."""
    if not isinstance(group, click.Group):
        return None
    return group.get_command(click.Context(group), word)


@dataclass(frozen=True, slots=True)
class Command:
    """One command with arguments; words in capitals stand for what the scene has."""

    line: str
    event: str | None = None
    """Kind of the event that it writes, if it changes something."""

    is_empty: bool = False
    """Whether the scene has nothing for it to list."""

    note: str = ""
    """What it says on standard error beside its answer, if it says anything there."""

    logged: str = ""
    """What it finds out and logs there, where no broker runs that would have logged it."""

    @property
    def path(self) -> str:
        """The words that name the command, such as ``order show``."""
        found: click.Command = command_line
        path = []
        for word in self.line.split():
            inner = named(found, word)
            if inner is None:
                break
            found = inner
            path.append(word)
        return " ".join(path)


READING: Final = (
    Command("status"),
    Command("check"),
    Command("check --secrets --strict"),
    Command("order list"),
    Command("order list --status valid --limit 1"),
    Command("order show ORDER"),
    Command("cert list"),
    Command("cert list --due"),
    Command("cert list --held"),
    Command("cert list --not-seen", is_empty=True),
    Command("cert list --not-renewed", is_empty=True),
    Command("cert show CERTIFICATE"),
    Command("cert show FINGERPRINT"),
    Command("cert renewal CERTIFICATE"),
    Command("cert renewal FINGERPRINT"),
    Command("cert retiring", is_empty=True),
    Command("account list"),
    Command("account show ACCOUNT"),
    Command("eab list"),
    Command("frozen", is_empty=True),
    Command("owner list"),
    Command("owner show tests"),
    Command("upstream list"),
    Command("upstream show pebble"),
    Command("upstream check hostile"),
    Command("upstream former", is_empty=True),
    Command("upstream former slow", is_empty=True),
    Command("upstream caa pebble --name www.example.test"),
    Command("quota show"),
    Command("quota show --upstream hostile"),
    Command("audit status"),
    Command("audit checkpoint", logged="checkpoint asked for"),
    Command("audit trace ORDER"),
    Command("audit verify"),
    Command("audit reconcile VAULT_LOG"),
    Command("cert evidence CERTIFICATE"),
    Command("backup verify BACKUP_FILE"),
    Command("ca show --upstream local"),
    Command("policy explain www.example.test --eab KEY --profile hostile"),
    Command("policy test"),
    Command("policy diff POLICIES"),
    Command("policy impact --on 2999-01-01"),
    Command("policy schema"),
    Command("policy status"),
    Command("policy reload"),
    Command("policy history"),
    Command("policy bundle verify BUNDLE --signer SIGNER"),
    Command("cert trace SEEN"),
    Command("node list"),
    Command("node show NODE"),
    Command("node requests"),
    Command("workload review prod shop/web --name web.example.test"),
    Command("renew NODE --dry-run"),
    Command("rollout list"),
    Command("rollout show web"),
    Command("incident plan --node NODE --deadline 24h"),
    Command("incident plan --issuer ISSUER --after 2020-01-01 --before 2999-01-01T00:00:00Z"),
    Command("incident list"),
    Command("incident show INCIDENT"),
    Command("approval list"),
    Command("approval show APPROVAL"),
)

CHANGING: Final = (
    Command("eab mint --label farm --name *.example.test --expires-in 30d", "eab-minted"),
    Command("owner set account ACCOUNT --owner web --contact web@corp.example", "owner-changed"),
    Command("freeze account ACCOUNT --until 1h --ask pki@corp.example", "frozen"),
    Command("unfreeze account ACCOUNT", "unfrozen"),
    Command("eab revoke OLD_KEY", "eab-revoked"),
    Command("upstream register hostile --agree-to-terms", "upstream-account-registered"),
    Command("upstream resume hostile", "upstream-resumed"),
    Command("upstream rotate-key pebble", "upstream-key-changed"),
    Command("order retry WAITING_ORDER", "order-hurried"),
    Command(
        "upstream adopt adopted LEGO_ACCOUNT",
        "upstream-account-adopted",
        note="lies there still and speaks for the account no more",
    ),
    Command("upstream adopt-certificates adopted LEGO_CERTIFICATE", "certificates-adopted"),
    Command("upstream revoke adopted LEGO_CERTIFICATE --code 4", "adopted-certificate-revoked"),
    Command(
        f"upstream move-key moved --to vault:{MOUNT}",
        "upstream-key-changed",
        note="key 'account-moved@default' speaks for the account no more",
    ),
    Command(
        "upstream recover slow --agree-to-terms",
        "upstream-account-replaced",
        logged="account is lost",
    ),
    Command("order again WAITING_ORDER", "order-begun-anew"),
    Command("backup --output BACKUPS", "backup-made"),
    Command("cert revoke CERTIFICATE --code superseded", "certificate-revocation-requested"),
    Command("account deactivate OTHER_ACCOUNT", "account-deactivated"),
    Command("ca init --upstream spare --subject CN=Spare", "ca-created"),
    Command("ca init --upstream offline --issuing-csr CSR_FILE", "ca-issuer-requested"),
    Command("ca accept CHAIN_FILE --root ROOT_FILE --upstream offline", "ca-created"),
    Command("ca rotate prepare spare", "ca-issuer-prepared"),
    Command("ca rotate activate spare", "ca-issuer-activated"),
    Command("ca rotate retire spare", "ca-issuer-retired"),
    Command("cert release HELD", "delivery-released"),
    Command("cert withdraw ASKED", "delivery-withdrawn"),
    Command("renew shop.example.test --wait 0", "delivery-begun"),
    Command("rollout halt web", "rollout-halted", logged="rollout halted"),
    Command("rollout resume web", "rollout-resumed"),
    Command("incident pause INCIDENT", "incident-paused"),
    Command("incident resume INCIDENT", "incident-resumed"),
    Command("incident abandon INCIDENT", "incident-abandoned"),
    Command("incident start --key SPKI --at-once 1", "incident-started", logged="incident started"),
    Command("node token --node new-3.example.test", "join-token-minted"),
    Command("node approve REQUEST --owner tests", "enrolment-approved"),
    Command("node deny OTHER_REQUEST", "enrolment-denied"),
    Command("node drain MEMBER", "node-drained"),
    Command("node resume MEMBER", "node-resumed"),
    Command("node revoke MEMBER", "node-revoked"),
    Command("approval approve APPROVAL --evidence ticket=7", "approval-granted"),
    Command("approval suspend APPROVAL", "approval-suspended"),
    Command("approval resume APPROVAL", "approval-resumed"),
    Command("approval renew APPROVAL", "approval-renewed"),
    Command("approval withdraw APPROVAL", "approval-withdrawn"),
    Command("approval deny OTHER_APPROVAL", "approval-denied"),
)

RESTORING: Final = (
    Command("restore BACKUP_FILE", "store-restored"),
    Command(
        "reconcile --accept-loss pebble --accept-loss moved --accept-loss slow", "store-reconciled"
    ),
)
"""Commands for another machine, with a state directory that is empty at first."""

ALONE: Final = (Command("prepare --make-ca local"),)
"""Commands that take a broker that is stopped; that nothing is done twice is part of each."""

IN_TEXT: Final = (
    "status",
    "order list",
    "order show ORDER",
    "cert show CERTIFICATE",
    "upstream list",
    "quota show",
    "policy explain www.example.test --eab KEY",
    "policy test",
    "policy diff POLICIES",
    "policy status",
    "policy history",
    "upstream former",
    "vault setup --print",
    "vault setup --print --as hcl --with-import",
)
"""Commands whose text is looked at: tables, pairs, and one that tells a story."""

WITHOUT_JSON: Final = {
    "serve",
    "demo",
    "completion",
    "admission",
    "vault setup",
    "audit export",
    "audit public-key",
    "policy bundle make",
    "policy bundle sign",
}
"""Commands that print no document: three run until they are stopped, two print a shell script, one
prints lines for another program, one a key; two write files beside policies."""

WITHOUT_OPTION: Final = {"policy schema"}
"""Commands that print JSON and nothing else, so that they need not be asked."""


PEOPLE: Final = {
    "name": "people",
    "because": "somebody has to be asked",
    "names": ["**.people.example.test"],
    "approval": {"evidence": ["ticket"]},
}
"""A rule that wants a person."""


def cluster(tmp: Path) -> dict[str, Any]:
    """Return a cluster whose pods may have some names."""
    issuer = ClusterIssuer(ec.generate_private_key(ec.SECP256R1()))
    keys = tmp / "prod.jwks"
    keys.write_bytes(issuer.key_set())
    rule = {"namespaces": ["shop"], "service_accounts": ["web"], "names": ["web.example.test"]}
    return {"issuer": issuer.issuer, "keys": str(keys), "rules": [rule]}


class Spare(AcmeCa):
    """A further built-in CA, to be made by a command."""

    def document(self, directory: Path) -> dict[str, Any]:
        """Return the configuration of a built-in upstream."""
        return BuiltInCa(name=self.name).document(1)


class Scene:
    """A broker with something of everything in its store."""

    def __init__(self, tmp: Path, stack: ExitStack, player: CommandPlayer) -> None:
        self.tmp = tmp
        self.player = player
        self.ca = stack.enter_context(HostileCaProcess(tmp / "ca", Script(standing=HONEST)))
        slow = stack.enter_context(HostileCaProcess(tmp / "slow", Script(standing=SLOW)))
        self._mac = b64(bytes(range(32)))
        declared = {"key_id": TRUSTED, "mac_key": secret(tmp, "eab.mac", self._mac)}
        spare = {"directory_url": "", "ca_bundle": tmp}
        dns = stack.enter_context(ChallTestSrv(tmp / "dns"))
        port = process.free_port()
        pebble = stack.enter_context(
            Pebble(
                tmp / "pebble",
                validation_http_port=port,
                dns_server=dns.dns_address,
                options=PebbleOptions(always_valid=True),
            )
        )
        self.pebble = pebble
        vault = stack.enter_context(Vault(tmp / "vault", storage="inmem"))
        vault_log = tmp / "vault" / "audit.log"
        device = {"type": "file", "options": {"file_path": str(vault_log)}}
        vault.ask("POST", "sys/audit/file", device)
        keys = [f"{PREFIX}.default.{name}" for name in KEPT_IN_VAULT]
        self.transit = Transit(vault, tmp, MOUNT, keys)
        upstreams = [
            AcmeCa(
                name="hostile",
                directory_url=self.ca.directory_url,
                ca_bundle=self.ca.ca_bundle,
                facts={"honours_not_after": True, "is_ct_logged": False},
            ),
            AcmeCa(
                name="slow",
                directory_url=slow.directory_url,
                ca_bundle=slow.ca_bundle,
                facts={"honours_not_after": True, "is_ct_logged": False},
                options=IN_VAULT,
            ),
            AcmeCa(
                name="pebble",
                directory_url=pebble.directory_url,
                ca_bundle=pebble.ca_bundle,
                description="pebble",
                options={"caa_identities": ["pebble.example"]},
            ),
            *(self._another("adopted", IN_VAULT), self._another("moved")),
            Spare(name="spare", **spare),  # type: ignore[arg-type]
            Spare(name="offline", **spare),  # type: ignore[arg-type]
        ]
        trusted = {
            "eab": [TRUSTED],
            "names": ["**.example.test"],
            "profiles": ["hostile", "slow"],
            "because": "the commands are tried out, not the requester",
        }
        self.penstock = TrustingPenstock(
            tmp / "penstock",
            validation_http_port=process.free_port(),
            upstreams=upstreams,
            profiles={
                name: {
                    "description": "from a CA of the tests",
                    "cap": LIFETIME,
                    "usages": ["server-auth"],
                    "upstreams": [{"upstream": upstream}],
                }
                for name, upstream in (("hostile", "hostile"), ("slow", "slow"), (PROFILE, "local"))
            },
            policy={"trusted": [trusted, trusted_nodes()], "rules": [PEOPLE]},
            agents={"groups": GROUPS, "clusters": {"prod": cluster(tmp)}},
            more={
                "external_account_bindings": [declared],
                "vault": vault_section(self.transit),
            },
            is_registering=False,
        )
        self.penstock.player = player
        self.penstock.prepare()
        self.penstock.run("upstream", "register", "hostile")
        self.penstock.run("upstream", "register", "slow")
        self.penstock.run("upstream", "register", "pebble", "--agree-to-terms")
        self.penstock.run("upstream", "register", "moved", "--agree-to-terms")
        # Its key was made in a file, and is to be in Vault from now on.
        moved = self._another("moved", IN_VAULT)
        self.penstock.set_upstreams([moved if one.name == "moved" else one for one in upstreams])
        stack.enter_context(self.penstock)
        self.values = asyncio.run(self._fill()) | asyncio.run(self._come_before())
        self.values |= bring_nodes(self.penstock, tmp / "nodes")
        self.values["ISSUER"] = self.local_issuer()
        waiting = self.penstock.json("order", "show", self.values["WAITING_ORDER"])
        self.values["WORK"] = waiting["upstream_order"]["work"]
        for key in ("KEY", "OLD_KEY"):
            self.values[key] = self.penstock.json("eab", "mint")["key_id"]
        self.values |= {
            "CSR_FILE": str(tmp / "issuing.csr"),
            "CHAIN_FILE": str(tmp / "issuing.pem"),
            "ROOT_FILE": str(tmp / "offline-root.pem"),
            "BACKUPS": str(tmp),
            "VAULT_LOG": str(vault_log),
            "POLICIES": str(self.penstock.policy_file.parent),
            "BUNDLE": str(tmp / "bundle"),
            "SIGNER": signed_folder(tmp / "bundle"),
        }
        backup = self.penstock.json("backup", "--output", str(tmp / "first.backup"))
        self.values["BACKUP_FILE"] = backup["file"]
        # The order is invalid before its certificate is revoked, which would look like a change.
        process.wait_until(self._has_revoked, 60, "what came for bad.example.test is revoked")

    def _has_revoked(self) -> bool:
        return any(event["kind"] == "certificate-revoked" for event in self.events())

    def _another(self, name: str, options: Mapping[str, Any] | None = None) -> AcmeCa:
        """Return a further upstream that is Pebble, too."""
        return AcmeCa(
            name=name,
            directory_url=self.pebble.directory_url,
            ca_bundle=self.pebble.ca_bundle,
            description="pebble",
            options=options or {},
        )

    async def _come_before(self) -> dict[str, str]:
        """Have lego obtain a certificate by an account of its own; return where both are."""
        lego = Lego(self.tmp / "lego", self.pebble.directory_url, self.pebble.ca_bundle)
        obtained = await lego.run_http(["old.example.test"], http_port=process.free_port())
        (account,) = (file.parent for file in lego.directory.rglob("account.json"))
        return {"LEGO_ACCOUNT": str(account), "LEGO_CERTIFICATE": str(obtained.certificate)}

    async def _fill(self) -> dict[str, str]:
        """Make accounts and orders, and have the upstream suspended; return what there is."""
        url, bundle = self.penstock.directory_url, self.penstock.ca_bundle
        async with Requester(url, bundle) as requester, Requester(url, bundle) as other:
            await requester.bind(TRUSTED, self._mac)
            await other.register()
            placed = await self._ended(requester, "good.example.test", "valid")
            leaf = (await placed.chain())[0]
            approvals = [
                (await requester.order(f"{word}.people.example.test", profile="hostile")).json()
                for word in ("one", "other")
            ]
            waiting = await requester.request("waiting.example.test", profile="slow")
            assert waiting.status == "processing"
            self.ca.set_script(Script(standing=WRONG))
            await self._ended(requester, "bad.example.test", "invalid")
            return {
                "APPROVAL": approvals[0]["instance"].rpartition("/")[2],
                "OTHER_APPROVAL": approvals[1]["instance"].rpartition("/")[2],
                "WAITING_ORDER": waiting.order_id,
                "ORDER": placed.order_id,
                "CERTIFICATE": placed.order["certificate"].rpartition("/")[2],
                "FINGERPRINT": leaf.fingerprint(hashes.SHA256()).hex(":"),
                "OTHER_ACCOUNT": str(other.account_url).rpartition("/")[2],
                "ACCOUNT": str(requester.account_url).rpartition("/")[2],
            }

    async def _ended(self, requester: Requester, name: str, status: str) -> Placed:
        placed = await requester.request(name, profile="hostile")
        assert await placed.settled() == status
        return placed

    def local_issuer(self) -> str:
        """Return the common name of the issuer of what nodes have."""
        found = self.penstock.rows("SELECT leaf_der FROM certificates WHERE upstream = 'local'")
        issuer = x509.load_der_x509_certificate(found[0][0]).issuer
        (name,) = issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return str(name.value)

    def words(self, command: Command) -> list[str]:
        """Return the command line with the scene's own values."""
        return [self.values.get(word, word) for word in command.line.split()]

    def events(self, database: Path | None = None) -> list[Mapping[str, Any]]:
        """Return the event table, the broker's or another's, read past any broker."""
        where = f"file:{database or self.penstock.database}?mode=ro"
        with contextlib.closing(sqlite3.connect(where, uri=True)) as opened:
            opened.row_factory = sqlite3.Row
            rows = opened.execute("SELECT * FROM events ORDER BY seq").fetchall()
        return [dict(row) for row in rows]

    def make_way(self, command: Command) -> None:
        """Do what comes from elsewhere before a command can do its part."""
        if command.path == "ca accept":
            self.sign_request()
        elif command.path == "upstream recover":
            self.lose_key()

    def lose_key(self) -> None:
        """Have Vault lose the key of the account at the upstream that is slow."""
        name = f"{PREFIX}.default.slow"
        self.transit.configure(name, deletion_allowed=True)
        self.transit.vault.ask("DELETE", f"{MOUNT}/keys/{name}")

    def sign_request(self) -> None:
        """Sign the request of the offline upstream as an offline root would."""
        request = x509.load_pem_x509_csr(Path(self.values["CSR_FILE"]).read_bytes())
        root = authority.make_root("offline root")
        now = authority.real_now()
        builder = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(root.certificate.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - authority.BACKDATE)
            .not_valid_after(now + authority.LIFETIME / 2)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(request.public_key()), critical=False
            )
            .add_extension(authority.key_identifier_of(root), critical=False)
        )
        for extension in request.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        issuing = builder.sign(root.key, hashes.SHA256())
        pem = issuing.public_bytes(serialization.Encoding.PEM)
        Path(self.values["CHAIN_FILE"]).write_bytes(pem)
        Path(self.values["ROOT_FILE"]).write_bytes(root.certificate_pem)


@pytest.fixture(scope="module")
def player(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandPlayer]:
    """A process that has imported the commands, and plays them."""
    home = tmp_path_factory.mktemp("player")
    at_checkout = {"PYTHONPATH": str(REPOSITORY)}
    with CommandPlayer(process.clean_environment(home, at_checkout)) as made:
        yield made


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, player: CommandPlayer) -> Iterator[Scene]:
    """A broker with something of everything, which runs."""
    with ExitStack() as stack:
        yield Scene(tmp_path_factory.mktemp("running"), stack, player)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, player: CommandPlayer) -> Iterator[Scene]:
    """A broker with something of everything, which was stopped."""
    with ExitStack() as stack:
        made = Scene(tmp_path_factory.mktemp("stopped"), stack, player)
        made.penstock.stop()
        yield made


@pytest.fixture(params=["running", "stopped"])
def scene(request: pytest.FixtureRequest) -> Scene:
    """Either of them."""
    found: Scene = request.getfixturevalue(request.param)
    return found


def leaves(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command of the command line that does something, with its name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, f"{path}{name} ")
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield f"{path}{name}", command


def test_every_command_has_its_case() -> None:
    """No command is left out here, and each that prints data has --json."""
    found = dict(leaves(command_line))
    played = {one.path for one in (*READING, *CHANGING, *RESTORING, *ALONE)}
    assert played | WITHOUT_JSON == set(found)
    with_json = {
        name
        for name, command in found.items()
        if any("--json" in option.opts for option in command.params)
    }
    assert with_json == set(found) - WITHOUT_JSON - WITHOUT_OPTION


# ------------------------------------------------------------------------------ what is printed


@pytest.mark.parametrize("command", READING, ids=[one.line for one in READING])
def test_reading_prints_json_and_changes_nothing(scene: Scene, command: Command) -> None:
    """--json gives JSON on standard output and nothing beside it; no event is written."""
    before = scene.events()
    words = scene.words(command)
    asked = [] if command.path in WITHOUT_OPTION else ["--json"]
    done = run(scene, *words, *asked)
    assert done.returncode == 0, done.stderr
    check_beside(scene, command, done.stderr)
    assert bool(json.loads(done.stdout)) is not command.is_empty
    assert scene.events() == before


def test_dry_run_tells_each_certificate_of_a_node(scene: Scene) -> None:
    """Each may be renewed, and none is: not even one that is on its way."""
    rows = scene.penstock.json("renew", scene.values["NODE"], "--dry-run")
    assert {row["certificate"] for row in rows} == {"smtp", "imap"}
    assert {(row["stage"], row["delivery"], row["refused"]) for row in rows} == {(None, None, None)}


def test_plan_selects_by_issuer_and_by_date(scene: Scene) -> None:
    """Of the issuer of nodes' certificates alone, from the first moment up to the second."""

    def planned(*select: str) -> int:
        return int(scene.penstock.json("incident", "plan", *select)["certificates"])

    by_issuer, everything = ("--issuer", scene.values["ISSUER"]), ("--after", "2020-01-01")
    assert 0 < planned(*by_issuer) < planned(*everything)
    assert planned(*by_issuer, *everything, "--before", "2999-01-01") == planned(*by_issuer)
    assert planned(*by_issuer, "--after", "2999-01-01") == 0
    assert planned("--before", "2020-01-01") == 0


@pytest.mark.parametrize("line", IN_TEXT)
def test_text_is_plain(running: Scene, line: str) -> None:
    """Where no terminal is, text has no colours, no spinner and no escapes."""
    done = run(running, *running.words(Command(line)))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert not [letter for letter in done.stdout if ord(letter) < 32 and letter != "\n"]


def test_changes_leave_the_name_and_the_reason(scene: Scene) -> None:
    """Each command that changes something writes one event, with who and why."""
    for command in CHANGING:
        scene.make_way(command)
        before = len(scene.events())
        done = run(scene, *scene.words(command), "--reason", REASON, "--json")
        assert done.returncode == 0, (command.line, done.stderr)
        check_beside(scene, command, done.stderr)
        assert json.loads(done.stdout), command.line
        mine = [event for event in scene.events()[before:] if event["kind"] == command.event]
        assert len(mine) == 1, command.line
        assert mine[0]["actor"] == f"operator:{getpass.getuser()}", command.line
        assert mine[0]["reason"] == REASON, command.line
    check_changed(scene)


def test_restoring_leaves_the_name_and_the_reason(scene: Scene, tmp_path: Path) -> None:
    """On another machine too each command writes one event, with who and why."""
    document = scene.penstock.config_document() | {"state": str(tmp_path / "state")}
    config = tmp_path / "elsewhere.yaml"
    config.write_text(json.dumps(document, indent=1), "utf-8")
    kept = 0
    for command in RESTORING:
        asked = ("--reason", REASON, "--json", "--config", str(config))
        done = run(scene, *scene.words(command), *asked, has_config=True, is_program=True)
        assert done.returncode == 0, (command.line, done.stderr)
        assert json.loads(done.stdout), command.line
        events = scene.events(tmp_path / "state" / "penstock.db")
        mine = [event for event in events[kept:] if event["kind"] == command.event]
        assert [(one["actor"], one["reason"]) for one in mine] == [
            (f"operator:{getpass.getuser()}", REASON)
        ], command.line
        kept = len(events)


def check_beside(scene: Scene, command: Command, stderr: str) -> None:
    """See that a command says beside its answer what it should, and nothing more."""
    said = stderr.splitlines()
    if command.logged and not scene.penstock.is_ready():
        assert any(command.logged in line for line in said), command.line
        return
    assert len(said) == bool(command.note), (command.line, stderr)
    for line in said:
        assert line.startswith("penstock: note: "), command.line
        assert command.note in line, command.line


def check_changed(scene: Scene) -> None:
    """See that the commands really did what they said, as other commands and the CA tell it."""
    keys = {key["key_id"]: key for key in scene.penstock.json("eab", "list")}
    assert keys[scene.values["OLD_KEY"]]["revoked"] is not None
    (farm,) = [key for key in keys.values() if key["label"] == "farm"]
    assert farm["names"] == ["*.example.test"]
    assert all("mac_key" not in key for key in keys.values())
    assert scene.penstock.json("status")["suspensions"] == []
    shown = scene.penstock.json("cert", "show", scene.values["CERTIFICATE"])
    assert (shown["revocation_reason"], shown["revoked"] is not None) == (4, True)
    revoked = {one.serial_hex: one.reason for one in scene.ca.ledger().revocations}
    assert revoked[f"{int(shown['serial'], 16):x}"] == 4
    check_accounts(scene)
    check_nodes(scene)
    account = scene.penstock.json("account", "show", scene.values["OTHER_ACCOUNT"])
    assert account["status"] == "deactivated"
    for upstream in ("spare", "offline"):
        made = scene.penstock.json("ca", "show", "--upstream", upstream)
        assert "BEGIN CERTIFICATE" in made["root_pem"]
    assert len(scene.ca.ledger().accounts) == 1


def check_accounts(scene: Scene) -> None:
    """See that the accounts at CAs are as the commands left them: adopted, moved, recovered."""
    shown = {one["upstream"]: one["accounts"] for one in scene.penstock.json("upstream", "list")}
    for name, version in (("adopted", 1), ("moved", 1), ("slow", 2)):
        (account,) = shown[name]
        assert account["key"]["id"] == f"vault:{MOUNT}/{PREFIX}.default.{name}#{version}"
        assert account["lost"] is None
    (former,) = scene.penstock.json("upstream", "former")
    assert (former["upstream"], former["cause"]) == ("slow", "key-gone")
    assert former["url"] != shown["slow"][0]["url"]
    old = x509.load_pem_x509_certificate(Path(scene.values["LEGO_CERTIFICATE"]).read_bytes())
    status = scene.pebble.status(f"{old.serial_number:x}")
    assert (status.is_revoked, status.reason) == (True, 4)
    work = scene.penstock.json("order", "show", scene.values["WAITING_ORDER"])["upstream_order"]
    assert work["work"] != scene.values["WORK"]


def check_nodes(scene: Scene) -> None:
    """See that nodes, what is on its way to them and the incident are as the commands left them."""
    rows, values = scene.penstock.rows, scene.values
    stages = dict(rows("SELECT delivery_id, stage FROM deliveries"))
    assert stages[values["HELD"]] in ("issued", "pushed")
    assert stages[values["ASKED"]] == "withdrawn"
    incidents = dict(rows("SELECT incident_id, status FROM incidents"))
    assert incidents.pop(values["INCIDENT"]) == "abandoned"
    assert list(incidents.values()) == ["open"]
    requests = dict(rows("SELECT request_id, status FROM enrolment_requests"))
    assert requests == {values["REQUEST"]: "approved", values["OTHER_REQUEST"]: "denied"}
    assert dict(rows("SELECT name, status FROM nodes")) == {
        values["NODE"]: "active",
        values["MEMBER"]: "revoked",
    }


# ---------------------------------------------------------------------------------- how it fails

FAILED: Final = (
    ("order show nothing", "there is no order 'nothing'"),
    ("cert show nothing", "there is no certificate 'nothing'"),
    ("cert revoke nothing", "there is no certificate 'nothing'"),
    ("account show nothing", "there is no account 'nothing'"),
    ("account deactivate nothing", "there is no account 'nothing'"),
    ("eab revoke nothing", "nothing"),
    ("eab mint --community nowhere", "no community is called 'nowhere'"),
    ("eab mint --name a..b", "a..b"),
    ("eab mint --profile nothing", "has no profile 'nothing'"),
    ("eab mint --expires-in 30", "'30' is not a duration"),
    ("order again nothing", "there is no order 'nothing'"),
    ("upstream adopt slow /nonexistent", "/nonexistent cannot be read"),
    ("upstream adopt slow LEGO_ACCOUNT", "already; say --replace to have it give way"),
    ("upstream adopt moved LEGO_ACCOUNT --keep-key", "is said with --import-existing"),
    ("upstream adopt-certificates pebble /nonexistent", "/nonexistent cannot be read"),
    ("upstream revoke pebble LEGO_CERTIFICATE --code 2", "reason 2 is not offered"),
    ("upstream revoke hostile LEGO_CERTIFICATE", "the CA refused"),
    ("upstream move-key moved --to nowhere", "'nowhere' is no place of keys"),
    ("upstream move-key hostile --to vault:elsewhere", "keeps the keys of 'hostile'"),
    ("upstream recover hostile", "there is nothing to recover"),
    ("upstream recover local", "no CA with accounts is called 'local'"),
    ("upstream former nothing", "no CA with accounts is called 'nothing'"),
    ("upstream register nothing", "no upstream is called 'nothing'"),
    ("renew nothing --dry-run", "is neither a node nor a certificate at one"),
    ("incident plan", "nothing is selected"),
    ("incident plan --issuer nobody", "no certificate comes from an issuer 'nobody'"),
    ("incident plan --after tomorrow", "'tomorrow' is no date"),
    ("incident plan --before 2020-13-01", "'2020-13-01' is no date"),
    ("upstream register local", "is built in and knows no accounts"),
    ("upstream resume local", "local"),
    ("upstream check spare2", "no upstream is called 'spare2'"),
    ("ca show --upstream hostile", "no built-in upstream is called 'hostile'"),
    ("ca init --upstream local", "local"),
    ("order list --status odd", "'odd' is no status"),
    ("freeze upstream nothing --reason test", "no upstream is called 'nothing'"),
    ("unfreeze community default --reason test", "is not frozen"),
    ("owner set eab nothing --owner web", "there is no eab-key 'nothing'"),
    ("approval show nothing", "there is no such approval"),
    ("approval approve nothing", "there is no such approval"),
    ("approval approve APPROVAL --evidence odd", "is not KIND=REFERENCE"),
    ("approval approve APPROVAL --name a.example.test", "is for names"),
    ("policy explain www.example.test --account nothing", "there is no account 'nothing'"),
    ("policy bundle verify BUNDLE", "demands no signed policies"),
)

MISUSED: Final = (
    ("order show", "missing argument"),
    ("order list --odd", "no such option"),
    ("order list --limit 0", "limit"),
    ("order list --limit many", "limit"),
    ("order", "Usage"),
    ("nothing", "no such command"),
    ("order nothing", "no such command"),
    ("cert revoke X --code odd", "--code"),
    ("policy explain", "missing argument"),
    ("upstream adopt hostile", "missing argument"),
    ("upstream move-key hostile", "missing option '--to'"),
    ("vault setup", "nothing is done to Vault from here, say --print"),
    ("policy explain www.example.test --account A --eab B", "exclude each other"),
    ("status --config /nonexistent/penstock.yaml", "cannot be read"),
)


ALSO_STOPPED: Final = ("order show nothing", "eab mint --profile nothing", "cert revoke nothing")
"""Failures that are tried without a broker too: the way is another, the sentences are the same."""


@pytest.mark.parametrize(("line", "sentence"), FAILED, ids=[line for line, _ in FAILED])
def test_failure_is_one_and_changes_nothing(running: Scene, line: str, sentence: str) -> None:
    """What cannot be done exits 1 with a sentence on standard error, and leaves no event."""
    check_failure(running, line, sentence)


@pytest.mark.parametrize("line", ALSO_STOPPED)
def test_failure_without_a_broker_is_the_same(stopped: Scene, line: str) -> None:
    """The sentences and the status do not depend on whether the broker runs."""
    check_failure(stopped, line, dict(FAILED)[line])


def check_failure(scene: Scene, line: str, sentence: str) -> None:
    """See that a command fails as it should, and only that."""
    before = scene.events()
    done = run(scene, *scene.words(Command(line)), "--json")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("penstock: error: ")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert scene.events() == before


def run(
    scene: Scene | Held, *words: str, has_config: bool = False, is_program: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command against the scene's configuration, whatever comes of it.

    The player plays it, unless it is to be the program that an operator starts.
    """
    own = words[0] in ("policy", "completion") and words[1:2] in (("schema",), ("bash",))
    config = [] if has_config or own else ["--config", str(scene.penstock.config)]
    cwd, environment = scene.penstock.directory, scene.penstock.environment()
    if not is_program:
        return scene.player.play([*words, *config], cwd=cwd, environment=environment)
    return subprocess.run(
        [*scene.penstock.program(), *words, *config],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env=environment,
        check=False,
    )


# ----------------------------------------------------------------------- who holds the store


class Held:
    """A prepared broker that does not run yet, behind a CA that can keep a command waiting."""

    def __init__(self, tmp: Path, stack: ExitStack, player: CommandPlayer) -> None:
        self.player = player
        self.ca = stack.enter_context(HostileCaProcess(tmp / "ca", Script(standing=HONEST)))
        ca = AcmeCa(
            name="hostile", directory_url=self.ca.directory_url, ca_bundle=self.ca.ca_bundle
        )
        self.penstock = Penstock(
            tmp / "penstock",
            validation_http_port=process.free_port(),
            upstreams=[ca],
            is_registering=False,
        )
        self.penstock.prepare()
        self.socket = self.penstock.state / "operator.sock"

    @contextlib.contextmanager
    def registering(self) -> Iterator[subprocess.Popen[str]]:
        """Have `upstream register` under way, waiting for the CA; it goes on afterwards."""
        asked = self.ca.ledger().count(Resource.NEW_ACCOUNT)
        self.ca.set_script(Script(standing=HONEST, faults=[Fault.hanging(Resource.NEW_ACCOUNT)]))
        words = ["upstream", "register", "hostile", "--reason", "slowly"]
        with self.begin(*words) as command:
            self.ca.wait_seen(Resource.NEW_ACCOUNT, asked + 1)
            try:
                yield command
            finally:
                self.ca.release()
                command.wait(30)

    @contextlib.contextmanager
    def begin(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Start a command and leave it running; it is killed if it outlives the block."""
        command = subprocess.Popen(
            [*self.penstock.program(), *words, "--config", str(self.penstock.config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.penstock.directory,
            env=self.penstock.environment(),
            start_new_session=True,
        )
        try:
            yield command
        finally:
            if command.poll() is None:
                command.kill()
            command.communicate(timeout=10)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory, player: CommandPlayer) -> Iterator[Held]:
    """A prepared broker that does not run yet."""
    with ExitStack() as stack:
        yield Held(tmp_path_factory.mktemp("held"), stack, player)


@pytest.mark.parametrize(
    "words", [["eab", "mint"], ["order", "list"], ["serve"]], ids=["change", "look", "serve"]
)
def test_command_without_a_broker_holds_the_store_alone(held: Held, words: list[str]) -> None:
    """While one command works on the store, a second is refused and told the first one's pid."""
    with held.registering() as first:
        refused = held.penstock.run(*words, status=1)
        assert refused.stdout == ""
        assert f"is in use by process {first.pid}" in refused.stderr
    assert first.returncode == 0
    assert held.penstock.json("eab", "mint")["key_id"]


def test_running_broker_is_asked_and_not_raced(held: Held) -> None:
    """A command goes to the broker while it runs, also one that takes long, and others with it."""
    with held.penstock:
        with held.registering() as first:
            assert held.penstock.json("eab", "mint")["key_id"]
            assert first.poll() is None
        assert first.returncode == 0


def test_second_broker_is_refused_and_the_first_goes_on(held: Held) -> None:
    """Two brokers never work on one store: the second names the first, which serves on."""
    with held.penstock:
        refused = held.penstock.run("serve", status=1)
        assert f"is in use by process {held.penstock.pid}" in refused.stderr
        assert held.penstock.is_ready()
        assert held.penstock.json("status")["version"]


@pytest.mark.parametrize("command", ALONE, ids=[one.line for one in ALONE])
def test_command_for_a_stopped_broker(held: Held, command: Command) -> None:
    """Refused beside one that runs, which goes on; done, and done again, without one."""
    words = command.line.split()
    with held.penstock:
        refused = held.penstock.run(*words, status=1)
        assert f"is in use by process {held.penstock.pid}" in refused.stderr
        assert held.penstock.is_ready()
    assert held.penstock.json(*words) == held.penstock.json(*words)


def test_operator_socket_is_its_owners_alone(held: Held) -> None:
    """Mode 0600 while the broker runs, in a directory that is nobody else's."""
    with held.penstock:
        mode = held.socket.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
        assert stat.S_IMODE(held.penstock.state.stat().st_mode) == 0o700
        for kept in (held.penstock.database, *(held.penstock.state / "keys").iterdir()):
            assert not stat.S_IMODE(kept.stat().st_mode) & 0o077, kept


def test_broker_that_cannot_be_asked_is_not_worked_around(held: Held) -> None:
    """With the socket out of reach, a command meets the lock and names who has it."""
    with held.penstock:
        moved = held.socket.rename(held.socket.with_suffix(".moved"))
        refused = held.penstock.run("eab", "mint", status=1)
        assert f"is in use by process {held.penstock.pid}" in refused.stderr
        moved.rename(held.socket)
        assert held.penstock.json("eab", "mint")["key_id"]


def test_socket_of_a_killed_broker_is_in_nobodys_way(held: Held) -> None:
    """After SIGKILL a command works on the store itself, and the next broker starts."""
    held.penstock.start()
    held.penstock.kill()
    assert held.socket.exists()
    assert held.penstock.json("eab", "mint")["key_id"]
    with held.penstock:
        assert held.penstock.json("status")["version"]


def test_sigterm_ends_the_broker_cleanly(held: Held) -> None:
    """SIGTERM: exit status 0, and the store is free for the next."""
    with held.begin("serve") as broker:
        process.wait_until(held.penstock.is_ready, 30, "the broker serves")
        broker.send_signal(signal.SIGTERM)
        assert broker.wait(20) == 0
    assert held.penstock.json("eab", "mint")["key_id"]


# --------------------------------------------------------------- without asking anybody


@pytest.mark.parametrize(("line", "sentence"), MISUSED, ids=[line for line, _ in MISUSED])
def test_misuse_is_two(held: Held, line: str, sentence: str) -> None:
    """A command line or configuration that is wrong exits 2, before anything is asked."""
    done = run(held, *line.split(), has_config="--config" in line or line in ("order", "nothing"))
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_faults_of_the_configuration_are_told_together(held: Held, tmp_path: Path) -> None:
    """`check` tells every fault with its line, as text and as JSON, and exits 2."""
    document = held.penstock.config_document()
    document["listten"] = document.pop("listen")
    document["limits"] = {"finalize_wait": 5}
    broken = tmp_path / "broken.yaml"
    broken.write_text(json.dumps(document, indent=1), "utf-8")
    done = run(held, "check", "--json", "--config", str(broken), has_config=True, is_program=True)
    assert done.returncode == 2
    faults = json.loads(done.stdout)["faults"]
    assert len(faults) >= 3
    assert all(fault["line"] for fault in faults)
    assert "did you mean 'listen'" in done.stderr
    fine = run(held, "check", "--json", is_program=True)
    assert (fine.returncode, json.loads(fine.stdout)["faults"]) == (0, [])


def test_setup_of_vault_is_a_script_of_the_shell(running: Scene) -> None:
    """`vault setup` prints what a shell can read, with each key by its name and no secret."""
    done = run(running, "vault", "setup", "--print", is_program=True)
    assert (done.returncode, done.stderr) == (0, "")
    read = subprocess.run(
        ["/bin/sh", "-n"],
        input=done.stdout,
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert (read.returncode, read.stderr) == (0, "")
    for name in KEPT_IN_VAULT:
        assert f'path "{MOUNT}/sign/{PREFIX}.default.{name}/+"' in done.stdout
    assert running.transit.serve_token not in done.stdout
    assert running.transit.rotate_token not in done.stdout


def test_completion_is_a_script_of_the_shell(held: Held) -> None:
    """`completion` needs no configuration, and its script names the command."""
    for shell in ("bash", "zsh", "fish"):
        done = run(held, "completion", shell, has_config=True, is_program=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert "_PENSTOCK_COMPLETE" in done.stdout
