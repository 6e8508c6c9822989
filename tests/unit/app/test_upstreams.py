"""The configured upstreams: which are ready for whom, and what is known of them."""

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.app.authorities import Authorities
from broker.app.authority_register import CaRegistry
from broker.app.key_places import ConfiguredKeyPlaces
from broker.app.observed import ObservedUpstream
from broker.app.secrets import Secrets
from broker.app.upstreams import ConfiguredUpstreams
from broker.issuance.errors import Broken
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.records import UpstreamAccountRecord
from broker.keys.rings import KeyRings
from broker.policy.decisions import UpstreamFacts
from broker.storage.sqlite import SqliteStore
from broker.telemetry import Telemetry
from broker.upstreams.http01 import Http01Answers
from tests.fakes.builtin_ca import request
from tests.fakes.clock import START, FakeClock
from tests.fakes.fake_kv import FakeKv
from tests.fakes.signer import FakeSigner
from tests.fakes.world import default_facts
from tests.unit.config.conftest import parsed

DIRECTORY = "https://ca.example/directory"
ACME: dict[str, Any] = {"kind": "acme", "directory": DIRECTORY, "communities": ["default", "lab"]}
COMMUNITIES: dict[str, Any] = {"default": {}, "lab": {}}


class Office:
    """A store and a state directory, and the upstreams that processes make of them."""

    def __init__(self, directory: Path, store: SqliteStore) -> None:
        self.directory = directory
        self.store = store
        self.signer = FakeSigner()
        self.clock = FakeClock()
        self.kv = FakeKv()
        self.answers = Http01Answers()
        self.registry = CaRegistry(
            store, signer=self.signer, clock=self.clock, files=directory / "ca"
        )
        self.authorities = Authorities(self.registry)

    def upstreams(
        self, *, communities: dict[str, Any] | None = None, **acme: Any
    ) -> ConfiguredUpstreams:
        """Return the upstreams of a process that starts now: ``ca`` and ``local``."""
        config = parsed(
            {
                "state": str(self.directory),
                "communities": communities or COMMUNITIES,
                "upstreams": {
                    "ca": {**ACME, **acme},
                    "local": {"kind": "built-in", "base_url": "http://pki.corp.example:8080"},
                },
            }
        )
        facts: dict[str, UpstreamFacts] = {"ca": default_facts("ca")}
        return ConfiguredUpstreams(
            config,
            facts=facts,
            registry=self.registry,
            secrets=Secrets(config, self.kv, self.clock),
            signer=self.signer,
            places=ConfiguredKeyPlaces(config, rings=KeyRings(self.signer), uses=self.store),
            store=self.store,
            clock=self.clock,
            telemetry=Telemetry(version="0", upstreams=["ca", "local"], clock=self.clock),
            answers=self.answers,
            user_agent="penstock/0",
        )

    async def started(self, **given: Any) -> ConfiguredUpstreams:
        """Return the upstreams of a process that has read the store."""
        upstreams = self.upstreams(**given)
        await upstreams.load_authorities()
        return upstreams

    async def make_local(self) -> None:
        """Make the built-in CA."""
        await self.authorities.initialise(
            "local",
            subject=None,
            permitted_names=(),
            permitted_networks=(),
            actor=Actor("operator:anna"),
        )

    async def keep_account(self, community: str, **changes: Any) -> None:
        """Keep an account at ``ca`` in the store."""
        account = UpstreamAccountRecord(
            upstream="ca",
            community=community,
            directory_url=DIRECTORY,
            account_url="https://ca.example/acct/1",
            key_id=f"account-ca@{community}",
            thumbprint="thumb",
            registered_at=START,
        )
        event = Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=START)
        await self.store.save_upstream_account(replace(account, **changes), event)


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    """Nothing is made and nothing registered."""
    store = await SqliteStore.open(tmp_path / "penstock.db")
    yield Office(tmp_path, store)
    await store.close()


def names(facts: Any) -> list[str]:
    """Return of which upstreams these are the facts."""
    return [one.name for one in facts]


async def test_nothing_is_ready_that_nobody_made_or_registered(office: Office) -> None:
    """Starting a broker registers nowhere."""
    upstreams = office.upstreams()
    await upstreams.load_accounts()
    assert names(upstreams.facts("default")) == []


async def test_upstream_is_ready_for_the_communities_with_an_account(office: Office) -> None:
    """The others have to be registered first."""
    await office.keep_account("lab")
    upstreams = office.upstreams()
    await upstreams.load_accounts()
    assert names(upstreams.facts("lab")) == ["ca"]
    assert names(upstreams.facts("default")) == []


async def test_account_at_another_directory_is_none(office: Office) -> None:
    """The configuration names another CA by now, which knows nothing of that account."""
    await office.keep_account("default", directory_url="https://staging.ca.example/directory")
    await office.keep_account("lab")
    upstreams = office.upstreams()
    await upstreams.load_accounts()
    assert names(upstreams.facts("default")) == []
    assert names(upstreams.facts("lab")) == ["ca"]


async def test_account_at_an_upstream_that_is_gone_is_left_alone(office: Office) -> None:
    """It may come back."""
    await office.keep_account("default", upstream="retired")
    upstreams = office.upstreams()
    await upstreams.load_accounts()
    assert names(upstreams.facts("default")) == []


async def test_built_in_ca_is_ready_once_it_is_made(office: Office) -> None:
    """At the start, and in a broker that was running when the command made it."""
    running = office.upstreams()
    with pytest.raises(Broken, match="'local' does not serve community 'default'"):
        running.get("local", "default")
    await office.make_local()
    started = await office.started()
    for upstreams in (running, started):
        assert names(upstreams.facts("default")) == ["local"]
        assert names(upstreams.facts("lab")) == []
        assert upstreams.get("local", "default").is_local
        assert upstreams.of("local", "default") == upstreams.authorities["local"].anchors()


async def test_request_for_an_offline_root_makes_nothing_ready(office: Office) -> None:
    """It cannot issue until the answer is there."""
    upstreams = office.upstreams()
    await office.authorities.request("local", subject=None, actor=Actor("operator:anna"))
    assert names(upstreams.facts("default")) == []
    started = await office.started()
    assert names(started.facts("default")) == []


async def test_rotation_changes_the_ca_that_runs(office: Office) -> None:
    """The same CA signs with another issuer from then on; nothing is opened anew."""
    running = office.upstreams()
    await office.make_local()
    before = running.authorities["local"]
    anna = Actor("operator:anna")
    await office.authorities.prepare("local", subject=None, is_offline=False, actor=anna)
    assert before.issuers.current.key_id == "ca-local-issuing-1"
    await office.authorities.activate("local", actor=anna)
    assert running.authorities["local"] is before
    assert before.issuers.current.key_id == "ca-local-issuing-2"


async def test_facts_come_in_the_order_of_the_configuration(office: Office) -> None:
    """Whoever reads an explanation finds them where the file has them."""
    await office.keep_account("default")
    await office.make_local()
    upstreams = office.upstreams()
    await upstreams.load_accounts()
    await upstreams.load_authorities()
    assert names(upstreams.facts("default")) == ["ca", "local"]


async def test_calls_are_timed(office: Office) -> None:
    """Every upstream is seen by telemetry, the built-in one too."""
    await office.make_local()
    upstreams = await office.started()
    for name in ("ca", "local"):
        assert isinstance(upstreams.get(name, "default"), ObservedUpstream)
    order = await upstreams.get("local", "default").open_order(request())
    assert order.url


@pytest.mark.parametrize(
    ("upstream", "community"),
    [("local", "lab"), ("ca", "elsewhere"), ("nobody", "default")],
    ids=["not-served", "no-community", "no-upstream"],
)
async def test_upstream_serves_only_its_communities(
    office: Office, upstream: str, community: str
) -> None:
    """An account of one community is never used for another."""
    await office.make_local()
    upstreams = await office.started()
    with pytest.raises(Broken, match=f"'{upstream}' does not serve community '{community}'"):
        upstreams.get(upstream, community)
    upstreams.get("ca", "lab")
    upstreams.get("local", "default")


def test_entries_are_what_is_configured(office: Office) -> None:
    """Ready or not."""
    entries = [(one.name, one.kind, one.where) for one in office.upstreams().entries()]
    assert entries == [
        ("ca", "acme", DIRECTORY),
        ("local", "built-in", "http://pki.corp.example:8080"),
    ]


async def test_check_says_that_the_built_in_ca_is_missing(office: Office) -> None:
    """And nothing once it is there."""
    (fault,) = await office.upstreams().check("local", "default")
    assert fault == "built-in CA 'local' has not been made; see penstock ca init"
    await office.make_local()
    assert await (await office.started()).check("local", "default") == ()


async def test_built_in_ca_has_no_account(office: Office) -> None:
    """There is nobody to register with."""
    with pytest.raises(Broken, match="is built in and knows no accounts"):
        await office.upstreams().register("local", "default", agree_to_terms=True)


# --------------------------------------------------------------------------------- anchors


async def test_without_anchors_any_root_will_do(office: Office) -> None:
    """Public CAs change theirs."""
    assert office.upstreams().of("ca", "default") is None


async def test_anchors_are_read_from_their_file(office: Office) -> None:
    """As many as there are in it."""
    await office.make_local()
    shown: Any = await office.authorities.show("local")
    path = office.directory / "anchors.pem"
    path.write_text(shown["root_pem"] * 2)
    found = office.upstreams(anchors=str(path)).of("ca", "default")
    (root,) = (await office.started()).authorities["local"].anchors()
    assert found == [root, root]


async def test_anchors_of_a_community_hold_for_whatever_ca_issues(office: Office) -> None:
    """Where upstream and community both name some, only those are believed that both name."""
    for name in ("local", "other"):
        await office.authorities.initialise(
            name,
            subject=None,
            permitted_names=(),
            permitted_networks=(),
            actor=Actor("operator:anna"),
        )
    roots = []
    for name in ("local", "other"):
        shown: Any = await office.authorities.show(name)
        path = office.directory / f"{name}.pem"
        path.write_text(shown["root_pem"])
        roots.append(str(path))
    mine, others = roots
    strict = {**COMMUNITIES, "default": {"anchors": mine}}
    free = next(name for name in COMMUNITIES if name != "default")
    either = await office.started(communities=strict)
    believed = either.of("ca", "default")
    assert believed == list(either.authorities["local"].anchors())
    assert either.of("ca", free) is None
    assert either.of("local", "default") == believed
    assert office.upstreams(communities=strict, anchors=others).of("ca", "default") == []
    assert office.upstreams(communities=strict, anchors=mine).of("ca", "default") == believed
    foreign = {**COMMUNITIES, "default": {"anchors": others}}
    assert (await office.started(communities=foreign)).of("local", "default") == []


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read: no such file"), (b"", "are no PEM"), (b"text", "are no PEM")],
    ids=["gone", "empty", "nonsense"],
)
def test_anchors_that_are_none_are_a_reason_to_stop(
    office: Office, content: bytes | None, words: str
) -> None:
    """No anchors by mistake would mean any root at all."""
    path = office.directory / "anchors.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Broken) as caught:
        office.upstreams(anchors=str(path))
    assert words in caught.value.reason


# --------------------------------------------------------------------------------- solvers


def dns_solver(secret: Path) -> dict[str, Any]:
    """Return a dns-01 solver with the TSIG secret at *secret*."""
    tsig = {"name": "penstock-update", "secret": f"file:{secret}"}
    return {"challenge": "dns-01", "rfc2136": {"server": "ns.corp.example:53", "tsig": tsig}}


def test_tsig_secret_is_base64_as_bind_writes_it(office: Office) -> None:
    """A secret in another form is a reason to stop, and is not shown."""
    secret = office.directory / "tsig.key"
    secret.write_text(base64.b64encode(b"0123456789abcdef").decode())
    office.upstreams(solvers=[dns_solver(secret), {"challenge": "http-01"}])
    secret.write_text("hunter2!")
    with pytest.raises(Broken, match="is not base64") as caught:
        office.upstreams(solvers=[dns_solver(secret)])
    assert "hunter2" not in caught.value.reason


async def test_wish_of_a_community_comes_before_that_of_its_upstream(office: Office) -> None:
    """Without either the CA's own default is served; the built-in CA has no wish of its own."""
    free = next(name for name in COMMUNITIES if name != "default")
    assert office.upstreams().preferred_chain("ca", "default") is None
    wished = office.upstreams(
        communities={**COMMUNITIES, "default": {"preferred_chain": "Community Root"}},
        preferred_chain="Upstream Root",
    )
    assert wished.preferred_chain("ca", "default") == "Community Root"
    assert wished.preferred_chain("ca", free) == "Upstream Root"
    assert wished.preferred_chain("local", free) is None
