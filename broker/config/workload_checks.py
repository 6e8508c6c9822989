"""Upstreams of cluster rules that cost somebody's limits: each needs a quota."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from broker.config.cluster_checks import builtin_upstreams
from broker.config.model import Config
from broker.config.vouching import ClusterRuleSection
from broker.policy.decisions import QuotaPer
from broker.policy.document import PolicyDocument
from broker.policy.rules import Grade, Rule, Who
from broker.policy.yamlfile import Fault, Lines

__all__ = ["check_workload_budgets"]


def check_workload_budgets(
    config: Config, documents: Mapping[str, PolicyDocument], lines: Lines
) -> Iterator[Fault]:
    """Yield upstreams of cluster rules that cost somebody's limits, under no quota per workload.

    What is found to hold here may be taken out of a policy later; then orders are not made there.
    """
    clusters = config.agents.clusters if config.agents is not None else {}
    for name, cluster in clusters.items():
        for place, section in enumerate(cluster.rules):
            document = documents.get(section.community)
            built_in = builtin_upstreams(config, section.community)
            for number, upstream in enumerate(section.upstreams):
                if upstream in built_in or document is None:
                    continue
                if not any(_counts(r, upstream, name, section) for r in document.rules.rules):
                    yield lines.fault(
                        ("agents", "clusters", name, "rules", place, "upstreams", number),
                        f"upstream '{upstream}' is no built-in CA, and no rule of community "
                        f"'{section.community}' has a quota 'per: workload' for these pods there",
                        "add an enforced rule with such a quota that holds for all of them",
                    )


def _counts(rule: Rule, upstream: str, cluster: str, section: ClusterRuleSection) -> bool:
    """Return whether *rule* counts every order of these pods at *upstream*."""
    is_always = (
        rule.grade is Grade.ENFORCE
        and rule.renewal_grade is Grade.ENFORCE
        and rule.not_who is None
        and rule.when is None
        and rule.starts is None
        and rule.until is None
        and rule.names is None
        and rule.profiles is None
    )
    return (
        is_always
        and (rule.who is None or _is_about(rule.who, cluster, section))
        and any(
            quota.per is QuotaPer.WORKLOAD
            and (quota.upstreams is None or upstream in quota.upstreams)
            for quota in rule.quotas
        )
    )


def _is_about(who: Who, cluster: str, section: ClusterRuleSection) -> bool:
    others = (
        who.accounts, who.eab, who.nodes, who.networks, who.certificates, who.client_names
    )  # fmt: skip
    if any(one is not None for one in others) or who.any:
        return False
    pairs = {f"{n}/{a}" for n in section.namespaces for a in section.service_accounts}
    return (
        (who.clusters is None or cluster in who.clusters)
        and (who.namespaces is None or who.namespaces.issuperset(section.namespaces))
        and (who.service_accounts is None or who.service_accounts.issuperset(pairs))
    )
