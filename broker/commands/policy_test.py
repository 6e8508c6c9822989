"""``penstock policy test``: the security team's cases, run without a broker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from broker.commands.failures import CommandFailed, readable
from broker.commands.options import as_json, config_option
from broker.commands.output import print_json
from broker.config.policy_review import CaseRun, run_directories
from broker.policy.case_runs import CaseResult

__all__ = ["test"]


@click.command("test", short_help="Run the cases of a policy directory.")
@click.argument(
    "directories",
    metavar="[DIRECTORY]...",
    nargs=-1,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)
@click.option("-v", "--verbose", is_flag=True, help="List the cases that passed, too.")
@click.option("--strict", is_flag=True, help="Exit with 3 when a policy or a rule has no case.")
@config_option
@as_json
def test(
    *,
    directories: Sequence[Path],
    verbose: bool,
    strict: bool,
    config_path: Path,
    is_json: bool,
) -> None:
    """Run the cases in DIRECTORY: given this request, expect that decision, because.

    No broker is needed, nor a configuration where a directory is named; without one, the
    directories of the configuration are taken. What is not tried is told: policies without cases,
    and rules that speak of no case.

    Exit status: 0 all as expected, 1 a case failed, 2 a file is wrong, 3 something is not tried,
    under --strict.
    """
    with readable("policy files"):
        run = run_directories(directories or _configured(config_path))
    if is_json:
        print_json(_view(run))
    else:
        _tell(run, is_verbose=verbose)
    failed = sum(not one.has_passed for one in run.results)
    if failed:
        raise CommandFailed(f"{_count(failed, 'case')} failed")
    if strict and (run.without_cases or run.untried_rules):
        raise _Untried("something is not tried by any case")


class _Untried(CommandFailed):
    """Every case passed, and there are too few: the outcome of --strict."""

    exit_code = 3


def _configured(config_path: Path) -> tuple[Path, ...]:
    from broker.config import load_config
    from broker.config.policies import policy_directories

    return policy_directories(load_config(config_path))


def _tell(run: CaseRun, *, is_verbose: bool) -> None:
    for result in run.results:
        if not result.has_passed:
            _tell_failed(result)
        elif is_verbose:
            click.echo(f"ok    {result.source}:{result.line}: {result.name}")
    for source in run.without_cases:
        click.echo(f"note  {source}: no case is about this policy")
    for rule in run.untried_rules:
        click.echo(f"note  {rule} speaks of no case")
    failed = sum(not one.has_passed for one in run.results)
    outcome = f"{failed} failed" if failed else "all as expected"
    policies = _count(len(run.policies.documents), "policy", "policies")
    click.echo(f"{_count(len(run.results), 'case')} about {policies}: {outcome}")
    click.echo(f"sha256 of the set: {run.policies.sha256}")


def _tell_failed(result: CaseResult) -> None:
    click.echo(f"FAIL  {result.source}:{result.line}: {result.name}")
    for difference in result.differences:
        click.echo(f"      {difference}")
    click.echo(f"      because {result.because}")


def _count(number: int, word: str, plural: str | None = None) -> str:
    return f"1 {word}" if number == 1 else f"{number} {plural or word + 's'}"


def _view(run: CaseRun) -> dict[str, Any]:
    return {
        "cases": [
            {
                "file": one.source,
                "line": one.line,
                "policy": one.policy,
                "name": one.name,
                "because": one.because,
                "passed": one.has_passed,
                "differences": list(one.differences),
            }
            for one in run.results
        ],
        "without_cases": list(run.without_cases),
        "untried_rules": list(run.untried_rules),
        "sha256": run.policies.sha256,
    }
