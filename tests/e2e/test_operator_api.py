"""The operator API of a real broker: who may what, who is nobody, and every operation called."""

import base64
import contextlib
import datetime
import hashlib
import hmac
import json
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import jsonschema
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.policy.roles import EVERYWHERE, Role
from broker.web.operator import COMMANDS
from broker.web.rights import RIGHTS
from broker.web.routes import Route, route_of
from tests.deployments.operators import Api, Pair, PeopleCa, Provider, asking, now
from tests.e2e.front_door import FrontDoor, running
from tests.e2e.requester import TRUSTED_ZONE, fresh_name
from tests.fakes.cluster_issuer import encoded
from tests.peers import process

pytestmark = pytest.mark.e2e

PEOPLE = {
    **{str(role): {EVERYWHERE: [str(role)]} for role in Role},
    **{f"other-{role}": {"other": [str(role)]} for role in Role},
    "nobody": {},
}
"""Somebody for each role, everywhere and in the community ``other``."""

TWO_EYES = {
    "name": "two-people",
    "because": "names below two are for those whom two people know",
    "names": [f"**.two.{TRUSTED_ZONE}"],
    "approval": {"people": 2},
}

BY_NAME = {
    "name": "by-name",
    "because": "names below named are for those whom one person knows",
    "names": [f"**.named.{TRUSTED_ZONE}"],
    "approval": {"by": ["approver"]},
}

NEIGHBOUR = "nobody"
"""A user of the host who owns no broker."""


@dataclass
class Operated:
    """A broker with people, and all that they come with."""

    door: FrontDoor
    ca: PeopleCa
    stranger_ca: PeopleCa
    provider: Provider
    port: int
    pairs: dict[str, Pair]
    socket: Path
    described: dict[str, Any] = field(default_factory=dict)

    @property
    def anchors(self) -> Path:
        """What certifies the broker."""
        return self.door.penstock.ca_bundle

    def asking(self, **who: Any) -> Any:
        """Ask as whoever *who* tells."""
        return asking(self.port, self.anchors, **who)

    def by(self, name: str) -> Any:
        """Ask as one of the people, by certificate."""
        return self.asking(pair=self.pairs[name])

    def events(self, kind: str) -> list[tuple[str, dict[str, Any]]]:
        """Return actor and data of each event of that kind."""
        query = "SELECT actor, data FROM events WHERE kind = ? ORDER BY seq"
        return [(actor, json.loads(data)) for actor, data in self.door.penstock.rows(query, kind)]


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    """Run it."""
    folder = tmp_path_factory.mktemp("operated")
    # Where other users of the host may enter.
    shared = Path(tempfile.mkdtemp(prefix="penstock-"))
    shared.chmod(0o755)
    ca, stranger = PeopleCa(folder / "ca"), PeopleCa(folder / "stranger", "strangers")
    port = process.free_port()
    with Provider(ca, folder) as provider:
        operators = {
            "anchors": str(ca.anchors),
            "people": {
                name: {
                    "certificates": [f"email:{name}@corp.example"],
                    "tokens": [f"corp:00u-{name}"],
                    "users": [NEIGHBOUR] if name == "other-operator" else [],
                    "roles": roles,
                }
                for name, roles in PEOPLE.items()
            },
            "issuers": {
                "corp": provider.section(
                    groups={
                        "pki-viewers": {"*": ["viewer"]},
                        "pki-operators": {"other": ["operator"]},
                        "pki-approvers": {"*": ["approver"]},
                    }
                )
            },
        }
        options = {
            "listen": {
                "operators": {"address": f"127.0.0.1:{port}"},
                "operator": {"socket": str(shared / "operator.sock")},
            },
            "more": {"operators": operators},
            "policy": {"rules": [TWO_EYES, BY_NAME]},
            "limits": {
                "rates": {"operators": "off", "operator_refusals": "off", "new_accounts": "off"}
            },
        }
        with running(folder / "broker", **options) as door:
            pairs = {name: ca.person(name) for name in PEOPLE}
            made = Operated(door, ca, stranger, provider, port, pairs, shared / "operator.sock")
            with made.by("viewer") as api:
                made.described = api.ask("GET", "/v1/openapi.json")[1]
            yield made
    shutil.rmtree(shared)


ENDED = r"(?i)alert|closed|reset|unknown ca|eof"
"""How it reads when the broker ends a connection: after a TLS 1.3 handshake it may be anything."""

# ------------------------------------------------------------------------------------- the rights

SAMPLES: dict[Any, Any] = {str: "no-such-thing", int: 5, bool: False, list[str]: ["nobody.example"]}


def sample(route: Route, community: str | None = None) -> dict[str, Any]:
    """Return arguments that fit, and lead to nothing that exists but a community."""
    given = {
        name: SAMPLES.get(one.shape, {"node": "no-such-node"})
        for name, one in route.arguments.items()
        if one.is_required
    }
    if "community" in route.arguments and community is not None:
        given["community"] = community
    return given


def ask(api: Api, route: Route, given: dict[str, Any]) -> tuple[int, Any]:
    """Ask for a command as a client of the description would."""
    if route.method == "GET":
        query = urlencode({name: str(value).lower() if isinstance(value, bool) else value
                           for name, value in given.items()})  # fmt: skip
        return api.ask("GET", f"{route.path}?{query}" if query else route.path)
    return api.ask("POST", route.path, given)


AT_ONCE = {"reconcile", "ca_init", "ca_rotate_prepare", "ca_rotate_activate", "ca_rotate_retire",
            "backup_made", "policy_reload"}  # fmt: skip
"""Commands that change something without naming it."""


@pytest.mark.parametrize("role", list(Role))
def test_each_role_may_what_the_table_says_and_nothing_else(operated: Operated, role: Role) -> None:
    """Everywhere, and in one community only what is of it: every command, each with its twin."""
    wrong = []
    with operated.by(str(role)) as everywhere, operated.by(f"other-{role}") as other:
        for command in sorted(COMMANDS - AT_ONCE):
            route, right = route_of(command), RIGHTS[command]
            may = role in right.roles
            status, said = ask(everywhere, route, sample(route, "other"))
            if (status != 403) != may:
                wrong.append((command, "everywhere", status, said))
            status, said = ask(other, route, sample(route, "other"))
            # What names a thing that is nowhere is refused like what is elsewhere.
            has_place = right.by_rows or any(
                one.argument == "community" for one in right.references
            )
            if (status != 403) != (may and has_place):
                wrong.append((command, "other", status, said))
            status, said = ask(other, route, sample(route, "default"))
            if (
                status == 200
                and not right.by_rows
                and any(one.argument == "community" for one in right.references)
            ):
                wrong.append((command, "default", status, said))
    assert wrong == []


def test_commands_without_arguments_are_refused_to_those_who_only_look(operated: Operated) -> None:
    """They would begin at once."""
    for name in ("viewer", "auditor", "other-operator", "other-security", "nobody"):
        with operated.by(name) as api:
            for command in sorted(AT_ONCE & COMMANDS):
                route = route_of(command)
                assert ask(api, route, sample(route))[0] == 403, (name, command)


def test_nobody_without_a_role_may_anything(operated: Operated) -> None:
    """A certificate alone opens nothing."""
    with operated.by("nobody") as api:
        assert {ask(api, route_of(one), sample(route_of(one), "other"))[0]
                for one in sorted(COMMANDS)} == {403}  # fmt: skip


def test_what_is_refused_is_an_event_with_who_and_how_they_were_known(operated: Operated) -> None:
    """By certificate and by token."""
    with operated.by("viewer") as api:
        assert (
            api.ask("POST", "/v1/cert/revoke", {"certificate": "x", "reason": "why not"})[0] == 403
        )
    with operated.asking(token=operated.provider.token(sub="00u-auditor")) as api:
        assert api.ask("POST", "/v1/cert/revoke", {"certificate": "x"})[0] == 403
    by_certificate, by_token = operated.events("operator-refused")[-2:]
    assert by_certificate[0] == "operator:viewer"
    assert by_certificate[1]["certificate"] == operated.pairs["viewer"].fingerprint
    assert by_token[0] == "operator:auditor"
    assert by_token[1]["issuer"] == operated.provider.url
    assert by_token[1]["subject"] == "00u-auditor"
    asked = operated.events("operator-command")[-1]
    assert asked[1]["peer"] == "127.0.0.1"


# ------------------------------------------------------------------------------ things of others


def test_viewer_of_one_community_sees_what_is_of_it(operated: Operated) -> None:
    """And for them nothing else exists: the same words as for what never was."""
    held = {}
    for community in ("default", "other"):
        client = operated.door.trusted(community)
        client.certificate(fresh_name())
        with operated.by("viewer") as api:
            rows = api.ask("GET", f"/v1/cert/list?community={community}")[1]
            held[community] = rows[0]
    with operated.by("other-viewer") as api:
        status, rows = api.ask("GET", "/v1/cert/list")
        assert status == 200
        assert {row["community"] for row in rows} == {"other"}
        for path, member in (("/v1/order/show?order_id=", "order"),
                             ("/v1/cert/show?certificate=", "certificate"),
                             ("/v1/cert/show?certificate=", "fingerprint"),
                             ("/v1/account/show?account_id=", "account")):  # fmt: skip
            assert api.ask("GET", path + held["other"][member])[0] == 200
            status, said = api.ask("GET", path + held["default"][member])
            never = api.ask("GET", path + "x" * len(held["default"][member]))[1]
            assert status == 403
            assert said["detail"].replace(held["default"][member], "") == never["detail"].replace(
                "x" * len(held["default"][member]), ""
            )
        assert {row["community"] for row in api.ask("GET", "/v1/eab/list")[1]} == {"other"}
    with operated.by("other-operator") as api:
        elsewhere = {"certificate": held["default"]["certificate"]}
        assert api.ask("POST", "/v1/cert/revoke", elsewhere)[0] == 403
        own = {"certificate": held["other"]["certificate"], "code": 4, "reason": "replaced"}
        status, said = api.ask("POST", "/v1/cert/revoke", own)
        assert (status, said["revocation_reason"]) == (200, 4)
    ((actor, data),) = operated.events("operator-command")[-1:]
    assert (actor, data["command"]) == ("operator:other-operator", "cert_revoke")


OF_ONE = [
    ("viewer", "order_show", "order_id", "order"),
    ("viewer", "cert_show", "certificate", "certificate"),
    ("viewer", "cert_renewal", "certificate", "fingerprint"),
    ("auditor", "cert_evidence", "certificate", "certificate"),
    ("approver", "account_show", "account_id", "account"),
    ("operator", "owner_set", "account", "account"),
    ("operator", "freeze", "account", "account"),
    ("security", "unfreeze", "account", "account"),
    ("operator", "cert_revoke", "certificate", "certificate"),
    ("operator", "account_deactivate", "account_id", "account"),
]
"""Roles, what they may do to a thing, and how it is named; the last ends its account."""


def test_role_in_one_community_acts_on_what_is_of_it(operated: Operated) -> None:
    """Each command is done to a thing of it, and refused for one that is of another."""
    held = {}
    for community in ("default", "other"):
        _, leaf_der = operated.door.trusted(community).certificate(fresh_name())
        fingerprint = hashlib.sha256(leaf_der).hexdigest()
        with operated.by("viewer") as api:
            held[community] = api.ask("GET", f"/v1/cert/show?certificate={fingerprint}")[1]
    wrong = []
    for role, name, argument, member in OF_ONE:
        route = route_of(name)
        more = {} if route.method == "GET" else {"reason": "a test"}
        if name == "owner_set":
            more["owner"] = "the web team"
        for community, expected in (("default", 403), ("other", 200)):
            with operated.by(f"other-{role}") as api:
                status, said = ask(api, route, {argument: held[community][member], **more})
            if status != expected:
                wrong.append((name, community, status, said))
    assert wrong == []


def test_list_of_the_whole_broker_takes_a_role_everywhere(operated: Operated) -> None:
    """Its twin is refused."""
    with operated.by("viewer") as api:
        rows = api.ask("GET", "/v1/account/list")[1]
        assert {"default", "other"} <= {row["community"] for row in rows}
    with operated.by("other-viewer") as api:
        assert api.ask("GET", "/v1/account/list?community=default")[0] == 403


# -------------------------------------------------------------------------------------- nobody


def test_certificate_of_another_ca_is_no_way_in(operated: Operated) -> None:
    """It has the same name in it; the handshake fails, and a person's own succeeds."""
    with (
        operated.asking(pair=operated.stranger_ca.person("viewer")) as api,
        pytest.raises(OSError, match=ENDED),
    ):
        api.ask("GET", "/v1/status")
    with operated.by("viewer") as api:
        assert api.ask("GET", "/v1/status")[0] == 200


@pytest.mark.parametrize("odd", ["ended", "server", "unnamed"])
def test_certificate_that_is_not_a_persons_is_no_way_in(operated: Operated, odd: str) -> None:
    """One that has ended, one for servers, and one of somebody who is not named."""
    ca = operated.ca
    pair = {
        "ended": lambda: ca.person("viewer", days=-1),
        "server": lambda: ca.person("viewer", usage=ExtendedKeyUsageOID.SERVER_AUTH),
        "unnamed": lambda: ca.person("mallory"),
    }[odd]()
    with operated.asking(pair=pair) as api:
        if odd == "unnamed":
            status, said = api.ask("GET", "/v1/status")
            assert status == 401
            assert "nobody's" in said["detail"]
        else:
            with pytest.raises(OSError, match=ENDED):
                api.ask("GET", "/v1/status")


def test_nothing_older_than_tls_1_3_is_spoken(operated: Operated) -> None:
    """The twin is every other test."""
    context = ssl.create_default_context(cafile=str(operated.anchors))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", operated.port)) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def forged(operated: Operated, kind: str) -> str:
    """Return a token that looks like one of the viewer's."""
    provider = operated.provider
    claims = provider.issuer.claims(now(), aud=operated.provider.section()["audience"],
                                    sub="00u-viewer")  # fmt: skip
    if kind == "none":
        return f"{encoded({'alg': 'none', 'typ': 'at+jwt', 'kid': 'key-1'})}.{encoded(claims)}."
    if kind == "HS256":
        head = f"{encoded({'alg': 'HS256', 'typ': 'at+jwt', 'kid': 'key-1'})}.{encoded(claims)}"
        key = provider.issuer.key_set()
        return f"{head}.{encoded(hmac.new(key, head.encode(), hashlib.sha256).digest())}"
    earlier = int((now() - datetime.timedelta(hours=1)).timestamp())
    return {
        "expired": lambda: provider.token(sub="00u-viewer", iat=earlier - 60, exp=earlier),
        "audience": lambda: provider.token(sub="00u-viewer", aud="another"),
        "issuer": lambda: provider.token(sub="00u-viewer", iss="https://evil.example"),
        "id-token": lambda: provider.token({"typ": "JWT"}, sub="00u-viewer"),
        "key": lambda: provider.token({"kid": "made-up"}, sub="00u-viewer"),
        "stolen": lambda: provider.token(
            sub="00u-viewer", cnf={"x5t#S256": thumb(operated.pairs["viewer"])}
        ),
        "apart": lambda: provider.token(sub="00u-kim", groups=["pki-operators", "pki-approvers"]),
        "roleless": lambda: provider.token(sub="00u-kim", groups=["staff"]),
    }[kind]()


def thumb(pair: Pair) -> str:
    """Return what a token has that is bound to a certificate (RFC 8705 §3.1)."""
    digest = bytes.fromhex(pair.fingerprint)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "kind",
    ["none", "HS256", "expired", "audience", "issuer", "id-token", "key", "stolen", "apart",
     "roleless"],
)  # fmt: skip
def test_token_that_proves_nothing_is_no_way_in(operated: Operated, kind: str) -> None:
    """Each by one thing; the twin, without it, is answered."""
    with operated.asking(token=forged(operated, kind)) as api:
        assert api.ask("GET", "/v1/status")[0] == 401
    with operated.asking(token=operated.provider.token(sub="00u-viewer")) as api:
        assert api.ask("GET", "/v1/status")[0] == 200


def test_bound_token_comes_in_with_its_certificate(operated: Operated) -> None:
    """And is the person's that the token names."""
    pair = operated.pairs["nobody"]
    token = operated.provider.token(sub="00u-viewer", cnf={"x5t#S256": thumb(pair)})
    with operated.asking(token=token, pair=pair) as api:
        assert api.ask("GET", "/v1/whoami")[1]["name"] == "viewer"


def test_group_of_a_token_gives_its_roles(operated: Operated) -> None:
    """To somebody whom the configuration does not name."""
    token = operated.provider.token(sub="00u-kim", groups=["pki-viewers", "pki-operators"])
    with operated.asking(token=token) as api:
        said = api.ask("GET", "/v1/whoami")[1]
    assert said == {
        "name": "corp/00u-kim", "roles": {"*": ["viewer"], "other": ["operator"]}
    }  # fmt: skip


def test_flood_of_unknown_keys_asks_the_provider_no_more_than_once_a_minute(
    operated: Operated,
) -> None:
    """And people with a token are served meanwhile."""
    with operated.asking(token=operated.provider.token(sub="00u-viewer")) as api:
        assert api.ask("GET", "/v1/status")[0] == 200
        before = len(operated.provider.asked)
        for number in range(200):
            api.token = operated.provider.token({"kid": f"made-up-{number}"})
            assert api.ask("GET", "/v1/status")[0] == 401
        api.token = operated.provider.token(sub="00u-viewer")
        assert api.ask("GET", "/v1/status")[0] == 200
    assert len(operated.provider.asked) - before <= 2


# --------------------------------------------------------------------------- removed and lost


@contextlib.contextmanager
def changed(operated: Operated, **changes: Any) -> Iterator[None]:
    """Have the configuration say something else for as long as this lasts."""
    penstock = operated.door.penstock
    before = penstock.config.read_text("utf-8")
    document = json.loads(before)
    document["operators"] |= changes
    try:
        reload(operated, json.dumps(document))
        yield
    finally:
        reload(operated, before)


def reload(operated: Operated, text: str) -> None:
    """Write the configuration and have it read."""
    penstock = operated.door.penstock
    before = asked(penstock.log_text())
    penstock.config.write_text(text, "utf-8")
    os.kill(penstock.pid, signal.SIGHUP)
    process.wait_until(lambda: asked(penstock.log_text()) > before, 60.0, "it was read")


def asked(log: str) -> int:
    """Return how often people were read again because somebody asked for it."""
    return len([one for one in log.splitlines() if "people who operate" in one and
                '"asked": true' in one])  # fmt: skip


def test_person_who_was_removed_is_nobody_on_open_connections_too(operated: Operated) -> None:
    """Without a restart; everybody else stays."""
    people = json.loads(operated.door.penstock.config.read_text("utf-8"))["operators"]["people"]
    with operated.by("operator") as gone, operated.by("viewer") as stays:
        token = operated.asking(token=operated.provider.token(sub="00u-operator"))
        assert gone.ask("GET", "/v1/status")[0] == 200
        without = {name: one for name, one in people.items() if name != "operator"}
        with changed(operated, people=without), token as by_token:
            assert gone.ask("GET", "/v1/status")[0] == 401
            assert by_token.ask("GET", "/v1/status")[0] == 401
            assert stays.ask("GET", "/v1/status")[0] == 200
        assert gone.ask("GET", "/v1/status")[0] == 200


def test_lost_certificate_is_refused(operated: Operated) -> None:
    """By its fingerprint; the person's other one is not."""
    other = operated.ca.person("viewer")
    refused = [operated.pairs["viewer"].fingerprint]
    with (
        operated.by("viewer") as lost,
        operated.asking(pair=other) as kept,
        changed(operated, refused_certificates=refused),
    ):
        assert lost.ask("GET", "/v1/status")[0] == 401
        assert kept.ask("GET", "/v1/status")[0] == 200


def test_anchors_that_were_changed_end_what_was_verified_by_them(operated: Operated) -> None:
    """A connection that is open is no way around it."""
    with operated.by("viewer") as api:
        assert api.ask("GET", "/v1/status")[0] == 200
        with changed(operated, anchors=str(operated.stranger_ca.anchors)):
            status, said = api.ask("GET", "/v1/status")
            assert status == 401
            assert "anchors have changed" in said["detail"]


def test_broken_file_leaves_people_as_they_were(operated: Operated) -> None:
    """The log says so."""
    before = operated.door.penstock.config.read_text("utf-8")
    try:
        reload(operated, before.replace('"people"', '"poeple"'))
        assert "stay as they were" in operated.door.penstock.log_text()
        with operated.by("viewer") as api:
            assert api.ask("GET", "/v1/status")[0] == 200
    finally:
        reload(operated, before)


# ------------------------------------------------------------------------------ the description


def closed(described: dict[str, Any]) -> dict[str, Any]:
    """Return the components, whose objects hold nothing but what is described."""
    schemas = {
        name: {**one, "unevaluatedProperties": False} if "properties" in one else one
        for name, one in described["components"]["schemas"].items()
    }
    return {"components": {**described["components"], "schemas": schemas}}


ANSWERED: Final = {
    "account_deactivate", "account_list", "account_show", "approval_list", "audit_checkpoint",
    "audit_export", "audit_public_key", "audit_status", "backup_made", "ca_rotate_prepare",
    "ca_show", "caa_check", "cert_evidence", "cert_list", "cert_renewal", "cert_renewal_ask",
    "cert_retiring", "cert_revoke", "cert_show", "eab_list", "eab_mint", "frozen",
    "incident_list", "incident_plan", "key_check", "order_list", "order_show", "owner_list",
    "owner_show", "policy_asked_counts", "policy_explain", "policy_history", "policy_reload",
    "policy_status", "quota_show", "renew_progress", "secret_check", "status", "upstream_check",
    "upstream_list", "upstream_show",
}  # fmt: skip
"""Commands that do here what they are for.  The others are asked for what is not there: nodes,
requests, incidents, upstreams with accounts; what is looked at is how they refuse."""


def test_every_operation_of_the_description_answers_as_it_says(operated: Operated) -> None:
    """Each is really called, by somebody who may; what it answers is of the type that it names."""
    client = operated.door.trusted("other")
    client.certificate(fresh_name())
    with operated.by("viewer") as api:
        (certificate, *_) = api.ask("GET", "/v1/cert/list?community=other")[1]
    known = {
        "order_id": certificate["order"],
        "certificate": certificate["certificate"],
        "account_id": certificate["account"],
        "names": ["a.example.test"],
        "upstream": "local",
    }
    components = closed(operated.described)
    called, outcomes = set(), {}
    for path, methods in operated.described["paths"].items():
        for method, operation in methods.items():
            command = operation["operationId"]
            route = route_of(command)
            given = sample(route, "other")
            given |= {name: one for name, one in known.items() if name in route.arguments}
            roles = operation["x-penstock-roles"]
            role = "operator" if "operator" in roles else roles[0]
            with operated.by(role) as api:
                assert (route.method.lower(), route.path) == (method, path)
                status, said = ask(api, route, given)
            called.add(command)
            outcomes[command] = status
            assert status in {200, 400, 404, 409, 422, 503}, (command, status, said)
            if status == 200:
                schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
                jsonschema.Draft202012Validator({**schema, **components}).validate(said)
            else:
                problem = {"$ref": "#/components/schemas/Problem"}
                jsonschema.Draft202012Validator({**problem, **components}).validate(said)
    assert called == COMMANDS
    answered = {command for command, status in outcomes.items() if status == 200}
    assert answered >= ANSWERED, outcomes


def test_one_person_is_one_whether_by_certificate_or_token(operated: Operated) -> None:
    """Two have to say yes: the same one again is none more, and somebody else is."""
    client, name = operated.door.trusted("other"), fresh_name(f"two.{TRUSTED_ZONE}")
    reply = client.order(name)
    assert (reply.status, reply.problem) == (403, "userActionRequired")
    given = {"approval": reply.json()["instance"].rpartition("/")[2], "reason": "known to me"}
    by_token = operated.provider.token(sub="00u-approver")
    another = operated.provider.token(sub="00u-kim", groups=["pki-approvers"])
    with operated.by("approver") as api:
        status, said = api.ask("POST", "/v1/approval/approve", given)
        assert (status, said["status"]) == (200, "waiting")
    with operated.asking(token=by_token) as api:
        status, said = api.ask("POST", "/v1/approval/approve", given)
        assert status == 403, said
        assert client.order(name).status == 403
    with operated.by("operator") as api:
        assert api.ask("POST", "/v1/approval/approve", given)[0] == 403
    with operated.asking(token=another) as api:
        status, said = api.ask("POST", "/v1/approval/approve", given)
        assert status == 200, said
        said_yes = [one["person"] for one in said["answers"]]
        assert said_yes == ["operator:approver", "operator:corp/00u-kim"]
    assert client.order(name).status == 201


def test_whom_a_rule_names_approves_and_nobody_else(operated: Operated) -> None:
    """Another approver is told who may, at the API and by the command, and opens nothing."""
    client, name = operated.door.trusted("other"), fresh_name(f"named.{TRUSTED_ZONE}")
    reply = client.order(name)
    assert (reply.status, reply.problem) == (403, "userActionRequired")
    approval = reply.json()["instance"].rpartition("/")[2]
    given = {"approval": approval, "reason": "known to me"}
    another = operated.provider.token(sub="00u-kim", groups=["pki-approvers"])
    with operated.asking(token=another) as api:
        status, said = api.ask("POST", "/v1/approval/approve", given)
        assert status == 403, said
        assert "policy left that to approver" in said["detail"]
    other = elsewhere(operated, "other-approver")
    done = command(operated, *other, "approval", "approve", approval, "--reason", "mine")
    assert done.returncode == 1
    assert "policy left that to approver" in done.stderr
    assert client.order(name).status == 403
    mine = elsewhere(operated, "approver")
    shown = command(operated, *mine, "approval", "show", approval)
    assert ["by:", "approver"] in [line.split() for line in shown.stdout.splitlines()]
    done = command(operated, *mine, "approval", "approve", approval, "--reason", "known to me")
    assert done.returncode == 0, done.stderr
    assert client.order(name).status == 201
    words = ("policy", "explain", name, "--community", "other")
    told = command(operated, *elsewhere(operated, "viewer"), *words)
    assert "1 person has to say yes (only approver)" in told.stdout, told.stdout


# ------------------------------------------------------------------------------ the command line


def command(
    operated: Operated, *words: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command on a machine that knows no configuration."""
    penstock = operated.door.penstock
    return subprocess.run(
        [*penstock.program(), *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=operated.ca.anchors.parent,
        env={**penstock.environment(), **environment},
        check=False,
    )


def elsewhere(operated: Operated, name: str) -> list[str]:
    """Return the options of one of the people."""
    pair = operated.pairs[name]
    return [
        "--server", f"https://127.0.0.1:{operated.port}", "--anchors", str(operated.anchors),
        "--client-certificate", str(pair.certificate), "--client-key", str(pair.key),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ("account", "list", "--json"),
        ("policy", "explain", "a.example.test", "--json"),
        ("policy", "explain", "a.example.test", "--address", "192.0.2.7", "--client-name", "a.b"),
        ("order", "show", "no-such-order"),
        ("cert", "revoke", "no-such-certificate", "--reason", "why not"),
    ],
    ids=["list", "body", "supposed", "missing", "change"],
)
def test_command_reads_the_same_by_the_api_as_by_the_socket(
    operated: Operated, words: tuple[str, ...]
) -> None:
    """Output, talk and exit status: programs need not know which way it went."""
    here = command(operated, *words, "--config", str(operated.door.penstock.config))
    there = command(operated, *elsewhere(operated, "operator"), *words)
    assert (there.returncode, there.stdout, there.stderr) == (
        here.returncode, here.stdout, here.stderr
    )  # fmt: skip
    assert here.stdout or here.stderr


def test_auditor_exports_from_elsewhere_and_verifies_what_they_have(
    operated: Operated, tmp_path: Path
) -> None:
    """The same records as beside the store; the store itself is read on its own machine alone."""
    config = ("--config", str(operated.door.penstock.config))
    here = command(operated, "audit", "export", *config)
    assert here.returncode == 0, here.stderr
    mine, export = elsewhere(operated, "auditor"), tmp_path / "export.jsonl"
    done = command(operated, *mine, "audit", "export", "--output", str(export))
    assert done.returncode == 0, done.stderr
    records, exported = (
        [line for line in text.splitlines() if line.startswith('{"digest"')]
        for text in (here.stdout, export.read_text("utf-8"))
    )
    assert records
    assert exported[: len(records)] == records
    done = command(operated, *mine, "audit", "verify", "--file", str(export), "--json")
    assert (done.returncode, json.loads(done.stdout)["findings"]) == (0, []), done.stderr
    for words in (("verify",), ("reconcile", str(export))):
        done = command(operated, *mine, "audit", *words, *config)
        assert (done.returncode, done.stdout) == (2, "")
        assert "is about this machine and takes no --server" in done.stderr
    done = command(operated, *elsewhere(operated, "operator"), "audit", "export")
    assert (done.returncode, done.stdout) == (1, "")
    assert "takes the role auditor or security" in done.stderr


def test_command_that_is_not_for_a_person_fails_with_the_role_that_it_takes(
    operated: Operated,
) -> None:
    """Like anything that cannot be done; whoever may is answered."""
    words = ("eab", "mint", "--community", "other", "--reason", "for a test", "--json")
    done = command(operated, *elsewhere(operated, "other-viewer"), *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert "takes the role operator in community 'other'" in done.stderr
    assert "penstock: hint: 'other-viewer' has viewer in 'other'" in done.stderr
    done = command(operated, *elsewhere(operated, "other-operator"), *words)
    assert json.loads(done.stdout)["community"] == "other"
    minted = operated.door.penstock.rows(
        "SELECT actor FROM events WHERE kind = 'eab-minted' ORDER BY seq DESC LIMIT 1"
    )
    assert minted == [("operator:other-operator",)]


def test_who_and_where_can_stand_in_the_environment(operated: Operated, tmp_path: Path) -> None:
    """A token is in a file or a variable, and never among the words that others see."""
    token = tmp_path / "token"
    token.write_text(operated.provider.token(sub="00u-viewer") + "\n", "ascii")
    where = {
        "PENSTOCK_SERVER": f"https://127.0.0.1:{operated.port}",
        "PENSTOCK_ANCHORS": str(operated.anchors),
    }
    done = command(operated, "status", "--json", PENSTOCK_TOKEN=f"file:{token}", **where)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"]
    secret = operated.provider.token(sub="00u-viewer")
    done = command(operated, "status", "--json", PENSTOCK_TOKEN="env:MINE", MINE=secret, **where)
    assert done.returncode == 0, done.stderr
    done = command(operated, "status", PENSTOCK_TOKEN=secret, **where)
    assert done.returncode == 2
    assert secret not in done.stderr


def test_what_is_wrong_with_the_way_there_is_told(operated: Operated) -> None:
    """In one sentence, with what can be done about it."""
    pair = operated.pairs["viewer"]
    mine = ["--client-certificate", str(pair.certificate), "--client-key", str(pair.key)]
    url = f"https://127.0.0.1:{operated.port}"
    trusting = ["--anchors", str(operated.anchors)]
    found = [
        (done.returncode, done.stderr.splitlines()[0])
        for done in (
            command(operated, "--server", url, *trusting, "status"),
            command(operated, "--server", url.replace("https", "http"), *mine, "status"),
            command(operated, "--server", url, *mine, "status"),
            command(operated, "--server", "https://127.0.0.1:1", *mine, "status"),
            command(operated, "--server", url, *trusting, *mine[:2], "status"),
            command(operated, "--server", url, *trusting, *mine, "check"),
        )
    ]
    said = "penstock: error: "
    plain = url.replace("https", "http")
    assert found == [
        (2, f"{said}nothing says who you are"),
        (2, f"{said}server '{plain}' is no URL such as https://acme.corp.example:8446"),
        (1, f"{said}{url} is not believed: unable to get local issuer certificate"),
        (1, f"{said}https://127.0.0.1:1 cannot be reached: connection refused"),
        (2, f"{said}--client-certificate and --client-key go together"),
        (2, f"{said}'check' is about this machine and takes no --server"),
    ]


def test_approval_takes_a_person_who_is_named(operated: Operated) -> None:
    """Root at the socket is none, now that people are; a person is told that there is no such."""
    words = ("approval", "approve", "no-such-approval")
    config = ("--config", str(operated.door.penstock.config))
    done = command(operated, *words, *config)
    assert done.returncode == 1
    assert "takes a person" in done.stderr
    done = command(operated, *elsewhere(operated, "approver"), *words)
    assert done.returncode == 1
    assert "takes a person" not in done.stderr


def test_community_answers_for_what_names_nobody(operated: Operated) -> None:
    """Where the configuration gives it an owner; told as that, until somebody is named."""
    mine = elsewhere(operated, "viewer")
    found = {}
    for community in ("strict", "other"):
        client = operated.door.trusted(community)
        account = (client.kid or "").rpartition("/")[2]
        done = command(operated, *mine, "account", "show", account, "--json")
        shown = json.loads(done.stdout)
        found[community] = shown["owner"], shown["contact"], shown["owner_by"]
    assert found == {
        "strict": ("team-pki", "pki@example.test", "community"), "other": ("", "", ""),
    }  # fmt: skip
    keys = json.loads(command(operated, *mine, "eab", "list", "--json").stdout)
    by = {row["community"]: row["owner_by"] for row in keys if row["key_id"] == "farm"}
    assert (by["strict"], by["other"]) == ("community", "")
    unnamed = command(operated, *mine, "owner", "show", "", "--community", "strict", "--json")
    assert {one["by"] for one in json.loads(unnamed.stdout)["things"]} == {"community"}


def ask_as(user: str, path: Path, document: dict[str, Any]) -> Any:
    """Return what the socket answers a process of *user*; only root can be another."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # Nothing of the test may run on in here, whatever happens.
        try:
            if os.getuid() == 0:
                os.setuid(pwd.getpwnam(user).pw_uid)
            os.write(writing, posted(path, json.dumps(document).encode()))
        except OSError as error:
            os.write(writing, b"\r\n\r\n" + json.dumps({"error": str(error)}).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        _, _, said = answers.read().partition(b"\r\n\r\n")
    os.waitpid(child, 0)
    return json.loads(said)


def posted(path: Path, body: bytes) -> bytes:
    """Return the whole answer to a command at the socket."""
    head = f"POST /v1/command HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(path))
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_user_of_the_host_has_the_role_of_the_person_they_are(operated: Operated) -> None:
    """At the socket, which is shared as somebody has a user; the kernel says who connects."""
    said = ask_as(NEIGHBOUR, operated.socket, {
        "command": "eab_mint", "arguments": {"community": "other", "label": "by-a-neighbour"}
    })  # fmt: skip
    assert said["result"]["community"] == "other", said
    refused = ask_as(NEIGHBOUR, operated.socket, {
        "command": "eab_mint", "arguments": {"community": "default"}
    })  # fmt: skip
    (minted,) = operated.door.penstock.rows(
        "SELECT actor FROM events WHERE kind = 'eab-minted' ORDER BY seq DESC LIMIT 1"
    )
    if os.getuid() == 0:
        assert "none in which you have a role" in refused["error"]
        assert minted == ("operator:other-operator",)
        assert (
            "is no operator here"
            in ask_as("daemon", operated.socket, {"command": "status"})["error"]
        )
    else:
        # The tests are run by the broker's own user then, who may do everything.
        assert refused["result"]["community"] == "default"
