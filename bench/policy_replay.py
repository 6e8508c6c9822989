"""How long ``penstock policy diff`` takes over many orders: a real broker, its socket, the command.

The orders are written as rows, each with names of its own, so that no answer is remembered from
another; half of them have a certificate that is alive.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from broker.clock import SystemClock
from broker.issuance.records import AccountRecord, CertificateRecord, OrderRecord
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.resources import AccountStatus, OrderStatus
from broker.storage.rows import ACCOUNTS, CERTIFICATES, ORDERS
from tests.deployments.penstock import Penstock

ACCOUNTS_SHARE: Final = 100
"""Orders of each account."""

RULES: Final = 100
"""Rules of the new policy, each about names of its own."""

NAMES_EACH: Final = 2
"""Names of each order."""


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=100_000)
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    try:
        print(json.dumps(measure(directory, arguments.orders)))
    finally:
        shutil.rmtree(directory)


def measure(directory: Path, orders: int) -> dict[str, Any]:
    """Return seconds and counts of one replay over *orders*."""
    broker = Penstock(directory, validation_http_port=5002)
    broker.prepare()
    fill(broker.database, orders)
    new = write_new(broker)
    with broker:
        command = [*broker.program(), "policy", "diff", str(new), "--json", "--progress"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begun = time.monotonic()
        done = subprocess.run(
            [*command, "--config", str(broker.config)],
            env=broker.environment(),
            stdout=subprocess.PIPE,
            check=True,
        )
        seconds = time.monotonic() - begun
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(done.stdout)
    return {
        "orders": found["replayed"]["order"],
        "certificates": found["replayed"]["certificate"],
        "rules": RULES,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu(used) - cpu(before), 2),
        "per_second": round(sum(found["replayed"].values()) / seconds),
        "effects": found["effects"],
        "groups": len(found["groups"]),
        "python": sys.version.split()[0],
    }


def cpu(used: resource.struct_rusage) -> float:
    """Return seconds of processors that ended children took; the broker is not among them."""
    return used.ru_utime + used.ru_stime


def write_new(broker: Penstock) -> Path:
    """Write the changed policy beside the one in force and return its directory."""
    new = broker.directory / "new"
    shutil.copytree(broker.policy_file.parent, new)
    path = new / broker.policy_file.name
    document = json.loads(path.read_text("utf-8"))
    document["rules"] = [
        {
            "name": f"team-{number}",
            "because": "it is measured",
            "names": [f"**.t{number}.example.test"],
            **({"refuse": "not any more"} if number % 10 == 0 else {"cap": "30d"}),
        }
        for number in range(RULES)
    ]
    path.write_text(json.dumps(document, indent=1), "utf-8")
    return new


def fill(database: Path, orders: int) -> None:
    """Write orders of the last 29 days, and a live certificate for every second one."""
    now = SystemClock().now()
    account = AccountRecord(
        account_id="",
        community="default",
        status=AccountStatus.VALID,
        jwk_json="{}",
        thumbprint="",
        contacts=(),
        terms_agreed=True,
        eab_key_id=None,
        created_at=now - timedelta(days=60),
    )
    with sqlite3.connect(database) as connection:
        count = -(-orders // ACCOUNTS_SHARE)
        connection.executemany(
            ACCOUNTS.insert,
            [
                ACCOUNTS.values(replace(account, account_id=f"a{n}", thumbprint=f"thumbprint-{n}"))
                for n in range(count)
            ],
        )
        made = [_order(number, orders, now) for number in range(orders)]
        connection.executemany(ORDERS.insert, [ORDERS.values(one) for one in made])
        connection.executemany(
            CERTIFICATES.insert,
            [
                CERTIFICATES.values(_certificate(number, order))
                for number, order in enumerate(made)
                if number % 2
            ],
        )
    connection.close()


def _order(number: int, orders: int, now: Any) -> OrderRecord:
    at = now - timedelta(days=29) * (1 - number / orders)
    names = tuple(
        Identifier(IdentifierType.DNS, f"h{number}-{n}.t{number % (10 * RULES)}.example.test")
        for n in range(NAMES_EACH)
    )
    account = f"a{number // ACCOUNTS_SHARE}"
    return OrderRecord(
        order_id=f"order-{number:08}",
        account_id=account,
        community="default",
        status=OrderStatus.VALID,
        identifiers=names,
        authorization_ids=(),
        profile="server",
        is_profile_asked=False,
        not_before=None,
        not_after=None,
        created_at=at,
        expires_at=at + timedelta(hours=8),
        decision={
            "lever": "ask",
            "cap": "47d",
            "policy_sha256": "0" * 64,
            "checks": ["name-allowed"] * 20,
            "requester": {"account_id": account, "address": "192.0.2.1", "owner": "team"},
            "is_unchanged_renewal": number % 3 == 0,
        },
        upstream="local",
        upstream_profile=None,
        cap_seconds=47 * 86400,
        ask_not_after=True,
    )


def _certificate(number: int, order: OrderRecord) -> CertificateRecord:
    return CertificateRecord(
        certificate_id=f"certificate-{number:08}",
        order_id=order.order_id,
        account_id=order.account_id,
        community=order.community,
        upstream=order.upstream,
        fingerprint=f"{number:064x}",
        serial=f"{number:08x}",
        cert_id=None,
        chain_pem=b"x" * 2_000,
        leaf_der=b"x" * 1_000,
        identifiers=order.identifiers,
        spki_sha256=f"{number:064x}",
        not_before=order.created_at,
        not_after=order.created_at + timedelta(days=47),
        received_at=order.created_at,
        is_released=True,
    )


if __name__ == "__main__":
    main()
