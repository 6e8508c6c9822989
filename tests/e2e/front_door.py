"""The deployment that the front door's tests share: one broker with three communities."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.deployments.penstock import AcmeCa, BuiltInCa, Penstock, secret
from tests.e2e.requester import TRUSTED_ZONE, Client, Wire
from tests.fakes.hostile_ca import Behaviour, Fault, HostileCaProcess, Script
from tests.unit.protocol.builders import b64url, private_key
from tests.unit.protocol.der import spki

FARM_KEYS: Final = {
    "default": b"a MAC key that only the farm holds",
    "other": b"the same, in the other community..",
    "strict": b"and in the one that wants a binding",
}
"""The MAC key of the EAB key ``farm``, which each community has its own of."""

COMMUNITIES: Final = tuple(FARM_KEYS)

STRICT: Final[dict[str, Any]] = {
    "website": "https://pki.example.test",
    "terms_of_service": "https://pki.example.test/terms",
    "caa_identities": ["pki.example.test"],
    "external_account_required": True,
    "owner": "team-pki",
    "contact": "pki@example.test",
}
"""What the community ``strict`` tells and asks for."""

BLOCKED_KEY: Final = private_key("ES256", "blocked")
"""A key that is on the operator's block list."""

PROVABLE: Final = tuple(f"p{number}.example.test" for number in range(60))
"""Names that lead to the challenge answers of the tests."""

MADE: Final = ("accounts", "orders", "authorizations", "challenges", "work", "certificates",
               "ca_certificates")  # fmt: skip
"""Tables that requests make rows in."""


class Communities(Penstock):
    """A broker whose communities ``default``, ``other`` and ``strict`` share the built-in CA.

    Each trusts an EAB key ``farm`` of its own, and takes http-01 besides.
    """

    def __init__(
        self,
        tmp: Path,
        *,
        answers_port: int,
        acme: Mapping[str, Any] | None = None,
        ca_profiles: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._acme = acme or {}
        ca_options = {"profiles": dict(ca_profiles)} if ca_profiles else {}
        super().__init__(
            tmp,
            validation_http_port=answers_port,
            hosts={name: ["127.0.0.1"] for name in PROVABLE},
            resolver="127.0.0.1:9",
            built_in=BuiltInCa(options={"communities": list(COMMUNITIES), **ca_options}),
            **options,
        )
        self.block_list = tmp / "blocked.txt"

    def config_document(self) -> dict[str, Any]:
        """Return the configuration with the other communities and the declared keys."""
        document = super().config_document()
        document["listen"]["acme"].update(self._acme)
        communities = document["communities"]
        communities["other"] = communities["default"]
        communities["strict"] = {**communities["default"], **STRICT}
        document["external_account_bindings"] = [
            {
                "key_id": "farm",
                "community": community,
                "mac_key": secret(self.directory, f"{community}.eab", b64url(key)),
            }
            for community, key in FARM_KEYS.items()
        ]
        blocked = hashlib.sha256(spki(BLOCKED_KEY)).hexdigest()
        self.block_list.write_text(f"# lost with a laptop\n{blocked}\n", "ascii")
        document["weak_keys"] = {"blocklists": [str(self.block_list)]}
        return document

    def policy_document(self) -> dict[str, Any]:
        """Return the policy, which trusts the farm."""
        trusted = {
            "eab": ["farm"],
            "names": [f"**.{TRUSTED_ZONE}"],
            "wildcards": True,
            "profiles": list(self._profiles or ("server",)),
            "because": "these tests are about what comes after",
        }
        return {"trusted": [trusted], **super().policy_document()}

    def write(self) -> None:
        """Write a policy for each community, the same but for its name."""
        super().write()
        for community in COMMUNITIES:
            policy = {**self.policy_document(), "community": community}
            path = self.policy_file.with_name(f"{community}.yaml")
            path.write_text(json.dumps(policy, indent=1), "utf-8")

    # ----------------------------------------------------------------- looking past the broker

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return what a query of the store gives, read past the broker."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as db:
            return db.execute(query, values).fetchall()

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        ((number,),) = self.rows(f"SELECT count(*) FROM {table}")  # a name of ours
        return int(number)

    def counts(self) -> dict[str, int]:
        """Return how many rows the tables have that a request could leave something in."""
        query = " UNION ALL ".join(f"SELECT '{table}', count(*) FROM {table}" for table in MADE)
        return dict(self.rows(query))

    def refusals(self) -> list[dict[str, Any]]:
        """Return the data of every refusal that was kept, oldest first."""
        query = "SELECT data FROM events WHERE kind = 'request-refused' ORDER BY seq"
        return [json.loads(data) for (data,) in self.rows(query)]

    def memory_bytes(self) -> int:
        """Return the resident memory of the broker."""
        return self._of_status("VmRSS") * 1024

    def processor_seconds(self) -> float:
        """Return the processor time that the broker has used, in steps of 10 ms."""
        text = Path(f"/proc/{self.pid}/stat").read_text("ascii")
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def _of_status(self, name: str) -> int:
        text = Path(f"/proc/{self.pid}/status").read_text("ascii")
        (value,) = re.findall(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
        return int(value)


class ChallengeAnswers:
    """Answers http-01 for every token it was told of, whatever the host."""

    def __init__(self) -> None:
        self.key_authorizations: dict[str, str] = {}
        answers = self.key_authorizations

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = answers.get(self.path.rpartition("/")[2], "").encode()
                self.send_response(200 if body else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                """Say nothing: the name is the base class's."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        """The port it listens at."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@dataclass
class FrontDoor:
    """A running broker, the answers to its challenges, and whom it serves."""

    penstock: Communities
    answers: ChallengeAnswers
    wire: Wire

    def client(self, community: str = "default", **options: Any) -> Client:
        """Return a client without an account."""
        return Client(self.wire, f"{self.penstock.external_url}/acme/{community}", **options)

    def account(self, community: str = "default", *, key: Any = None) -> Client:
        """Return a client with an account that is not trusted."""
        client = self.client(community, **({"key": key} if key is not None else {}))
        assert client.register().status == 201
        return client

    def trusted(self, community: str = "default", *, key: Any = None) -> Client:
        """Return a client with an account that is bound to the farm's key."""
        client = self.client(community, **({"key": key} if key is not None else {}))
        assert client.register(mac_key=FARM_KEYS[community]).status in {200, 201}
        return client


@contextlib.contextmanager
def running(tmp: Path, **options: Any) -> Iterator[FrontDoor]:
    """Run a broker and the answers to its challenges."""
    with ChallengeAnswers() as answers:
        made = Communities(tmp, answers_port=answers.port, **options)
        with made as penstock:
            wire = Wire(penstock)
            try:
                yield FrontDoor(penstock, answers, wire)
            finally:
                wire.close()


@dataclass
class Thinking:
    """A broker in front of a CA that can be told to think, or to refuse."""

    door: FrontDoor
    ca: HostileCaProcess

    def tell(self, *faults: Fault) -> None:
        """Have the CA do this to the next requests; its certificates last 30 days."""
        self.ca.set_script(
            Script(standing=Behaviour(lifetime_seconds=30 * 86_400), faults=list(faults))
        )


@contextlib.contextmanager
def thinking_ca(folder: Path) -> Iterator[Thinking]:
    """Run a broker that says ``processing`` soon, and its CA."""
    with HostileCaProcess(folder / "ca", Script()) as ca:
        anchors = folder / "root.pem"
        anchors.write_bytes(ca.root_pem())
        upstream = AcmeCa(
            name="thinker",
            directory_url=ca.directory_url,
            ca_bundle=ca.ca_bundle,
            anchors=anchors,
            facts={"max_lifetime": "40d", "default_lifetime": "40d", "is_ct_logged": False},
            options={"communities": list(COMMUNITIES)},
        )
        limits = {"finalize_wait": "200ms"}
        with running(folder / "broker", upstreams=[upstream], limits=limits) as door:
            yield Thinking(door, ca)
