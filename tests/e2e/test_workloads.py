"""Pods by the score at a real broker, without a cluster: budgets, restarts, a sealed Vault."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.deployments.node_agents import TrustingPenstock
from tests.deployments.operators import asking
from tests.deployments.penstock import AcmeCa, BuiltInCa
from tests.deployments.vaulted import Transit, vault_section
from tests.fakes.cluster_issuer import ISSUER, ClusterIssuer
from tests.peers import authority, process
from tests.peers.pebble import Pebble, PebbleOptions
from tests.peers.vault import Vault
from tests.simulator.behaviour import Behaviour
from tests.simulator.fleet import Fleet, certificate

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

PATIENCE_SECONDS: Final = 120.0
"""Longest wait for a hundred orders; it takes a tenth of that on an idle machine."""

NAME: Final = "web.shop.example.test"
REPLICAS: Final = 20
RESTARTS: Final = 5

NOWHERE: Final = "127.0.0.1:9"
"""A resolver that a CA never asks which calls every challenge valid."""


class Shop:
    """A broker that knows one cluster, and the pods of a deployment in it."""

    def __init__(self, home: Path, stack: ExitStack, **options: Any) -> None:
        home.mkdir(exist_ok=True)
        self.home = home
        self.issuer = ClusterIssuer(ec.generate_private_key(ec.SECP256R1()))
        keys = home / "prod.jwks"
        keys.write_bytes(self.issuer.key_set())
        rule = {
            "namespaces": ["shop"],
            "service_accounts": ["web"],
            "names": ["{service_account}.{namespace}.example.test"],
            **options.pop("rule", {}),
        }
        cluster = {"issuer": self.issuer.issuer, "keys": str(keys), "rules": [rule]}
        self.broker = stack.enter_context(
            TrustingPenstock(
                home,
                nodes=["*.shop.prod"],
                agents={"clusters": {"prod": cluster}},
                lifetime="1d",
                **options,
            )
        )
        self.started = 0

    def token(self, pod: str) -> str:
        """Return the projected token of a pod of shop/web."""
        told = {
            "namespace": "shop",
            "serviceaccount": {"name": "web", "uid": "u-web"},
            "pod": {"name": pod, "uid": f"u-{pod}"},
        }
        return self.issuer.token(
            authority.real_now(),
            sub="system:serviceaccount:shop:web",
            **{"kubernetes.io": told},
        )

    def pods(self, number: int) -> list[dict[str, Any]]:
        """Return pods that start now, each with a key and a name that it never had before."""
        made = []
        for _ in range(number):
            self.started += 1
            pod = f"web-{self.started:04}"
            made.append(
                {
                    "name": pod,
                    "method": "kubernetes",
                    "token": self.token(pod),
                    "certificates": [certificate("tls", NAME)],
                }
            )
        return made

    @contextmanager
    def running(self, pods: Sequence[Mapping[str, Any]]) -> Iterator[Fleet]:
        """Yield the agents of *pods*, which end with it as pods do: without a word."""
        with Fleet(
            self.home / f"fleet-{self.started}",
            port=self.broker.agents_port,
            anchors=self.broker.ca_bundle,
            behaviour=Behaviour(reload_seconds=0.01),
        ) as fleet:
            fleet.add(pods)
            yield fleet

    def served(self) -> int:
        """Return how many pods were ever seen to serve."""
        rows = self.broker.rows("SELECT count(*) FROM deliveries WHERE stage = 'seen'")
        return int(rows[0][0])

    def wait_for(self, served: int) -> None:
        """Wait until so many pods were seen to serve."""
        wait_for(lambda: self.served() >= served, lambda: self.told())

    def told(self) -> Counter[str]:
        """Return how deliveries stand, and why those wait that do."""
        return Counter(
            f"{stage}: {note or fault or ''}"
            for stage, note, fault in self.broker.rows(
                "SELECT d.stage, d.note, m.fault FROM deliveries d"
                " JOIN managed m USING (managed_id)"
            )
        )

    def orders(self) -> Counter[str]:
        """Return how many orders brought a certificate, by upstream."""
        rows = self.broker.rows("SELECT upstream FROM orders WHERE status = 'valid'")
        return Counter(upstream for (upstream,) in rows)

    def twice(self) -> list[Any]:
        """Return orders with more than one certificate, and certificates without an order."""
        more = self.broker.rows(
            "SELECT order_id, count(*) FROM certificates GROUP BY order_id HAVING count(*) > 1"
        )
        strays = self.broker.rows(
            "SELECT certificate_id FROM certificates WHERE order_id NOT IN"
            " (SELECT order_id FROM orders WHERE status = 'valid')"
        )
        return [*more, *strays]


def wait_for(has_come: Callable[[], bool], tell: Callable[[], object]) -> None:
    """Wait until another process has come that far."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not has_come():
        assert time.monotonic() < end, tell()
        time.sleep(0.2)


def pebble(tmp: Path) -> Pebble:
    """Return a Pebble that believes every challenge."""
    options = PebbleOptions(always_valid=True, nonce_reject_percent=15)
    return Pebble(tmp, validation_http_port=9, dns_server=NOWHERE, options=options)


def public(home: Path, ca: Pebble, **limits: Any) -> AcmeCa:
    """Return Pebble as a public CA that the configuration knows limits of."""
    anchors = home / "public-root.pem"
    anchors.write_bytes(ca.root_pem())
    return AcmeCa(
        name="public",
        directory_url=ca.directory_url,
        ca_bundle=ca.ca_bundle,
        description="pebble",
        anchors=anchors,
        options={"poll_interval": "200ms", **limits},
    )


def chosen(*upstreams: str) -> dict[str, Any]:
    """Return the profile of pods, with the CAs that it takes in this order."""
    return {
        "server": {
            "description": "pods",
            "cap": "47d",
            "usages": ["server-auth"],
            "upstreams": [{"upstream": name} for name in upstreams],
        }
    }


def budget(limit: str) -> dict[str, Any]:
    """Return the rule that counts what a service account has of the public CA."""
    return {
        "name": "pods",
        "because": "a public CA counts what a service account orders",
        "who": {"clusters": ["prod"]},
        "quotas": [{"per": "workload", "limit": limit, "upstreams": ["public"]}],
    }


def test_replicas_that_restart_outlive_the_budget_of_a_public_ca(tmp_path: Path) -> None:
    """Of 120 starts five have the public CA's certificates, and every pod is served."""
    with ExitStack() as stack:
        ca = stack.enter_context(pebble(tmp_path / "pebble"))
        (tmp_path / "shop").mkdir()
        shop = Shop(
            tmp_path / "shop",
            stack,
            rule={"upstreams": ["public", "local"]},
            upstreams=[public(tmp_path, ca, certificates={"for_same_names": {"rate": "5/7d"}})],
            profiles=chosen("public", "local"),
            policy={"rules": [budget("200/7d")]},
        )
        before = review(shop)
        assert (before["allowed"], before["upstream"]) == (True, "public")
        for restart in range(1 + RESTARTS):
            with shop.running(shop.pods(REPLICAS)) as fleet:
                assert fleet.enrol() == REPLICAS, fleet.faults()
                fleet.connect()
                shop.wait_for(served=REPLICAS * (1 + restart))
        assert shop.orders() == {"public": 5, "local": REPLICAS * (1 + RESTARTS) - 5}
        assert len(ca.issued()) == 5
        assert shop.twice() == []
        assert shop.broker.events("quota-exceeded") == []
        after = review(shop)
        assert (after["allowed"], after["upstream"]) == (True, "local")
        (spent,) = [one for one in after["budget"] if one["would_exceed"]]
        assert (spent["upstream"], spent["limit"], spent["used"]) == ("public", "5/7d", 5)


def review(shop: Shop, **more: str) -> dict[str, Any]:
    """Ask what a pod of the deployment would get."""
    options = [word for name, value in more.items() for word in (f"--{name}", value)]
    found: dict[str, Any] = shop.broker.json("workload", "review", "prod", "shop/web", *options)
    return found


def test_budget_of_a_workload_refuses_where_policy_has_no_other_ca(tmp_path: Path) -> None:
    """The pods past it wait, and the review says which figure it is before they start."""
    with ExitStack() as stack:
        ca = stack.enter_context(pebble(tmp_path / "pebble"))
        shop = Shop(
            tmp_path / "shop",
            stack,
            rule={"upstreams": ["public"]},
            upstreams=[public(tmp_path, ca)],
            policy={"rules": [budget("2/7d")]},
        )
        with shop.running(shop.pods(4)) as fleet:
            assert fleet.enrol() == 4, fleet.faults()
            fleet.connect()
            shop.wait_for(served=2)
            wait_for(lambda: sum("limited to 2/7d" in one for one in shop.told()) > 0, shop.told)
        assert (len(ca.issued()), shop.served()) == (2, 2)
        found = review(shop)
        assert not found["allowed"]
        assert [one["check"] for one in found["reasons"]] == ["budget"]
        assert "limited to 2/7d and none is left" in found["reasons"][0]["detail"]
        refused = review(shop, name="mail.example.test")
        assert [one["check"] for one in refused["reasons"]] == ["eab-names"]


def test_hundred_pods_come_while_the_broker_is_killed(tmp_path: Path) -> None:
    """Whoever was not let in comes again; each order has one certificate, at the CA too."""
    with ExitStack() as stack:
        ca = stack.enter_context(pebble(tmp_path / "pebble"))
        shop = Shop(
            tmp_path / "shop",
            stack,
            rule={"upstreams": ["public"]},
            upstreams=[public(tmp_path, ca)],
            policy={"rules": [budget("1000/7d")]},
        )
        with shop.running(shop.pods(100)) as fleet:
            coming = threading.Thread(target=fleet.enrol, daemon=True)
            coming.start()
            nodes = "SELECT count(*) FROM nodes"
            wait_for(lambda: shop.broker.rows(nodes)[0][0] >= 30, shop.told)
            shop.broker.kill()
            coming.join(PATIENCE_SECONDS)
            shop.broker.start()
            assert fleet.enrol() >= 99, fleet.faults()
            fleet.connect(spread=2)
            wait_for(lambda: len(ca.issued()) >= 20, shop.told)
            shop.broker.kill()
            shop.broker.start()
            shop.wait_for(served=100)
            assert shop.broker.rows(nodes) == [(100,)]
        assert shop.orders() == {"public": 100}
        assert shop.twice() == []
        assert len(ca.issued()) == 100


def test_pods_that_come_while_vault_is_sealed_wait_and_are_served(tmp_path: Path) -> None:
    """The CA's key is out of reach, nobody is refused, and no order is issued twice."""
    with ExitStack() as stack:
        (tmp_path / "vault").mkdir()
        (tmp_path / "shop").mkdir()
        vault = stack.enter_context(Vault(tmp_path / "vault"))
        accounts = Transit(vault, tmp_path, "transit-accounts", ["penstock.default.outer"])
        keys = Transit(vault, tmp_path, "transit-ca", ["penstock.local.issuing"])
        shop = Shop(
            tmp_path / "shop",
            stack,
            built_in=BuiltInCa(options={"key_store": keys.store}),
            more={"vault": vault_section(accounts, mounts=[keys])},
        )
        with shop.running(shop.pods(10)) as early:
            assert early.enrol() == 10, early.faults()
            early.connect()
            shop.wait_for(served=10)
        vault.seal()
        with shop.running(shop.pods(100)) as fleet:
            assert fleet.enrol() == 100, fleet.faults()
            fleet.connect()
            waiting = "SELECT count(*) FROM orders WHERE status = 'processing'"
            wait_for(lambda: shop.broker.rows(waiting)[0][0] >= 50, shop.told)
            assert shop.served() == 10
            vault.unseal()
            shop.wait_for(served=110)
        assert shop.orders() == {"local": 110}
        assert shop.twice() == []
        assert len(shop.broker.ca_serials()) == len(set(shop.broker.ca_serials()))
        made = "SELECT count(*) FROM ca_certificates WHERE ca = 'local'"
        assert shop.broker.rows(made)[0][0] <= 110 + 1  # the broker's own beside them


ADMISSION: Final = "system:serviceaccount:penstock:penstock-admission"


def test_admission_of_a_cluster_asks_by_its_own_token_and_sees_nothing_else(
    tmp_path: Path,
) -> None:
    """A projected token of the right audience and subject is the whole of its credentials."""
    port = process.free_port()
    with ExitStack() as stack:
        (tmp_path / "shop").mkdir()
        issuer = {
            "issuer": ISSUER,
            "audience": "penstock-operators",
            "types": ["none"],
            "keys": str(tmp_path / "shop" / "prod.jwks"),
        }
        person = {"tokens": [f"prod:{ADMISSION}"], "roles": {"default": ["admission"]}}
        shop = Shop(
            tmp_path / "shop",
            stack,
            listen={"operators": {"address": f"127.0.0.1:{port}"}},
            more={"operators": {"people": {"admission": person}, "issuers": {"prod": issuer}}},
        )

        def ask(path: str, body: object = None, **claims: Any) -> tuple[int, Any]:
            made = {"sub": ADMISSION, "aud": ["penstock-operators"], **claims}
            token = shop.issuer.token(authority.real_now(), **made)
            with asking(port, shop.broker.ca_bundle, token=token) as api:
                return api.ask("GET" if body is None else "POST", path, body)

        asked = {"cluster": "prod", "namespace": "shop", "service_account": "web", "services": []}
        status, found = ask("/v1/workload/review", asked)
        assert (status, found["allowed"], found["names"]) == (200, True, [NAME])
        status, found = ask("/v1/workload/review", {**asked, "names": ["mail.example.test"]})
        assert (status, found["allowed"]) == (200, False)
        assert "is outside the names of node" in found["reasons"][0]["detail"]
        assert ask("/v1/workload/review", {**asked, "cluster": "test"})[0] == 403
        assert ask("/v1/node/list")[0] == 403
        assert ask("/v1/order/list?community=default")[0] == 403
        others = [{"sub": "system:serviceaccount:shop:web"}, {"aud": ["penstock"]}]
        for claims in others:
            assert ask("/v1/workload/review", asked, **claims)[0] in (401, 403)
