"""One real agent for a whole host: thousands of certificates, each organisation's of its own owner.

``.venv/bin/python -m bench.agents_host 5000 1000`` measures a host with so many certificates for
so many organisations, at a real broker, and prints the figures as JSON.  It takes longer than all
other measurements: the short-lived children of the agent take 0.3 s of processor time for each.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench.agents_channel import make_broker
from bench.processes import usage_of
from bench.scenarios import Tell
from tests.contract.agents.whole_host import owner_of
from tests.deployments.node_agents import NodeAgent, TrustingPenstock
from tests.peers import process

__all__ = ["Host", "measure_host"]

NODE: Final = "host.example.test"

SERVE_SECONDS: Final = 3_600.0
"""By when all are seen."""

SETTLE_SECONDS: Final = 30.0
"""How long agent and broker are left alone before they are looked at."""

LOOK_SECONDS: Final = 2.0

_SEEN: Final = "SELECT count(*) FROM deliveries WHERE stage = 'seen'"
_LONGEST: Final = "SELECT max(ended_at - pushed_at) FROM deliveries WHERE stage = 'seen'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host once all of its certificates are in place."""

    certificates: int
    organisations: int
    owners: int
    """Users that own a key there; 1 where this was not run by root."""
    first_seconds: float
    """From the start of the agent until the first was seen."""
    all_seconds: float
    """The same until the last was."""
    longest_seconds: float
    """Longest from push to seen."""
    agent_cpu_seconds: float
    """Its children's too, which make keys and CSRs and check certificates."""
    resident_mib: float
    private_mib: float
    peak_mib: float
    """The most that the resident process ever held."""
    broker_resident_mib: float
    broker_cpu_seconds: float


class HostAgent(NodeAgent):
    """A `penstock-agent` with a file for each certificate of its host, as a panel writes them."""

    def __init__(self, tmp: Path, broker: TrustingPenstock, count: int, organisations: int) -> None:
        token = broker.mint([NODE])[NODE]
        super().__init__(tmp, NODE, url=broker.agents_url, anchors=broker.ca_bundle, token=token)
        self.tls = tmp / "tls"
        self._anchors_file = broker.ca_bundle
        self._owners = [owner_of(number, organisations) for number in range(count)]

    def write(self) -> None:
        """Write agent.toml and the files beside it."""
        super().write()
        text = self.config.read_text("utf-8")
        self.config.write_text(text.replace("allowed = []", f'allowed = ["{self.tls}"]'), "utf-8")
        self.tls.mkdir(exist_ok=True)
        folder = self.directory / "agent.d"
        folder.mkdir(exist_ok=True)
        for number, owner in enumerate(self._owners):
            name = f"site-{number}"
            (folder / f"{number:06d}.toml").write_text(
                f'[[certificate]]\nname = "{name}"\nnames = ["{name}.example.test"]\n'
                f'[certificate.files]\ndirectory = "{self.tls}/org-{owner}/{name}"\n'
                f'owner = "{owner}"\n'
                f'[certificate.expects]\nanchors = "{self._anchors_file}"\n',
                "utf-8",
            )


def measure_host(
    home: Path,
    count: int,
    organisations: int,
    tell: Tell,
    *,
    settle_seconds: float = SETTLE_SECONDS,
) -> Host:
    """Have one agent get *count* certificates for *organisations* owners, and look at both ends."""
    with make_broker(home / "broker") as broker:
        agent = HostAgent(home / "agent", broker, count, organisations)
        before = usage_of(broker.pid).cpu_seconds
        begun = time.monotonic()
        with agent:
            _wait_for(broker, 1, tell)
            first = time.monotonic() - begun
            _wait_for(broker, count, tell)
            took = time.monotonic() - begun
            time.sleep(settle_seconds)
            used, there = usage_of(agent.pid), usage_of(broker.pid)
            ((longest,),) = broker.rows(_LONGEST)
            made = Host(
                certificates=count,
                organisations=organisations,
                owners=_owners(agent.tls, count),
                first_seconds=first,
                all_seconds=took,
                longest_seconds=longest / 1e6,
                agent_cpu_seconds=used.cpu_seconds,
                resident_mib=used.resident_mib,
                private_mib=used.private_mib,
                peak_mib=_peak_mib(agent.pid),
                broker_resident_mib=there.resident_mib,
                broker_cpu_seconds=there.cpu_seconds - before,
            )
    tell(str(made))
    return made


def _wait_for(broker: TrustingPenstock, number: int, tell: Tell) -> None:
    told = time.monotonic()

    def is_so() -> bool:
        nonlocal told
        time.sleep(LOOK_SECONDS)
        ((seen,),) = broker.rows(_SEEN)
        if time.monotonic() - told > SETTLE_SECONDS:
            told = time.monotonic()
            tell(f"{seen} of {number} seen")
        return int(seen) >= number

    process.wait_until(is_so, SERVE_SECONDS, f"{number} certificates are seen")


def _owners(tls: Path, count: int) -> int:
    """Return how many users own a key; each key is there, and its owner's alone."""
    keys = [path.stat() for path in tls.glob("org-*/site-*/privkey.pem")]
    if len(keys) != count or any(key.st_mode & 0o077 for key in keys):
        raise process.PeerFailed(f"{len(keys)} of {count} keys are there, or others may read them")
    return len({key.st_uid for key in keys})


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peak) / 1024


def main(arguments: Sequence[str]) -> int:
    """Measure a host of the size that is asked for, and print the figures."""
    count, organisations = (int(one) for one in arguments)

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as home:
        # Owners have to reach what is theirs.
        Path(home).chmod(0o755)
        made = measure_host(Path(home), count, organisations, tell)
    print(json.dumps(asdict(made), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
