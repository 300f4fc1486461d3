"""The DA-ITN control centre of a domain, put together: which room answers what.

No OpenFlow library, no socket and no clock of its own: all are passed in (``controller.__main__`` does it), so the
whole of it runs in a unit test against a fake flow table.
"""

from __future__ import annotations

from collections.abc import Awaitable

from controller.access.authenticity import Authenticity
from controller.access.calls import Calls
from controller.access.gathering import NEWS_S, Gathering
from controller.access.packets import Packets
from controller.access.places import Places
from controller.access.requests import Terminals
from controller.access.revocation import LOOK_S as ORDERS_S
from controller.access.revocation import Revocation
from controller.border import messages as border
from controller.border.holding import AskBriefing
from controller.border.kbgp.abstraction import abstract
from controller.border.lending import AskEngine
from controller.border.revoking import Revocations
from controller.border.serving import Serving
from controller.domain import Domain
from controller.inference.calibration import LOOK_S, Calibration
from controller.inference.deployment import Deployment
from controller.inference.health import KNOCK_S, Health
from controller.inference.queries import Queries
from controller.placement.distributed import Distributed
from controller.placement.lending import Lending
from controller.plugins.engines import Engines
from controller.runtime.identities import Identities
from controller.runtime.loop import Table
from controller.services import Means, make_kit
from controller.southbound.discovery import Discovery
from controller.southbound.rate_limit import Limiter
from controller.steering.announced import Objects
from controller.steering.fabric import Fabric
from controller.steering.holding import Holding
from controller.steering.launch import Steering
from controller.steering.liveness import WATCH_S, Liveness
from controller.steering.resteer import Resteering
from controller.steering.visits import ABOUT_AN_OBJECT, Visits
from controller.tools.sensing import Sensing
from controller.training.home import Home
from controller.training.recovery import Custody
from controller.training.rivals import Rivals
from controller.training.standing import Trusting
from controller.training.submission import Training
from packets import messages
from packets.distributed.asking import AskBrief, AskOffers, AskPlan, Propose
from packets.kbgp.knowledge import Knowledge
from packets.messages import Message
from topologies.plan import DomainPlan, HostPlan

UPKEEP_S = 2.0
# how long each try is waited for; three terminals that are silent must not take longer than a question over a border
PATIENCE_S: dict[type, tuple[float, ...]] = {AskOffers: (0.2, 0.4, 0.8), AskPlan: (0.2, 0.5, 0.9)}


class Dcc:
    """The core of one control centre process."""

    def __init__(self, plan: DomainPlan, means: Means) -> None:
        self.domain = Domain(plan)
        self.serving = Serving(self.domain, means.worker, means.ask_border)
        self.lending = Lending(means.engines or Engines(), means.housing.lends, means.clock, means.emit)
        self.services = services = make_kit(self.domain, means, self.serving.ask)
        identities = Identities()
        self.authenticity = Authenticity(means.keeper, means.clock, means.emit, means.store)
        self.limiter = Limiter(means.clock, means.emit)
        self.places = Places(services)
        self.calls = Calls(services.communication)
        self.gathering = Gathering(services)
        self.terminals = Terminals(services, self.gathering)
        self.discovery = Discovery(self.domain, means.south, means.emit)
        self.sensing = Sensing(self.domain, means.emit)
        self.packets = Packets(
            services, means.worker, self.authenticity, self.limiter, self.discovery, self.calls, self.terminals
        )  # fmt: skip
        self.objects = Objects(services, identities, self.places)
        self.steering = Steering(services, self.places)
        self.resteering = Resteering(services, self.steering, self.calls)
        self.liveness = Liveness(services, means.worker, self.gathering, self.resteering)
        self.fabric = Fabric(
            services, means.worker, self.packets.packet_in, self.discovery, self.sensing, self.resteering, self.liveness
        )
        self.visits = Visits(services, means.worker, self.gathering)
        self.queries = Queries(services, self.places)
        self.health = Health(services, means.worker, self.queries, self.calls)
        self.deployment = Deployment(services, means.worker, self.queries, self.objects, self.health)
        self.training = Training(services, identities)
        self.trusting = Trusting(services, self.gathering)
        self.rivals = Rivals(services, self.places, self.gathering, self.sensing, self.steering.legs)
        self.custody = Custody(services, self.training, means.worker.spawn)
        self.home = Home(services, self.objects, self.training, self.custody, self.resteering)
        self.revocation = Revocation(services, means.worker, self.authenticity)
        self.calibration = Calibration(services, means.worker, self.deployment, self.training.book.verified)
        services.processes.tell = self.calls.ask
        services.communication.seal = self.authenticity.seal
        services.communication.own_source = means.keeper is not None and not means.any_source
        self._register()
        self.serving.resumed = self.fabric.resumed
        if isinstance(services.intelligence, Distributed):
            self._leave_to_terminals(services.intelligence)

    def _leave_to_terminals(self, minds: Distributed) -> None:
        """Have terminals say what is on offer, and where the objects go that they hold (a distributed K-AS)."""

        def ask(host: HostPlan, message: Message, object_id: int) -> Awaitable[Message]:
            return self.calls.ask(host, message, object_id, pauses_s=PATIENCE_S[type(message)])

        minds.ask, minds.busy = ask, lambda: {a.node for a in self.services.location.expected()}
        self.holding = Holding(self.services, minds, self.steering, self.rivals.bookings)
        self.terminals.on(AskBrief, self.holding.brief)
        self.terminals.on(Propose, self.holding.propose)

    def _register(self) -> None:
        """Say which room answers what: packets, terminals' messages, other control centres' requests."""
        self.packets.on_object, self.packets.on_query = self.steering.launch, self.queries.ask
        self.fabric.packet_refused = self.limiter.overflowed
        self.packets.on_closed = self.liveness.agent_ended
        self.fabric.on_switch = self.gathering.call if self.services.store.again else self.fabric.on_switch
        self.liveness.on_dead, self.fabric.on_links = self.health.gone, self.queries.links_changed
        self.visits.on_trained, self.visits.on_leave = self._trained, self.resteering.withdrawn
        terminals, serving = self.terminals, self.serving
        for kind in ABOUT_AN_OBJECT:
            terminals.on(kind, self.visits.about_object)
        terminals.on(messages.Leave, self.visits.leave)
        terminals.on(messages.AnnounceObject, self.objects.announce)
        terminals.on(messages.Submit, self.training.submit)
        terminals.on(messages.Change, self.training.change)
        serving.on(border.AskFacilities, self.places.answer)
        serving.on(border.AskOptions, self.rivals.offer)
        serving.on(border.Book, self.rivals.book)
        serving.on(AskEngine, self.lending.answer)
        terminals.on(messages.AskReplicas, self.queries.replicas)
        terminals.on(messages.MoveModel, self.deployment.move)
        self.visits.owner_of = self.objects.owner_of = self.training.book.owner
        self.objects.on_deploy, self.objects.place_of = self.calibration.deployed, self.calibration.place_of
        self.home.on_remeasured = self.calibration.remeasured
        serving.on(border.CopyModel, self.deployment.copy)
        serving.on(border.RetireModel, self.deployment.retire)
        serving.on(border.AskModels, self.queries.models.offer)
        serving.on(border.Lead, self.queries.leads.obey)
        serving.on(border.ModelsChanged, self.health.models_changed)
        serving.on(Revocations, self.revocation.heard)
        self.revocation.on_revoked, self.gathering.on_join = self._revoked, self._joined
        serving.on(border.Announce, self.steering.announced)
        serving.on(border.Withdraw, self.steering.withdraw)
        serving.on(border.HandOver, self.resteering.hand_over)
        serving.on(border.Release, self.resteering.release)
        serving.on(border.LinkState, self.fabric.hear_of_link)
        serving.on(border.Interrupt, self.visits.interrupt)
        serving.on(border.Evidence, self.trusting.judge)
        serving.on(border.AskNextStop, self.home.next_stop)
        serving.on(AskBriefing, self.home.briefing)
        serving.on(border.Forward, self.home.forwarded)
        serving.on(border.Lost, self.home.lost)

    def _trained(self, object_id: int, visit: int, data_node: str) -> None:
        self.trusting.trained(object_id, visit, data_node)
        self.services.intelligence.trained(object_id, data_node)

    def _joined(self, name: str) -> None:
        self.trusting.joined(name)
        self.revocation.joined(name)

    def _revoked(self, name: str, why: str) -> None:
        self.liveness.dead(name, why)
        self.training.disown(name, why)

    def restore(self) -> None:
        """Know again what an earlier life knew; to be called before any switch connects."""
        if self.services.store.again:
            self.gathering.restore()
            self.queries.restore()

    async def resume(self) -> None:
        """Go on where an earlier life died; returns at once in a first one."""
        if not self.services.store.again:
            return
        began_s, jobs = self.services.clock(), self.training.book.resume()
        await self.fabric.resume()
        self.visits.resume()
        self.deployment.resume()
        for job in jobs:
            self.fabric.worker.spawn(self.custody.resume(job), f"job {job.object_id}")
        for kas in sorted(self.domain.kas):
            self.services.emit(
                "dcc.resumed", kas=kas, jobs=len(jobs), labels=len(self.services.communication.paths),
                terminals=len(self.gathering.restored), took_ms=round(1e3 * (self.services.clock() - began_s), 1),
                **self.fabric.adopted,
            )  # fmt: skip

    def knowledge(self, kas: int) -> Knowledge:
        """Return what other K-AS may know of one of ours."""
        nodes, now_s = self.services.krrm.nodes(), self.services.clock()
        tasks = {m["task"] for node in nodes for m in node.get("models", [])}
        return abstract(kas, nodes, [m for t in sorted(tasks) for m in self.services.intelligence.models(t, now_s)])

    def table(self) -> Table:
        """Return the periodic duties: {name: (method, period in seconds)}."""
        return {
            "revoked terminals": (self.revocation.look, ORDERS_S),
            "port counters": (self.fabric.poll, 1.0),
            "drop counters": (self.fabric.poll_drops, 2.0),
            "link verification": (self.discovery.probe, 5.0),
            "liveness": (self.liveness.look, 1.0),
            "watch over rendezvous": (self.liveness.knock, WATCH_S),
            "borders that are to be told": (self.fabric.borders.tell_again, 2.0),
            "overdue jobs": (self.training.overdue, 1.0),
            "second thoughts": (self.custody.reconsider, 1.0),
            "query weights": (self.queries.reweigh, 1.0),
            "health of deployed models": (self.health.look, KNOCK_S),
            "placement of deployed models": (self.deployment.round, 1.0),
            "drift of deployed models": (self.calibration.look, LOOK_S),
            "packet-in limits": (self.limiter.tell, 1.0),
            "refusals": (self.authenticity.tell, 1.0),
            "refused requests": (self.terminals.refused.tell, 1.0),
            "database": (self.services.store.upkeep, UPKEEP_S),
            "map news": (self.gathering.tell, NEWS_S),
            "map cost": (self.gathering.tell_cost, 1.0),
        }
