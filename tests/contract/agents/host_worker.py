"""The resident half of a host with many certificates: reads its configuration, installs, states.

A process of its own, so that what it takes can be measured.  Arguments: the configuration, and a
file with chain and key of each certificate.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import dataclass

from agents import config as configuration
from agents.clock import SystemClock
from agents.install import install
from agents.ready import statement
from agents.records import Record, Records
from agents.recovery import recover
from agents.state import State


@dataclass(frozen=True)
class Pair:
    """What an install reads of a verified certificate."""

    chain_pem: str
    fingerprint: str
    spki_sha256: str
    not_after: int
    key: str
    anchors_pem: str | None = None


def resident_mib() -> float:
    """Return what the process holds now, in MiB."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def peak_mib() -> float:
    """Return the most that the process held, in MiB.

    ``ru_maxrss`` would be what the process held that started this one, if that held more.
    """
    with open("/proc/self/status", encoding="ascii") as file:
        (peak,) = [line.split()[1] for line in file if line.startswith("VmHWM:")]
    return int(peak) / 1024


def main(config_path: str, pairs_path: str) -> dict[str, float]:
    """Do what an agent does at its start and when all is renewed; return what it took."""
    figures = {"resident_at_first_mib": resident_mib()}
    began = time.monotonic()
    config = configuration.load(config_path)
    figures["configuration_s"] = time.monotonic() - began
    figures["resident_with_configuration_mib"] = resident_mib()
    node, state = config.node, State(config.node.state)
    records = Records(state.certificates)
    began = time.monotonic()
    with open(pairs_path, encoding="utf-8") as file:
        for section, line in zip(config.certificates, file, strict=True):
            pair = Pair(**json.loads(line))
            made = install(section, pair, pair.key, allowed=node.allowed, state_dir=node.state)
            made.settle()
            record = Record(section.name, 1, pair.fingerprint, not_after=pair.not_after)
            record.spki_sha256, record.key, record.is_seen = pair.spki_sha256, pair.key, True
            records.put(record)
    figures["install_s"] = time.monotonic() - began
    began = time.monotonic()
    records = Records(state.certificates)
    figures["records_s"] = time.monotonic() - began
    began = time.monotonic()
    body = statement(config, records.get, lambda _: 0, instance="i", agent="1")
    figures["statement_s"] = time.monotonic() - began
    figures["statement_bytes"] = len(json.dumps(body, separators=(",", ":")))
    began = time.monotonic()
    faults = recover(
        config.certificates,
        allowed=node.allowed,
        state_dir=node.state,
        now=SystemClock().now(),
    )
    figures["recover_s"] = time.monotonic() - began
    assert faults == [], faults
    del body
    figures["resident_mib"] = resident_mib()
    figures["peak_mib"] = peak_mib()
    figures["cpu_s"] = time.process_time()
    return figures


if __name__ == "__main__":
    json.dump(main(*sys.argv[1:]), sys.stdout)
