"""What a pod's node may be, made anew when its identity is renewed.

A rule that was taken out, a pod that is gone and a Service that no longer selects it end what
followed from them within one identity's life.  An API server that cannot be asked takes nothing
from a node that is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import structlog

from broker.issuance.cluster_rules import Cluster, grant_of
from broker.issuance.errors import Unreachable
from broker.issuance.joining_ports import Grant
from broker.issuance.node_ports import EnrolmentMethod, NodeRecord
from broker.issuance.vouching import credential_refused
from broker.protocol.service_account_token import ServiceAccount, TokenRejected

__all__ = ["Regrants", "is_same_pod", "with_grant"]

log = structlog.get_logger("penstock")


def with_grant(node: NodeRecord, grant: Grant) -> NodeRecord:
    """Return *node* as *grant* has it; who answers for it is what somebody may have set since."""
    if grant.cluster is None:
        return node
    return replace(
        node,
        names=grant.names,
        profiles=grant.profiles,
        cluster=grant.cluster,
        namespace=grant.namespace,
        service_account=grant.service_account,
        pod=grant.pod,
        pod_uid=grant.pod_uid,
        upstreams=grant.upstreams,
    )


def is_same_pod(holder: NodeRecord, grant: Grant) -> bool:
    """Return whether *holder* is of the pod that *grant* is for, whichever start of it that was."""
    if holder.cluster is None and holder.pod is None:
        # Enrolled before these were kept.  Its namespace was proven, its name has to tell the rest.
        told = f"{grant.pod}.{grant.namespace}.{grant.cluster}"
        return grant.namespace is not None and (holder.namespace, holder.name) == (
            grant.namespace,
            told,
        )
    of_holder = (holder.cluster, holder.namespace, holder.pod)
    return of_holder == (grant.cluster, grant.namespace, grant.pod)


class Regrants:
    """Looks at the rules of clusters again."""

    def __init__(self, clusters: Sequence[Cluster] = ()) -> None:
        self._clusters = {one.name: one for one in clusters}

    async def renewed(self, node: NodeRecord) -> NodeRecord:
        """Return *node* as its cluster's rules have it now; one of no cluster is what it was.

        Raises:
            Problem: unauthorized: it is nothing by these rules any more, its pod is gone, or it is
                a pod's and nobody knows of which cluster, so that it has to enrol anew.
        """
        if node.cluster is None or node.namespace is None or node.service_account is None:
            if node.method is EnrolmentMethod.KUBERNETES:
                reason = "it is not known of which cluster it is, so it has to enrol anew"
                log.warning("a pod's identity is not renewed", node=node.name, reason=reason)
                raise credential_refused()
            return node
        account = ServiceAccount(
            namespace=node.namespace,
            name=node.service_account,
            pod=node.pod,
            node=None,
            pod_uid=node.pod_uid,
        )
        try:
            grant = await self._grant(node.cluster, account)
        except Unreachable as away:
            log.warning("a pod was not looked at again", node=node.name, reason=away.reason)
            return node
        except TokenRejected as error:
            log.warning("a pod's identity is not renewed", node=node.name, reason=str(error))
            raise credential_refused() from error
        if (grant.node, grant.community) != (node.name, node.community):
            reason = f"its rule would make it '{grant.node}' of '{grant.community}'"
            log.warning("a pod's identity is not renewed", node=node.name, reason=reason)
            raise credential_refused()
        return with_grant(node, grant)

    async def _grant(self, name: str, account: ServiceAccount) -> Grant:
        cluster = self._clusters.get(name)
        if cluster is None:
            raise TokenRejected(f"no cluster is called '{name}' any more")
        services = await cluster.services_of(cluster.rule_for(account), account)
        return grant_of(cluster, account, services)
