"""The deployment of a soak: Pebble, a broker, the hosts, and the prober that looks at them."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from broker.issuance.events import EventKind
from tests.deployments.node_agents import TrustingPenstock
from tests.deployments.penstock import REPOSITORY, AcmeCa
from tests.peers import process
from tests.peers.pebble import ChallTestSrv, Pebble, PebbleOptions
from tests.soak.hosts import ZONE, Host, LogWatch, make_hosts

__all__ = ["UPSTREAM", "Scene"]

UPSTREAM: Final = "pebble"

RENEW_AT: Final = 0.4
"""When a certificate is renewed at the latest, as a share of its lifetime: of five minutes, three
are left for whatever is killed meanwhile."""

PROBER_SECONDS: Final = 15.0
"""By when the prober has ended after it was told to."""


class Scene:
    """All processes, by names that faults are told by."""

    def __init__(self, home: Path, stack: ExitStack, *, each: int, lifetime: int) -> None:
        self.home = home
        self.trust = home / "trust.pem"
        self.trust.touch()
        self._trust_lock = threading.Lock()
        self.broker_kills: list[float] = []
        """When the broker was killed, in seconds since 1970."""
        plain = process.free_port()
        self.dns = stack.enter_context(ChallTestSrv(home / "dns"))
        self.pebble = Pebble(
            home / "pebble",
            validation_http_port=plain,
            dns_server=self.dns.dns_address,
            options=PebbleOptions(
                profiles={"default": datetime.timedelta(seconds=lifetime)},
                nonce_reject_percent=5,
            ),
        )
        stack.callback(self.pebble.stop)
        self.pebble.start()
        self.learn_root()
        self.broker = TrustingPenstock(
            home / "broker",
            nodes=[f"**.{ZONE}"],
            names=[f"**.{ZONE}"],
            plain_port=plain,
            upstreams=[
                AcmeCa(
                    name=UPSTREAM,
                    directory_url=self.pebble.directory_url,
                    ca_bundle=self.pebble.ca_bundle,
                    description="pebble",
                    # It grants whatever end an order asks for; here its profile decides.
                    facts={
                        "honours_not_after": False,
                        "default_lifetime": f"{lifetime}s",
                        "max_lifetime": f"{lifetime}s",
                    },
                )
            ],
            profiles={
                "server": {
                    "description": "hosts of the soak",
                    "cap": "47d",
                    "usages": ["server-auth"],
                    "renew_at": RENEW_AT,
                    # Pebble has another root at each start, and a root that is another is held.
                    "on_nodes": {"hold": ["names", "usages", "key"]},
                    "upstreams": [{"upstream": UPSTREAM}],
                }
            },
        )
        stack.callback(self.broker.stop)
        self.broker.start()
        url = self.broker.agents_url
        self.hosts = make_hosts(home / "hosts", self.broker, self.trust, each, url=url)
        for host in self.hosts:
            stack.enter_context(host.server)
        self._prober: subprocess.Popen[bytes] | None = None
        self.watch = LogWatch(self.hosts)
        self.watch.start()
        stack.callback(self.watch.stop)
        for host in self.hosts:
            stack.callback(host.agent.stop)
            host.agent.start()
        self._start_prober(stack)

    # ------------------------------------------------------------------------------- Pebble

    def learn_root(self) -> None:
        """Write down the root that Pebble has had since its last start.

        It has another at every start; nodes and prober trust each of them.
        """
        with self._trust_lock, self.trust.open("ab") as file:
            file.write(self.pebble.root_pem())

    def recover(self, deadline: float) -> int:
        """Do what docs/runbooks/account-lost.md says; return how many orders were ordered again.

        The broker may be killed meanwhile, so it is tried until the monotonic time *deadline*.  It
        may also be killed when it is done and has not said so: what was replaced since is as good
        an answer.
        """
        arguments = ("upstream", "recover", UPSTREAM, "--agree-to-terms", "--reason", "soak")
        before = self._accounts_replaced()
        while True:
            try:
                rows = self.broker.json(*arguments)
                break
            except (process.PeerFailed, subprocess.TimeoutExpired, ValueError):
                if self._accounts_replaced() > before:
                    return 0
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        orders = [order for row in rows for order in row.get("orders_undecided", ())]
        for order in orders:
            self.ask("order", "again", order, "--reason", "soak", deadline=deadline)
        return len(orders)

    def _accounts_replaced(self) -> int:
        kind = EventKind.UPSTREAM_ACCOUNT_REPLACED
        found = self.broker.rows("SELECT count(*) FROM events WHERE kind = ?", str(kind))
        return int(found[0][0])

    def ask(self, *arguments: str, deadline: float) -> Any:
        """Run a command until it succeeds or is refused by a broker that runs."""
        while True:
            try:
                return self.broker.json(*arguments)
            except (process.PeerFailed, subprocess.TimeoutExpired, ValueError) as error:
                if time.monotonic() > deadline:
                    return {"error": str(error)}
                time.sleep(0.5)

    # ------------------------------------------------------------------------------- the prober

    @property
    def probed(self) -> Path:
        """Where the prober writes."""
        return self.home / "probed.jsonl"

    def _start_prober(self, stack: ExitStack) -> None:
        targets = self.home / "targets.json"
        targets.write_text(json.dumps([host.target() for host in self.hosts]), "utf-8")
        command = [sys.executable, "-m", "tests.soak.prober"]
        with (self.home / "prober.log").open("ab") as log:
            self._prober = subprocess.Popen(
                [*command, str(targets), str(self.trust), str(self.probed)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                env=process.clean_environment(self.home, {"PYTHONPATH": str(REPOSITORY)}),
                start_new_session=True,
            )
        stack.callback(self.stop_prober)

    def stop_prober(self) -> None:
        """Have the prober write its summary and end."""
        prober, self._prober = self._prober, None
        if prober is None:
            return
        os.kill(prober.pid, signal.SIGTERM)
        try:
            prober.wait(PROBER_SECONDS)
        finally:
            process.stop_group(prober, "prober")

    def probes(self) -> list[Mapping[str, Any]]:
        """Return what the prober has told so far."""
        if not self.probed.exists():
            return []
        whole, _, _ = self.probed.read_text("utf-8").rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def taken_over(self) -> set[str]:
        """Return the nodes whose server has been seen with a certificate that is right."""
        return {one["node"] for one in self.probes() if one["what"] == "served"}

    def host(self, node: str) -> Host:
        """Return the host of that name."""
        return next(host for host in self.hosts if host.node == node)
