"""Policies that change under a broker at work: taken whole, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.deployments.operator import Operator
from tests.deployments.penstock import Penstock, secret
from tests.deployments.requester import Requester
from tests.e2e.policy_breakages import BREAKAGES, CASES, PolicyFolder, changed
from tests.fakes.acme_client import make_csr
from tests.fakes.hostile_ca.envelope import b64
from tests.peers import process

pytestmark = pytest.mark.e2e

MAC_KEY: Final = b64(b"the MAC key of the trusted farm.")

LIVE_SECONDS: Final = 5.0
"""Longest until a good set is in force, in seconds: battery 22 says so."""

BUSY_FACTOR: Final = 3
"""How many times the length of a reload it may come later: little but where the machine is busy."""

FACTS: Final = """\
apiVersion: penstock.dev/v1
kind: UpstreamFacts
descriptions: {}
"""


def new_broker(home: Path, **policy: Any) -> Penstock:
    """Return a broker that looks at its policies often and trusts a farm's account."""
    home.mkdir()
    trusted = {
        "eab": ["farm"],
        "names": ["**.farm.example.test", "**.example.test"],
        "profiles": ["server"],
        "because": "the farm knows its hosts",
    }
    key = {"key_id": "farm", "mac_key": secret(home, "farm.key", MAC_KEY)}
    return Penstock(
        home,
        validation_http_port=process.free_port(),
        policy={"trusted": [trusted]},
        more={"external_account_bindings": [key], "policy": {"look_every": "200ms", **policy}},
    )


class Scene(PolicyFolder):
    """A broker with its policy directory and its operator socket."""

    def __init__(self, broker: Penstock) -> None:
        super().__init__(broker.policy_file)
        self.broker = broker
        self.operator = Operator(broker.state / "operator.sock")

    async def status(self) -> dict[str, Any]:
        """Return what is in force."""
        found: dict[str, Any] = await self.operator.ask("policy_status")
        return found

    async def reload(self) -> dict[str, Any]:
        """Have the files read now."""
        found: dict[str, Any] = await self.operator.ask("policy_reload", reason="a test")
        return found

    async def until(self, is_so: Callable[[dict[str, Any]], bool]) -> float:
        """Wait until the status is so, and return after how many seconds."""
        begun = time.monotonic()
        while not is_so(await self.status()):
            assert time.monotonic() - begun < 10 * LIVE_SECONDS, await self.status()
            await asyncio.sleep(process.POLL_SECONDS)
        return time.monotonic() - begun

    @asynccontextmanager
    async def requester(self) -> AsyncIterator[Requester]:
        """Return a client that the policy trusts."""
        async with Requester(self.broker.directory_url, self.broker.ca_bundle) as client:
            answer = await client.bind("farm", MAC_KEY)
            assert answer.status in {200, 201}, answer.body
            yield client

    def refused_by(self) -> list[str]:
        """Return the digest of the policies that refused an order, for each that they did."""
        with contextlib.closing(sqlite3.connect(self.broker.state / "penstock.db")) as store:
            rows = store.execute(
                "SELECT json_extract(data, '$.policy_sha256') FROM events"
                " WHERE kind = 'request-refused' AND data LIKE '%policy_sha256%' ORDER BY seq"
            ).fetchall()
        return [digest for (digest,) in rows]

    def readyz(self) -> str:
        """Return what the probe says."""
        return process.get(f"http://127.0.0.1:{self.broker.health_port}/readyz").decode()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Penstock]:
    """A broker for the tests that leave its policy as they found it."""
    with new_broker(tmp_path_factory.mktemp("reload") / "b") as made:
        yield made


@pytest.fixture
async def scene(running: Penstock) -> AsyncIterator[Scene]:
    """The broker with its good policy, put back after the test."""
    made = Scene(running)
    first = (await made.status())["in_force"]["sha256"]
    yield made
    made.put_back()
    told = await made.reload()
    assert told["in_force"]["sha256"] == first


# --------------------------------------------------------------------------------- broken files


async def test_broken_files_change_nothing(scene: Scene) -> None:
    """Each is told in its own words, and the old policy decides on."""
    before = await scene.status()
    wrong: list[str] = []
    for breakage in BREAKAGES:
        breakage.do(scene)
        told = await scene.reload()
        said = [] if told["refused"] is None else told["refused"]["faults"]
        if told["in_force"] != before["in_force"] or not breakage.is_told(said):
            wrong.append(f"{breakage.name}: {said[:3]}")
        scene.put_back()
    assert wrong == []
    assert len(BREAKAGES) >= 30
    assert (await scene.reload())["refused"] is None
    async with scene.requester() as client:
        placed = await client.request("a.farm.example.test")
        assert await placed.settled() == "valid"


async def test_refused_files_are_shown_everywhere_and_mended_ones_come_alive(
    scene: Scene,
) -> None:
    """By themselves, within five seconds; nothing stops being ready for them."""
    before, logged = await scene.status(), len(scene.broker.log_text())
    changed(cap="0d")(scene)
    await scene.until(lambda told: told["refused"] is not None)
    await scene.until(lambda _told: "policies refused" in scene.broker.log_text()[logged:])
    assert "default.yaml:" in scene.broker.log_text()[logged:]
    assert "[!] policies files are refused since" in scene.readyz()
    assert scene.readyz().endswith("ok\n")
    metrics = scene.broker.metrics()
    assert "penstock_policy_refused 1.0" in metrics
    assert f'penstock_policy_info{{sha256="{before["in_force"]["sha256"]}"}} 1.0' in metrics
    shown = scene.broker.run("policy", "status", status=1)
    assert "stay in force" in shown.stderr
    changed(cap="30d")(scene)
    seconds = await scene.until(
        lambda told: told["in_force"]["sha256"] != before["in_force"]["sha256"]
    )
    begun = time.monotonic()
    await scene.reload()
    assert seconds < LIVE_SECONDS + BUSY_FACTOR * (time.monotonic() - begun)
    assert "policies" not in scene.readyz()
    assert "penstock_policy_refused 0.0" in scene.broker.metrics()
    history = await scene.operator.ask("policy_history", limit=2)
    assert [row["outcome"] for row in history] == ["activated", "refused"]


async def test_hangup_takes_them_at_once(scene: Scene) -> None:
    """As an operator expects of a daemon."""
    before = await scene.status()
    changed(cap="29d")(scene)
    os.kill(scene.broker.pid, signal.SIGHUP)
    await scene.until(lambda told: told["in_force"] != before["in_force"])


async def test_swapped_config_map_is_taken_whole(scene: Scene) -> None:
    """As Kubernetes does it: a new directory, and one link renamed."""
    for number, cap in ((1, "47d"), (2, "28d")):
        release = scene.folder / f"..2026_{number}"
        release.mkdir()
        document = {**scene.document(), "cap": cap}
        (release / "default.yaml").write_text(json.dumps(document))
        cases = CASES.replace("47d", cap)
        (release / "cases.yaml").write_text(cases)
    (scene.folder / "..data").symlink_to("..2026_1")
    (scene.folder / "default.yaml").unlink()
    for name in ("default.yaml", "cases.yaml"):
        (scene.folder / name).symlink_to(f"..data/{name}")
    first = await scene.reload()
    assert first["in_force"]["cases"] == 1, first
    (scene.folder / "..next").symlink_to("..2026_2")
    (scene.folder / "..next").rename(scene.folder / "..data")
    await scene.until(lambda told: told["in_force"]["sha256"] != first["in_force"]["sha256"])
    assert (await scene.status())["refused"] is None


async def test_name_whose_rule_is_gone_is_refused_at_finalize(scene: Scene) -> None:
    """The order is judged by one version when it is made and by the stricter one at its end."""
    async with scene.requester() as client:
        ordered = await client.order("b.farm.example.test")
        assert ordered.status == 201
        changed(names={"allow": ["**.example.internal"]})(scene)
        assert (await scene.reload())["refused"] is None
        refused = await client.finalize(ordered.json(), make_csr(["b.farm.example.test"]))
        assert refused.status == 400
        assert refused.problem.endswith("rejectedIdentifier")
        (scene.folder / "default.yaml").write_bytes(scene.good)
        assert (await scene.reload())["refused"] is None
        allowed = await client.finalize(ordered.json(), make_csr(["b.farm.example.test"]))
        assert allowed.status == 200


async def test_looser_policy_does_not_loosen_an_order(scene: Scene) -> None:
    """Its cap stays the one it was made under, and so do the kinds of keys."""
    document = scene.document()
    document["profiles"]["server"]["cap"] = "10d"
    scene.put({**document, "keys": {"allow": ["ec-p256"]}})
    assert (await scene.reload())["refused"] is None
    async with scene.requester() as client:
        ordered = await client.order("c.farm.example.test")
        (scene.folder / "default.yaml").write_bytes(scene.good)
        assert (await scene.reload())["refused"] is None
        names = ["c.farm.example.test"]
        other = make_csr(names, ec.generate_private_key(ec.SECP384R1()))
        refused = await client.finalize(ordered.json(), other)
        assert refused.problem.endswith("badPublicKey")
        assert (await client.finalize(ordered.json(), make_csr(names))).status == 200
    (order,) = await scene.operator.ask("order_list", limit=1)
    shown = await scene.operator.ask("order_show", order_id=order["order"])
    assert shown["cap"] == "10d"


async def test_digest_of_a_decision_finds_the_whole_set(scene: Scene, tmp_path: Path) -> None:
    """Of an order, of its finalize and of refusals; a change of facts alone is another set."""
    decided, exported = [], []
    for number, facts in enumerate((None, FACTS)):
        if facts is not None:
            (scene.folder / "upstreams.yaml").write_text(facts)
            assert (await scene.reload())["refused"] is None
        refused_before = len(scene.refused_by())
        async with scene.requester() as client:
            placed = await client.request(f"d{number}.farm.example.test")
            assert await placed.settled() == "valid"
            assert (await client.order("d.elsewhere.invalid")).status == 400
        shown = await scene.operator.ask("order_show", order_id=placed.order_id)
        records = [(one["kind"], one["data"]) for one in shown["events"]]
        carried = [(kind, data["decision"]) for kind, data in records if "decision" in data]
        carried += [(kind, data) for kind, data in records if "policy_sha256" in data]
        assert {"order-created", "order-finalized"} <= {kind for kind, _ in carried}
        digests = {decision["policy_sha256"] for _, decision in carried}
        (refused_by,) = scene.refused_by()[refused_before:]
        assert digests | {refused_by} == {(await scene.status())["in_force"]["sha256"]}
        decided.append(shown["decision"])
        folder = tmp_path / str(number)
        digest = str(shown["decision"]["policy_sha256"])
        scene.broker.run("policy", "history", "--export", digest, str(folder))
        exported.append({one.name: one.read_text() for one in folder.rglob("*.yaml")})
    assert exported[0] == {"default.yaml": scene.good.decode()}
    assert exported[1] == {**exported[0], "upstreams.yaml": FACTS}
    assert decided[0]["document_sha256"] == decided[1]["document_sha256"]
    unknown = str(decided[0]["document_sha256"])
    told = scene.broker.run("policy", "history", "--export", unknown, str(tmp_path / "x"), status=1)
    assert "what earlier versions recorded" in told.stderr


# ------------------------------------------------------------------------- restarts and signatures


def openssl(*words: str | Path) -> bytes:
    """Run openssl and return what it prints."""
    command = ["openssl", *(str(word) for word in words)]
    return subprocess.run(command, check=True, capture_output=True, timeout=20).stdout


def new_signer(home: Path, name: str, *kind: str) -> dict[str, str]:
    """Make a key pair with openssl, and return the person as configured."""
    path = home / f"{name}.pem"
    openssl("genpkey", *kind, "-out", path)
    public = openssl("pkey", "-in", path, "-pubout").decode()
    return {"name": name, "key": "".join(public.splitlines()[1:-1])}


class Signing:
    """A policy directory that people sign."""

    def __init__(self, home: Path) -> None:
        self.home = home
        people = [
            new_signer(home, "anna", "-algorithm", "ed25519"),
            new_signer(home, "ben", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
            new_signer(home, "eve", "-algorithm", "ed25519"),
        ]
        bundle = {"signers": people, "needed": 2, "audience": "tests"}
        self.broker = new_broker(home / "b", bundle=bundle)
        self.broker.write()
        self.folder = self.broker.policy_file.parent

    def make(self, version: int, cap: str) -> None:
        """Write a policy with its manifest, as sha256sum would."""
        for path in self.folder.glob("bundle.*"):
            path.unlink()
        text = json.dumps({**self.broker.policy_document(), "cap": cap})
        self.broker.policy_file.write_text(text)
        line = f"{hashlib.sha256(text.encode()).hexdigest()}  default.yaml\n"
        head = f"penstock-policy-bundle: 1\nfor: tests\nversion: {version}\n"
        (self.folder / "bundle.manifest").write_text(head + line)

    def sign(self, *names: str) -> None:
        """Sign with openssl, each in the way of the key."""
        manifest = self.folder / "bundle.manifest"
        for name in names:
            key, signature = self.home / f"{name}.pem", self.folder / f"bundle.{name}.sig"
            if name == "ben":
                openssl("dgst", "-sha256", "-sign", key, "-out", signature, manifest)
            else:
                words = ("-sign", "-rawin", "-inkey", key, "-in", manifest, "-out", signature)
                openssl("pkeyutl", *words)

    def command(self, *words: str) -> str:
        """Run a command that needs no configuration."""
        command = [
            *self.broker.program(),
            "policy",
            "bundle",
            words[0],
            str(self.folder),
            *words[1:],
        ]
        environment = self.broker.environment()
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment, timeout=60
        )
        return done.stdout

    async def reload(self) -> dict[str, Any]:
        """Have the files read now."""
        found = await Operator(self.broker.state / "operator.sock").ask("policy_reload")
        return {**found, "told": " ".join(found["refused"]["faults"] if found["refused"] else [])}


async def test_signed_policies_and_restarts(tmp_path: Path) -> None:
    """Two of three have to sign; versions only rise; the last good set outlives everything."""
    scene = Signing(tmp_path)
    broker = scene.broker
    # Nothing is signed, and nothing was ever in force: nothing starts.
    told = broker.run("ca", "init", "--upstream", "local", status=2)
    assert "only signed policies are taken" in told.stderr
    made = scene.command("make", "--version", "7", "--audience", "tests")
    assert "version 7, 1 files" in made
    scene.command("sign", "--key", str(tmp_path / "anna.pem"), "--as", "anna")
    told = broker.run("policy", "bundle", "verify", str(scene.folder), status=2)
    assert "is signed by anna, which is 1 of 2 who have to sign it" in told.stderr
    scene.sign("ben")
    root = broker.json("ca", "init", "--upstream", "local")["root_pem"]
    broker.ca_bundle.write_text(root, "ascii")
    broker.is_prepared = True
    with broker:
        first = (await scene.reload())["in_force"]
        assert (first["version"], first["signers"]) == (7, ["anna", "ben"])
        broker.policy_file.write_text(json.dumps({**broker.policy_document(), "cap": "30d"}))
        assert "default.yaml:1: is not as it was signed" in (await scene.reload())["told"]
        scene.make(8, "30d")
        scene.sign("eve")
        assert "is signed by eve, which is 1 of 2" in (await scene.reload())["told"]
        scene.sign("ben")
        second = (await scene.reload())["in_force"]
        assert (second["version"], second["signers"]) == (8, ["ben", "eve"])
        scene.make(7, "47d")
        scene.sign("anna", "ben")
        assert "is version 7, and version 8 was in force" in (await scene.reload())["told"]
        # The older set is signed well, and no start takes it either.
        broker.kill()
        broker.start()
        third = await scene.reload()
        assert third["in_force"]["sha256"] == second["sha256"]
        assert third["in_force"]["since"] == second["since"]
        broker.policy_file.write_text("")
        shown = broker.run("check", "--start")
        assert "goes on with the policies that were in force" in shown.stderr
        broker.run("check", status=2)
        broker.kill()
        broker.start()
        assert "penstock_policy_last_good 1.0" in broker.metrics()
        assert (await scene.reload())["in_force"]["sha256"] == second["sha256"]
