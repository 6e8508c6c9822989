"""The command behind ``make soak``: run, judge, report; 0 when nothing is to be explained."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.peers import process
from tests.peers.installation import PeerMissing
from tests.soak.deliveries import ENDS, read_deliveries
from tests.soak.faults import Faults
from tests.soak.judging import Judged, judge
from tests.soak.report import Soaked, render
from tests.soak.scene import Scene

LIFETIME_SECONDS: Final = 300

WARM_SECONDS: Final = 240.0
"""By when every server serves a certificate of Pebble's, before the first fault."""

SETTLE_SECONDS: Final = 120.0
"""By when every delivery has ended after the last fault."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    asked = _parser().parse_args(arguments)
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(2**32)
    _tell(f"seed {seed}, {asked.minutes:g} minutes")
    home = Path(tempfile.mkdtemp(prefix="penstock-soak-"))
    # Servers give up their rights and have to reach what they read.
    home.chmod(0o755)
    try:
        soaked = _soak(home, seed, asked.minutes, asked.each)
    except (process.PeerFailed, PeerMissing, OSError) as error:
        _tell(f"penstock: error: {error}")
        _tell(f"what was written lies in {home}")
        return 1
    text = render(soaked)
    asked.report.write_text(text, "utf-8")
    sys.stdout.write(text)
    _tell(f"written to {asked.report}; logs lie in {home}")
    return 1 if soaked.violations else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make soak", description="Twenty agents, short certificates, and kill -9 at random."
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="how long faults go on")
    parser.add_argument("--seed", type=int, help="what decides the faults; drawn if not given")
    parser.add_argument("--each", type=int, default=5, help="hosts of each kind of server")
    parser.add_argument(
        "--report", type=Path, default=Path("docs/soak.md"), help="where the report is written"
    )
    return parser


def _soak(home: Path, seed: int, minutes: float, each: int) -> Soaked:
    with ExitStack() as stack:
        scene = Scene(home, stack, each=each, lifetime=LIFETIME_SECONDS)
        _warm(scene)
        faults = Faults(scene, random.Random(seed), _tell)
        faults.run(60 * minutes)
        _tell("no more faults; what is under way may end")
        judged = _settled(scene, int(60 * minutes // LIFETIME_SECONDS))
    return Soaked(
        seed=seed,
        minutes=minutes,
        hosts=len(scene.hosts),
        lifetime_seconds=LIFETIME_SECONDS,
        judged=judged,
        faults=faults.done,
        broken=faults.broken,
    )


def _warm(scene: Scene) -> None:
    nodes = {host.node for host in scene.hosts}
    try:
        process.wait_until(
            lambda: scene.taken_over() == nodes, WARM_SECONDS, "every server is taken over"
        )
    except process.PeerFailed as error:
        missing = sorted(nodes - scene.taken_over())
        logs = process.tail(scene.host(missing[0]).agent.log_text())
        raise process.PeerFailed(f"{error}: not {', '.join(missing)}\n{logs}") from None
    _tell(f"{len(nodes)} servers serve what Pebble issued")


def _settled(scene: Scene, least_renewals: int) -> Judged:
    """Wait until all that is under way has ended, and judge while the broker still runs."""
    deadline = time.monotonic() + SETTLE_SECONDS
    until = time.time()  # noqa: TID251  the wall clock, as deliveries have it
    while any(
        one.stage not in ENDS and one.begun_at <= until for one in read_deliveries(scene.broker)
    ):
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    for host in scene.hosts:
        host.agent.stop()
    scene.stop_prober()
    scene.watch.stop()
    return judge(scene, least_renewals, until)


def _tell(line: str) -> None:
    now = time.strftime("%H:%M:%S", time.gmtime())
    sys.stderr.write(f"{now} {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
