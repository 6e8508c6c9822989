"""Every way to answer a CA's challenge, configured as an operator does, before a real CA.

One Pebble, one broker, one upstream for each way; the name server is PowerDNS, whose API is what
the provider library, the web service and the program write to.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import dns.name
import dns.zone
import pytest
from cryptography import x509

from broker.upstreams.webhook import sign_wish
from tests.deployments.operator import Operator
from tests.deployments.penstock import AcmeCa, Penstock, secret
from tests.deployments.requester import Requester
from tests.peers import authority, process
from tests.peers.pdns import PowerDns
from tests.peers.pebble import Pebble, PebbleOptions

pytestmark = pytest.mark.peers

ZONE: Final = "corp.example.test"
CHALLENGES: Final = "challenges.test"
TRUSTED: Final = "trusted-tests"
WAYS: Final = ("provider", "webhook", "exec", "tls-alpn")
TOKEN: Final = "a token of the web service"
MAC_KEY: Final = "a key of the web service"

PROGRAM: Final = """#!{python} -I
import json, os, sys, urllib.request
action, name, value = sys.argv[2:]
assert sys.argv[1] == "--pdns"
assert set(os.environ) - {{"LC_CTYPE"}} == {{"PATH", "LANG", "PDNS_KEY"}}
content = '"%s"' % value
url = "{api}/api/v1/servers/localhost/zones/{zone}."
headers = {{"X-API-Key": os.environ["PDNS_KEY"], "Content-Type": "application/json"}}
zone = json.load(urllib.request.urlopen(urllib.request.Request(url, headers=headers)))
old = [one["content"] for each in zone["rrsets"] for one in each["records"]
       if each["name"] == name and each["type"] == "TXT"]
new = [one for one in old if one != content] + ([content] if action == "present" else [])
records = [{{"content": one, "disabled": False}} for one in new]
change = {{"name": name, "type": "TXT", "ttl": 1, "changetype": "REPLACE", "records": records}}
body = json.dumps({{"rrsets": [change]}}).encode()
urllib.request.urlopen(urllib.request.Request(url, body, headers, method="PATCH"))
"""


class Service:
    """A web service that writes records, in a thread of its own."""

    def __init__(self, tmp: Path, pdns: PowerDns) -> None:
        self.wishes: list[dict[str, Any]] = []
        self._values: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(service.grant(pdns, body, self.headers))
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                """Say nothing."""

        root = authority.make_root("hook")
        server = authority.make_server(root, ["127.0.0.1"])
        certificate, key, self.ca_bundle = authority.write_server_files(tmp, server, root)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate, key)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}/acme"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def grant(self, pdns: PowerDns, body: bytes, headers: Any) -> int:
        """Do what is wished, if the proof is right; the first attempt of each fails."""
        shown = str(headers["Penstock-Signature"])
        seconds = int(shown.partition(",")[0].removeprefix("t="))
        if shown != sign_wish(MAC_KEY.encode(), seconds, body):
            return 403
        if headers["Authorization"] != f"Bearer {TOKEN}":
            return 401
        wish = json.loads(body)
        with self._lock:
            self.wishes.append(wish)
            if len(self.wishes) % 2:
                return 503
            values = self._values.setdefault(wish["fqdn"], [])
            if wish["value"] in values:
                values.remove(wish["value"])
            if wish["action"] == "present":
                values.append(wish["value"])
            pdns.set_txt(wish["fqdn"].removesuffix("."), values)
            return 204

    def __enter__(self) -> Service:
        self._thread.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Scene:
    """PowerDNS, Pebble, the web service, and a broker with an upstream for each way."""

    def __init__(self, tmp: Path, stack: ExitStack) -> None:
        self.pdns = stack.enter_context(PowerDns(tmp / "pdns", zones=[ZONE, CHALLENGES, "test"]))
        tls_port = process.free_port()
        self.pebble = stack.enter_context(
            Pebble(
                tmp / "pebble",
                # Nobody answers http-01: what becomes valid was proved another way.
                validation_http_port=process.free_port(),
                validation_tls_port=tls_port,
                dns_server=self.pdns.address,
                options=PebbleOptions(nonce_reject_percent=15),
            )
        )
        self.service = stack.enter_context(Service(tmp / "hook", self.pdns))
        raw = secrets.token_bytes(32)
        self.mac = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        trusted = {
            "eab": [TRUSTED],
            "names": [f"**.{ZONE}"],
            "profiles": list(WAYS),
            "wildcards": True,
            "because": "the tests say so",
        }
        self.penstock = Penstock(
            tmp / "penstock",
            validation_http_port=process.free_port(),
            resolver=self.pdns.address,
            upstreams=[
                AcmeCa(
                    name=way,
                    directory_url=self.pebble.directory_url,
                    ca_bundle=self.pebble.ca_bundle,
                    description="pebble",
                    options={"solvers": [solver]},
                )
                for way, solver in self._solvers(tmp).items()
            ],
            profiles={way: profile(way) for way in WAYS},
            policy={"trusted": [trusted]},
            limits={"finalize_wait": "2s"},
            listen={"tls_alpn": {"address": f"127.0.0.1:{tls_port}"}},
            more={
                "external_account_bindings": [
                    {"key_id": TRUSTED, "mac_key": secret(tmp, "eab.mac", self.mac)}
                ]
            },
        )
        stack.enter_context(self.penstock)

    def _solvers(self, tmp: Path) -> dict[str, dict[str, Any]]:
        program = tmp / "program"
        program.write_text(
            PROGRAM.format(python=sys.executable, api=self.pdns.api_url, zone=CHALLENGES)
        )
        program.chmod(0o755)
        resolvers = [self.pdns.address]
        dns: dict[str, Any] = {
            "challenge": "dns-01",
            "self_check": {"servers": resolvers, "timeout": "5s"},
        }
        common = {"zone": CHALLENGES, "resolvers": resolvers}
        key = secret(tmp, "pdns.key", self.pdns.api_key)
        return {
            "provider": dns
            | {
                "provider": {
                    "name": "powerdns",
                    "options": {"pdns_server": self.pdns.api_url},
                    "secrets": {"auth_token": key},
                    **common,
                }
            },
            "webhook": dns
            | {
                "webhook": {
                    "url": self.service.url,
                    "ca_bundle": str(self.service.ca_bundle),
                    "bearer": secret(tmp, "hook.token", TOKEN),
                    "hmac": secret(tmp, "hook.hmac", MAC_KEY),
                    **common,
                }
            },
            "exec": dns
            | {
                "exec": {
                    "command": [str(program), "--pdns"],
                    "secrets": {"PDNS_KEY": key},
                    **common,
                }
            },
            "tls-alpn": {"challenge": "tls-alpn-01"},
        }

    def name(self) -> str:
        """Return a new name with an address, whose challenges are delegated."""
        label = f"h{secrets.token_hex(4)}"
        self.pdns.add_a(f"{label}.{ZONE}")
        self.pdns.add_cname(f"_acme-challenge.{label}.{ZONE}", f"{label}.{CHALLENGES}")
        return f"{label}.{ZONE}"


def profile(upstream: str) -> dict[str, Any]:
    """Return a profile that is issued by one upstream."""
    return {
        "description": f"by {upstream}",
        "cap": "47d",
        "usages": ["server-auth"],
        "upstreams": [{"upstream": upstream}],
    }


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The deployment."""
    with ExitStack() as stack:
        yield Scene(tmp_path_factory.mktemp("solvers"), stack)


@pytest.fixture
async def requester(scene: Scene) -> AsyncIterator[Requester]:
    """A client that policy trusts with every name of the zone."""
    made = Requester(scene.penstock.directory_url, scene.penstock.ca_bundle)
    async with made as requester:
        assert (await requester.bind(TRUSTED, scene.mac)).status in (200, 201)
        yield requester


@pytest.mark.parametrize("way", WAYS)
async def test_certificate_is_obtained(scene: Scene, requester: Requester, way: str) -> None:
    """The CA sees the proof, and no trace of it stays."""
    name = scene.name()
    names = [name] if way == "tls-alpn" else [name, f"*.{name}"]
    placed = await requester.request(*names, profile=way)
    operator = Operator(scene.penstock.state / "operator.sock")
    shown = await operator.ask("order_show", order_id=placed.order_id)
    assert await placed.settled(8) == "valid", shown
    san = (await placed.chain())[0].extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert sorted(san.value.get_values_for_type(x509.DNSName)) == sorted(names)
    assert scene.pdns.txt(f"{name.partition('.')[0]}.{CHALLENGES}") == []


async def test_orders_side_by_side_do_not_overwrite_each_other(
    scene: Scene, requester: Requester
) -> None:
    """Four names, and their wildcards, in one zone of a provider that replaces record sets."""
    names = [scene.name() for _ in range(2)]
    placed = [await requester.request(one, f"*.{one}", profile="provider") for one in names]
    assert await asyncio.gather(*(one.settled() for one in placed)) == ["valid", "valid"]


async def test_no_secret_reaches_log_or_client(scene: Scene, requester: Requester) -> None:
    """Neither the provider's key nor the service's token is in what anybody reads."""
    placed = await requester.request(scene.name(), profile="provider")
    assert await placed.settled() == "valid"
    read = scene.penstock.log_text() + requester.told()
    for hidden in (scene.pdns.api_key, TOKEN, MAC_KEY):
        assert hidden not in read


async def test_printed_caa_records_satisfy_the_check(scene: Scene, requester: Requester) -> None:
    """Missing ones are warned of; once the zone has what was printed, nothing is."""
    placed = await requester.request(scene.name(), profile="provider")
    assert await placed.settled() == "valid"
    before = await asyncio.to_thread(scene.penstock.json, "check", "--online")
    about = [one for one in before["warnings"] if f" {ZONE}" in one or f".{ZONE}" in one]
    assert any("there are no CAA records, so every CA may issue" in one for one in about)
    command = ("upstream", "caa", "provider", "--name", ZONE)
    rows = await scene.penstock.a_json(*command)
    printed = await asyncio.to_thread(scene.penstock.run, *command)
    text = f"$ORIGIN .\n{ZONE}. 60 IN SOA a. b. 1 1 1 1 1\n{ZONE}. 60 IN NS a.\n"
    zone = dns.zone.from_text(text + printed.stdout, origin=f"{ZONE}.", relativize=False)
    parsed = zone.get_rdataset(dns.name.from_text(ZONE), "CAA")
    assert parsed is not None
    assert len(parsed) == len(rows)
    assert any("accounturi=https://" in row["value"] for row in rows)
    scene.pdns.set_caa(ZONE, [(row["flags"], row["tag"], row["value"]) for row in rows])
    after = await asyncio.to_thread(scene.penstock.json, "check", "--online")
    ours = [one for one in after["warnings"] if "upstream 'provider'" in one]
    assert not [one for one in ours if f".{ZONE}" in one]


async def test_mistyped_provider_is_told_with_its_line(scene: Scene) -> None:
    """By ``penstock check``, with the nearest name."""
    good = scene.penstock.config.read_text()
    try:
        scene.penstock.config.write_text(good.replace('"powerdns"', '"powerdsn"'))
        done = await asyncio.to_thread(scene.penstock.run, "check", status=2)
    finally:
        scene.penstock.config.write_text(good)
    assert "no DNS provider is called 'powerdsn' (did you mean 'powerdns'?)" in done.stderr
