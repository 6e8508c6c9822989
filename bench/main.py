"""The command bench/run: measure, write the report, put it into the documents."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench import agents, kubernetes, policy, vault
from bench import agents_report as agent_reports
from bench import kubernetes_report as kubernetes_reports
from bench import policy_report as policy_reports
from bench import report as reports
from bench import vault_report as vault_reports
from bench.acme2certifier import PEER
from bench.kubernetes_vault_injector import PEER as INJECTOR
from bench.scenarios import EFFORTS, SCENES, measure
from tests.kubernetes.programs import KUBERNETES_VERSION
from tests.peers.installation import GO_PEERS, VAULT, PeerMissing, go_toolchain
from tests.peers.process import PeerFailed

__all__ = ["main"]

REPORT: Final = reports.ROOT / "build" / "bench" / "report.json"
VAULT_REPORT: Final = REPORT.with_name("vault.json")
AGENTS_REPORT: Final = REPORT.with_name("agents.json")
POLICY_REPORT: Final = REPORT.with_name("policy.json")
KUBERNETES_REPORT: Final = REPORT.with_name("kubernetes.json")
PAGE: Final = reports.ROOT / "docs" / "benchmarks.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    asked = _parser().parse_args(arguments)
    try:
        if asked.only == "vault":
            return _vault(asked)
        if asked.only == "agents":
            return _agents(asked)
        if asked.only == "policy":
            return _policy(asked)
        if asked.only == "kubernetes":
            return _kubernetes(asked)
        asked.report = asked.report or REPORT
        if not asked.only_docs:
            _measure(asked)
        if asked.write_docs or asked.only_docs:
            reports.write_docs(_rendered(asked.report), PAGE)
            print(f"written into {PAGE.relative_to(reports.ROOT)}", file=sys.stderr)
        print(_rendered(asked.report))
    except (PeerMissing, PeerFailed, OSError, ValueError) as error:
        print(f"penstock: error: {error}", file=sys.stderr)
        return 1
    measured = reports.read_report(asked.report).measured
    return 1 if any(cell.errors for cell in measured.cells) and asked.effort == "smoke" else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench/run", description="Measure Penstock beside its peers, on this machine alone."
    )
    efforts = parser.add_mutually_exclusive_group()
    for name, text in (
        ("quick", "a few minutes: shows a direction"),
        ("smoke", "seconds, and without the servers of others: that everything runs"),
    ):
        efforts.add_argument(
            f"--{name}", dest="effort", action="store_const", const=name, help=text
        )
    parser.set_defaults(effort="full")
    parser.add_argument(
        "--scene", action="append", choices=sorted(SCENES), help="only this one; may be repeated"
    )
    parser.add_argument(
        "--only",
        choices=["agents", "kubernetes", "policy", "vault"],
        help="agents and what they cost the broker; pods on a real cluster of one node; decisions "
        "and reloads of policies; account keys in Vault beside those in files",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="with --only kubernetes: take the archives there instead of building images anew",
    )
    parser.add_argument("--report", type=Path, help="where the JSON report lies")
    parser.add_argument(
        "--write-docs", action="store_true", help="put the tables into docs/benchmarks.md"
    )
    parser.add_argument(
        "--only-docs", action="store_true", help="the same from the report that is there already"
    )
    return parser


def _measure(asked: argparse.Namespace) -> None:
    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as home:
        effort = EFFORTS[asked.effort]
        if asked.scene:
            effort = replace(effort, scenes=tuple(asked.scene))
        measured = measure(Path(home), effort, tell)
    reports.write_report(reports.take(measured, asked.effort, _versions()), asked.report)


def _vault(asked: argparse.Namespace) -> int:
    """Measure keys in Vault, which has a report of its own."""

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    path = asked.report or VAULT_REPORT
    if not asked.only_docs:
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as home:
            keys = vault.measure(Path(home), vault.EFFORTS[asked.effort], tell)
        versions = _versions() | {"Vault": VAULT.version}
        vault_reports.write_report(vault_reports.take(keys, asked.effort, versions), path)
    report = vault_reports.read_report(path)
    text = vault_reports.render(report)
    if asked.write_docs or asked.only_docs:
        reports.write_docs(text, PAGE, start=vault_reports.START, end=vault_reports.END)
        print(f"written into {PAGE.relative_to(reports.ROOT)}", file=sys.stderr)
    print(text)
    return 1 if any(cell.errors for cell in report.keys.cells) and asked.effort == "smoke" else 0


def _agents(asked: argparse.Namespace) -> int:
    """Measure agents, which have a report of their own."""

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    path = asked.report or AGENTS_REPORT
    if not asked.only_docs:
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as home:
            found = agents.measure(Path(home), agents.EFFORTS[asked.effort], tell)
        versions = _versions() | {"Vault": VAULT.version}
        agent_reports.write_report(agent_reports.take(found, asked.effort, versions), path)
    text = agent_reports.render(agent_reports.read_report(path))
    if asked.write_docs or asked.only_docs:
        reports.write_docs(text, PAGE, start=agent_reports.START, end=agent_reports.END)
        print(f"written into {PAGE.relative_to(reports.ROOT)}", file=sys.stderr)
    print(text)
    return 0


def _policy(asked: argparse.Namespace) -> int:
    """Measure policies, which have a report of their own."""

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    path = asked.report or POLICY_REPORT
    if not asked.only_docs:
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as home:
            found = policy.measure(Path(home), policy.EFFORTS[asked.effort], tell)
        ours = {name: version(name) for name in ("penstock", "uvloop")}
        policy_reports.write_report(policy_reports.take(found, asked.effort, ours), path)
    text = policy_reports.render(policy_reports.read_report(path))
    if asked.write_docs or asked.only_docs:
        reports.write_docs(text, PAGE, start=policy_reports.START, end=policy_reports.END)
        print(f"written into {PAGE.relative_to(reports.ROOT)}", file=sys.stderr)
    print(text)
    return 0


def _kubernetes(asked: argparse.Namespace) -> int:
    """Measure pods on a cluster, which have a report of their own; needs root."""

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    path = asked.report or KUBERNETES_REPORT
    if not asked.only_docs:
        effort = kubernetes.EFFORTS[asked.effort]
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as home:
            found = kubernetes.measure(Path(home), effort, tell, images=asked.images)
        versions = {"penstock": version("penstock"), "Kubernetes": KUBERNETES_VERSION}
        versions |= {"Vault": VAULT.version, INJECTOR.name: INJECTOR.version}
        kubernetes_reports.write_report(
            kubernetes_reports.take(found, asked.effort, versions), path
        )
    text = kubernetes_reports.render(kubernetes_reports.read_report(path))
    if asked.write_docs or asked.only_docs:
        start, end = kubernetes_reports.START, kubernetes_reports.END
        reports.write_docs(text, PAGE, start=start, end=end)
        print(f"written into {PAGE.relative_to(reports.ROOT)}", file=sys.stderr)
    print(text)
    return 0


def _rendered(path: Path) -> str:
    before = reports.read_report(reports.BEFORE) if reports.BEFORE.exists() else None
    return reports.render(reports.read_report(path), before)


def _versions() -> dict[str, str]:
    (step_ca,) = [peer.version for peer in GO_PEERS if peer.name == "step-ca"]
    toolchain = go_toolchain()
    ours = {name: version(name) for name in ("penstock", "aiohttp", "cryptography", "uvloop")}
    theirs = {"step-ca": step_ca, "acme2certifier": PEER.version}
    return ours | theirs | ({"Go": toolchain[1]} if toolchain is not None else {})
