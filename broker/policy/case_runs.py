"""Files of cases, run against the policies that they are about.

What ``penstock policy test`` prints and what is asked before a changed policy comes into force.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from broker.policy.case_form import PolicyCase, PolicyCases
from broker.policy.cases import judge_case
from broker.policy.decisions import RuleRef
from broker.policy.document import PolicyDocument
from broker.policy.upstream_facts import UnknownDescription, UpstreamDescription
from broker.policy.yamlfile import KeyPath, load_model, values_at

__all__ = ["CaseFile", "CaseResult", "parse_case_file", "run_cases"]


@dataclass(frozen=True, slots=True)
class CaseFile:
    """A file of cases, with the line of each."""

    source: str
    policy: str
    """The policy's file, as seen from the folder of policies."""
    cases: tuple[PolicyCase, ...]
    lines: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """What came of one case."""

    source: str
    line: int
    policy: str
    name: str
    because: str
    differences: tuple[str, ...]
    """A sentence for each way in which it was decided otherwise; empty: as expected."""
    rules: tuple[RuleRef, ...] = ()
    """Every rule that spoke of the case's order."""

    @property
    def has_passed(self) -> bool:
        """Return whether it was decided as expected."""
        return not self.differences

    def __str__(self) -> str:
        told = "; ".join(self.differences) or "as expected"
        return f"{self.source}:{self.line}: {self.name}: {told}"


def parse_case_file(text: str, *, source: str) -> CaseFile:
    """Return the cases in *text*.

    Raises:
        Faults: Everything that is wrong with it.
    """
    form, lines = load_model(text, source, PolicyCases, cross_check=_check_names)
    placed = tuple(lines.line(("cases", number)) for number in range(len(form.cases)))
    return CaseFile(source, form.policy, form.cases, placed)


def _check_names(values: object) -> Iterator[tuple[KeyPath, str, str | None]]:
    seen: set[str] = set()
    for path, name in values_at(values, "cases", "*", "name"):
        if isinstance(name, str) and name in seen:
            yield path, f"a case is called '{name[:80]}' already", "so that a failing one is found"
        seen.add(str(name))


def run_cases(
    documents: Iterable[PolicyDocument],
    files: Iterable[CaseFile],
    descriptions: Mapping[str, UpstreamDescription],
) -> tuple[CaseResult, ...]:
    """Return what comes of every case of *files*, in the order of the files.

    A file about a policy that is not among *documents* fails as a whole: nothing shows that the
    policy does what it is for.
    """
    by_source = {document.source: document for document in documents}
    return tuple(result for file in files for result in _of_file(file, by_source, descriptions))


def _of_file(
    file: CaseFile,
    documents: Mapping[str, PolicyDocument],
    descriptions: Mapping[str, UpstreamDescription],
) -> Iterator[CaseResult]:
    # Where a set is made of several directories, names begin with that of the directory.
    directory = file.source.rpartition("cases/")[0]
    # Where folders cannot be had, as in a ConfigMap, cases lie beside their policy.
    beside = f"{file.source.rpartition('/')[0]}/{file.policy}"
    document = (
        documents.get(f"{directory}{file.policy}")
        or documents.get(beside)
        or documents.get(file.policy)
    )
    for case, line in zip(file.cases, file.lines, strict=True):
        rules: tuple[RuleRef, ...] = ()
        if document is None:
            known = ", ".join(sorted(documents)) or "none"
            differences: tuple[str, ...] = (
                f"there is no policy '{file.policy}' here, there is {known}",
            )
        else:
            try:
                differences, rules = judge_case(document, case, descriptions)
            except UnknownDescription as error:
                differences = (f"given an upstream that is not described: {error}",)
        yield CaseResult(
            source=file.source,
            line=line,
            policy=file.policy if document is None else document.source,
            name=case.name,
            because=case.because,
            differences=differences,
            rules=rules,
        )
