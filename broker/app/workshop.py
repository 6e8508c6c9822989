"""The workflows of a broker, put together over its adapters."""

from __future__ import annotations

from dataclasses import dataclass, replace

from broker.app.adopting import Takeover, make_takeover
from broker.app.agents import AgentRooms, make_agent_rooms
from broker.app.approvals import ApprovalRooms, make_approvals
from broker.app.caa import ConfiguredIssuers, caa_watch
from broker.app.failover import make_failover, make_standing, make_young
from broker.app.freezes import make_freezes, make_ownership
from broker.app.incidents import make_incidents
from broker.app.outside import VERSION, Outside
from broker.app.quotas import make_quotas
from broker.app.recovering import make_account_recoveries, make_recovery
from broker.app.settings import account_url, issuance_settings, validation_settings
from broker.app.validating import ConfiguredValidators
from broker.issuance.accounts import Accounts
from broker.issuance.approval_hold import ApprovalHold
from broker.issuance.authorizations import Authorizations
from broker.issuance.caa import CaaWatch
from broker.issuance.caa_guard import CaaGuard
from broker.issuance.closing import Closing
from broker.issuance.dispatcher import Dispatcher
from broker.issuance.enrollment import Enrollment
from broker.issuance.former_revocations import FormerRevocations
from broker.issuance.freezes import Freezes
from broker.issuance.fulfilment import Fulfilment
from broker.issuance.incidents import Incidents
from broker.issuance.key_changes import KeyChanges
from broker.issuance.orders import Orders
from broker.issuance.ownership import Ownership
from broker.issuance.planning import Planner
from broker.issuance.records import JobKind
from broker.issuance.release import Gate
from broker.issuance.renewing import Renewing, make_renewing
from broker.issuance.revocations import Revocations
from broker.issuance.settings import IssuanceSettings
from broker.issuance.succession import Succession
from broker.keys.suffixes import PackagedPublicSuffixes
from broker.keys.weakness import OfflineKeyInspector
from broker.operations import OperatorDesk, Recovery, Rooms
from broker.operations.parties import AuditParty
from broker.validation.caa import CaaLookups
from broker.web.workflows import Workflows

__all__ = ["Workshop", "furnished"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """The workflows of one broker over its adapters, with nothing before them."""

    outside: Outside
    enrollment: Enrollment
    accounts: Accounts
    planner: Planner
    orders: Orders
    authorizations: Authorizations
    revocations: Revocations
    renewing: Renewing
    recovery: Recovery
    takeover: Takeover
    approvals: ApprovalRooms
    freezes: Freezes
    ownership: Ownership
    dispatcher: Dispatcher
    agents: AgentRooms | None = None
    """What serves agents; None where the configuration has none."""
    incidents: Incidents | None = None
    """Replaces many certificates."""

    def workflows(self) -> Workflows:
        """Return what the listener for clients serves."""
        outside = self.outside
        return Workflows(
            accounts=self.accounts,
            orders=self.orders,
            authorizations=self.authorizations,
            revocations=self.revocations,
            handover=self.renewing.handover,
            renewals=self.renewing.renewals,
            key_changes=KeyChanges(
                outside.store, _inspector(outside), outside.clock, freezes=self.freezes
            ),
            approvals=self.approvals.authority,
        )

    def desk(self) -> OperatorDesk:
        """Return what operators are served."""
        outside = self.outside
        return OperatorDesk(
            Rooms(
                store=outside.store,
                accounts=self.accounts,
                enrollment=self.enrollment,
                revocations=self.revocations,
                planner=self.planner,
                policies=outside.policies,
                policy_reloads=outside.policy_watch,
                configuration=outside.lasting.configuration,
                upstreams=outside.upstreams,
                upstream_keys=outside.upstream_keys,
                key_rotation=outside.key_rotation,
                adoption=self.takeover.adoption,
                key_moves=self.takeover.moves,
                keys_in_use=outside.keys.watch,
                secrets_in_use=outside.secrets,
                caa=_caa_guard(outside),
                authorities=outside.authorities,
                clock=outside.clock,
                communities=tuple(outside.config.communities),
                version=VERSION,
                renewing=self.renewing,
                recovery=self.recovery,
                account_health=outside.account_health,
                account_recoveries=make_account_recoveries(outside, self.recovery, self.dispatcher),
                nodes=None if self.agents is None else self.agents.nodes,
                workloads=None if self.agents is None else self.agents.workloads,
                deliveries=None if self.agents is None else self.agents.deliveries,
                delivery_rooms=outside.store,
                rollouts=None if self.agents is None else self.agents.fleet.rollouts,
                incidents=self.incidents,
                approvals=self.approvals.authority,
                freezes=self.freezes,
                ownership=self.ownership,
                budget=outside.budget,
                audit=AuditParty(outside.audit, outside.store, outside.store),
            )
        )


async def furnished(outside: Outside) -> Workshop:
    """Put the workflows together, and have the dispatcher know who does which job.

    Raises:
        Broken: A declared binding key cannot be used.
    """
    store, clock = outside.store, outside.clock
    settings = issuance_settings(outside.config, outside.secrets)
    nodes = None if outside.config.agents is None else store
    enrollment = Enrollment(store, clock, settings, sealer=outside.keys.sealer, nodes=nodes)
    await enrollment.keep_declared()
    dispatcher = Dispatcher(store, clock)
    freezes = make_freezes(outside, dispatcher)
    planner = _planner(outside, enrollment, freezes)
    caa = _caa_watch(outside, dispatcher)
    approvals = make_approvals(outside, dispatcher)
    made = Workshop(
        outside=outside,
        enrollment=enrollment,
        accounts=Accounts(
            store, enrollment, clock, settings, admissions=approvals.admissions, freezes=freezes
        ),
        planner=planner,
        orders=_orders(
            outside, planner, dispatcher, settings, caa=caa, approvals=approvals, freezes=freezes
        ),
        approvals=approvals,
        freezes=freezes,
        ownership=await make_ownership(outside),
        authorizations=_authorizations(outside, planner, dispatcher, settings, freezes),
        revocations=_revocations(outside, dispatcher),
        renewing=_renewing(outside, dispatcher),
        recovery=await make_recovery(store, outside.upstreams, dispatcher, clock),
        takeover=make_takeover(outside),
        dispatcher=dispatcher,
    )
    fulfilment = _fulfilment(made, settings, caa)
    dispatcher.on(JobKind.VALIDATE, made.authorizations.validate)
    dispatcher.on(JobKind.PREPARE, fulfilment.prepare)
    dispatcher.on(JobKind.FULFIL, fulfilment.fulfil)
    dispatcher.on(JobKind.REVOKE, made.revocations.carry_out)
    rooms = make_agent_rooms(made)
    return replace(made, agents=rooms, incidents=make_incidents(made, rooms))


def _caa_watch(outside: Outside, dispatcher: Dispatcher) -> CaaWatch:
    caa = caa_watch(
        outside.config,
        upstreams=outside.upstreams,
        policies=outside.policies,
        store=outside.store,
        dispatcher=dispatcher,
        clock=outside.clock,
    )
    dispatcher.on(JobKind.CAA, caa.report)
    return caa


def _revocations(outside: Outside, dispatcher: Dispatcher) -> Revocations:
    store = outside.store
    return Revocations(
        store,
        store,
        outside.upstreams,
        dispatcher,
        outside.clock,
        former=FormerRevocations(store),
    )


def _planner(outside: Outside, enrollment: Enrollment, freezes: Freezes) -> Planner:
    return Planner(
        policies=outside.policies,
        enrollment=enrollment,
        upstreams=outside.upstreams,
        upstream_store=outside.store,
        suffixes=PackagedPublicSuffixes(),
        clock=outside.clock,
        standing=make_standing(outside),
        young=outside.store,
        earlier=outside.store,
        freezes=freezes,
    )


def _renewing(outside: Outside, dispatcher: Dispatcher) -> Renewing:
    return make_renewing(
        outside.store,
        policies=outside.policies,
        upstreams=outside.upstreams,
        dispatcher=dispatcher,
        clock=outside.clock,
    )


def _inspector(outside: Outside) -> OfflineKeyInspector:
    return OfflineKeyInspector(outside.config.weak_keys.blocklists)


def _caa_guard(outside: Outside) -> CaaGuard:
    store = outside.store
    return CaaGuard(
        issuers=ConfiguredIssuers(outside.config, directories=outside.upstreams, store=store),
        looker=CaaLookups(validation_settings(outside.config)),
        policies=outside.policies,
        certificates=store,
        clock=outside.clock,
    )


def _orders(
    outside: Outside,
    planner: Planner,
    dispatcher: Dispatcher,
    settings: IssuanceSettings,
    *,
    caa: CaaWatch,
    approvals: ApprovalRooms,
    freezes: Freezes,
) -> Orders:
    return Orders(
        orders=outside.store,
        owned=outside.store,
        accounts=outside.store,
        log=outside.store,
        planner=planner,
        policies=outside.policies,
        inspector=_inspector(outside),
        dispatcher=dispatcher,
        succession=Succession(outside.store, outside.store),
        clock=outside.clock,
        settings=settings,
        caa=caa,
        approvals=approvals.gate,
        quotas=make_quotas(outside.budget, outside.store, outside.clock),
        freezes=freezes,
        witness=outside.lasting.witness,
    )


def _authorizations(
    outside: Outside,
    planner: Planner,
    dispatcher: Dispatcher,
    settings: IssuanceSettings,
    freezes: Freezes,
) -> Authorizations:
    return Authorizations(
        orders=outside.store,
        accounts=outside.store,
        planner=planner,
        validator=ConfiguredValidators(outside.config, outside.secrets),
        dispatcher=dispatcher,
        clock=outside.clock,
        settings=settings,
        account_url=account_url(outside.config),
        freezes=freezes,
    )


def _fulfilment(made: Workshop, settings: IssuanceSettings, caa: CaaWatch) -> Fulfilment:
    outside, dispatcher = made.outside, made.dispatcher
    store, clock = outside.store, outside.clock
    closing = Closing(store, store, dispatcher, clock)
    return Fulfilment(
        orders=store,
        works=store,
        upstream_store=store,
        upstreams=outside.upstreams,
        gate=Gate(store, outside.policies, outside.upstreams, clock),
        closing=closing,
        dispatcher=dispatcher,
        clock=clock,
        settings=settings,
        failover=make_failover(outside, made.planner, caa, dispatcher),
        young=make_young(outside, closing, dispatcher),
        approvals=ApprovalHold(store, made.approvals.gate, closing, clock),
        freezes=made.freezes,
    )
