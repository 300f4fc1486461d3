"""MS-DRRT: the model-specific topology that DRRT-O cuts from the map for one request, and DRRT-A which keeps it true.

What is cut (paper, section II and Fig. 2): the data nodes that hold data of the request's groups, are reachable and
trusted; each at the places where the model could meet that data, which are the data node itself and, where its data
may move, the compute facilities of its K-AS; and the MPVUs that may verify. Every such meeting is an ``Option`` under
an opaque handle: the handle is a keyed digest, so that no other K-AS can tell from it, or guess, which node stands
behind it, and it stays the same from cut to cut.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec
import networkx as nx

from controller.topology.errors import UnknownHandle
from controller.topology.krrm import Krrm
from controller.values.decisions import Mix, Option, Request
from controller.values.errors import NoPath
from controller.values.knowledge import Attribute, Node
from controller.values.paths import Route, host_route
from topologies.plan import DomainPlan

DEFAULT_SAMPLE_BYTES = 64
UNKNOWN_SHARE = 0.5  # trust or quality that a terminal never reported: neither believed nor held against it
DATA_BASIS = ("samples", "group_shares", "quality", "trust", "reachable")
FACILITY_BASIS = ("compute_samples_per_s", "queue", "trust", "reachable", "available_s")
MPVU_CUT = ("test_samples", "queue", "load", "trust", "reachable")
DATA_CUT = (*DATA_BASIS, "sample_bytes", "data_may_move", "available_s")  # what makes a meeting worth cutting anew


class Rendezvous(msgspec.Struct, frozen=True, kw_only=True):
    """What a handle stands for, inside its own K-AS only. ``move_data``: the data node sends data to the facility."""

    data_node: str
    facility: str
    move_data: bool


class Meeting(msgspec.Struct, frozen=True, kw_only=True):
    """An option with what stands behind it and the attributes it rests on (``"h11.samples" -> Attribute``)."""

    option: Option
    rendezvous: Rendezvous
    basis: dict[str, Attribute]

    def age_s(self, now_s: float) -> float:
        """Return the age of the oldest attribute the meeting rests on."""
        return max((now_s - held.t_s for held in self.basis.values()), default=0.0)


class MsDrrt:
    """A topology cut for one request: ``options`` for planners of any K-AS, the rest for the DCC that cut it."""

    def __init__(
        self, domain: DomainPlan, meetings: list[Meeting], mpvus: list[Node], members: list[Node], now_s: float
    ) -> None:
        self.options = [_aged(m, now_s) for m in meetings]
        self.mpvus = [node.name for node in mpvus]
        self._meetings = {m.option.handle: m for m in meetings}
        self._domain = domain
        self._members = members
        self._graph: nx.Graph | None = None

    def describe(self, now_s: float) -> dict[str, Any]:
        """Return the topology as plain values: what is offered where, by whom it can be verified, how old each is.

        For the people of this K-AS (``daitn map``); options for others carry handles instead of names.
        """
        known = {node.name: node for node in self._members}
        return {
            "meetings": [_told(m, known, now_s) for m in self._meetings.values()],
            "mpvus": [_of_node(known[name], MPVU_CUT, now_s) for name in self.mpvus if name in known],
        }

    @property
    def meetings(self) -> list[Meeting]:
        """Every meeting, with what is known of it inside its K-AS alone."""
        return list(self._meetings.values())

    def resolve(self, handle: str) -> Rendezvous:
        """Return what a handle stands for; ``UnknownHandle`` when this topology does not offer it."""
        return self._meeting(handle).rendezvous

    def explain(self, handle: str, now_s: float) -> dict[str, dict[str, Any]]:
        """Return what an option rests on: ``{"h11.samples": {"value": 9, "age_s": 0.4}, ...}``; ``UnknownHandle``."""
        basis = self._meeting(handle).basis
        return {
            key: {"value": held.value, "age_s": round(max(0.0, now_s - held.t_s), 3)} for key, held in basis.items()
        }

    def rename(self, handle: str, other: str) -> None:
        """Offer a meeting under another handle; ``UnknownHandle``."""
        meeting = self._meeting(handle)
        renamed = msgspec.structs.replace(meeting, option=msgspec.structs.replace(meeting.option, handle=other))
        kept = [renamed if m is meeting else m for m in self._meetings.values()]
        self._meetings = {m.option.handle: m for m in kept}
        self.options = [msgspec.structs.replace(o, handle=other) if o.handle == handle else o for o in self.options]

    @property
    def graph(self) -> nx.Graph:
        """The topology to draw, a networkx graph: nodes with role, K-AS and attributes, edges with rate and delay."""
        if self._graph is None:
            self._graph = _draw(self._domain, self._members)
        return self._graph

    def _meeting(self, handle: str) -> Meeting:
        try:
            return self._meetings[handle]
        except KeyError:
            raise UnknownHandle(f"rendezvous {handle} is not offered (any more); ask for the options anew") from None


class DrrtA:
    """Keep one request's topology true: cut anew only the meetings of which a terminal changed.

    ``recut`` counts the meetings computed, for tests and metrics.  ``without`` names the links that are down.
    """

    def __init__(self, krrm: Krrm, domain: DomainPlan, request: Request, *, salt: bytes) -> None:
        self.recut = 0
        self._krrm = krrm
        self._domain = domain
        self._request = request
        self._salt = salt
        self._kept: dict[tuple[str, str], tuple[tuple[int, int], Meeting | None]] = {}
        self._plan_key: tuple[int, frozenset[str]] = (id(domain), frozenset())

    def refresh(self, now_s: float, domain: DomainPlan | None = None, without: Collection[str] = ()) -> MsDrrt:
        """Return the topology as the map has it now; pass ``domain`` when the declared network itself was replaced."""
        self._domain = domain or self._domain
        plan_key = (id(self._domain), frozenset(without))
        if plan_key != self._plan_key:
            self._kept, self._plan_key = {}, plan_key
        kept: dict[tuple[str, str], tuple[tuple[int, int], Meeting | None]] = {}
        facilities = _facilities(self._krrm, self._domain, self._request)
        movable = {h.name for h in self._domain.hosts if h.data_may_move}
        for data in _data_nodes(self._krrm, self._domain, self._request):
            for facility in _meeting_places(data, facilities, movable):
                key = (data.name, facility.name)
                versions = (data.changed(DATA_CUT), facility.changed(FACILITY_BASIS))
                held = self._kept.get(key)
                kept[key] = (
                    held if held is not None and held[0] == versions else (versions, self._cut(data, facility, without))
                )
        self._kept = kept
        meetings = [meeting for _, meeting in kept.values() if meeting is not None]
        return self._topology(meetings, now_s)

    def _cut(self, data: Node, facility: Node, without: Collection[str]) -> Meeting | None:
        self.recut += 1
        return _meeting(self._domain, self._request, data, facility, self._salt, without)

    def _topology(self, meetings: list[Meeting], now_s: float) -> MsDrrt:
        # a heartbeat renews ages without changing values, so the basis is read again from the map
        current = [msgspec.structs.replace(m, basis=_basis_now(self._krrm, m.basis)) for m in meetings]
        mpvus = _of_role(self._krrm, self._domain, self._request, "mpvu")
        involved = {name for m in meetings for name in (m.rendezvous.data_node, m.rendezvous.facility)}
        members = [self._krrm.node(name) for name in sorted(involved)] + mpvus
        return MsDrrt(self._domain, current, mpvus, members, now_s)


def ms_drrt(
    krrm: Krrm, domain_plan: DomainPlan, request: Request, now_s: float, *, salt: bytes, without: Collection[str] = ()
) -> MsDrrt:
    """Cut the topology of one request from the map (DRRT-O). ``salt``: the DCC's secret, 16 random bytes or more."""
    return DrrtA(krrm, domain_plan, request, salt=salt).refresh(now_s, without=without)


def handle_of(salt: bytes, task: str, data_node: str, facility: str) -> str:
    """Return the opaque name of a meeting: 16 hexadecimal digits, not to be guessed without the salt."""
    parts = msgspec.msgpack.encode((task, data_node, facility))
    return hashlib.blake2b(parts, key=salt[:64], digest_size=8).hexdigest()


def place_of(salt: bytes, facility: str) -> str:
    """Return the opaque name of a meeting place, the same for everything that meets there."""
    return hashlib.blake2b(facility.encode(), key=salt[:64], digest_size=8, person=b"place").hexdigest()


def usable(node: Node, trust_floor: float) -> bool:
    """Tell whether a terminal may be chosen: reachable (unless it said otherwise) and trusted enough."""
    return bool(node.get("reachable", True)) and node.get("trust", UNKNOWN_SHARE) >= trust_floor


def _of_role(krrm: Krrm, domain: DomainPlan, request: Request, role: str) -> list[Node]:
    return [n for n in krrm.nodes(role) if n.kas in domain.kas and usable(n, request.trust_floor)]


def _data_nodes(krrm: Krrm, domain: DomainPlan, request: Request) -> list[Node]:
    return [n for n in _of_role(krrm, domain, request, "data") if _wanted(n, request)[0] > 0]


def _facilities(krrm: Krrm, domain: DomainPlan, request: Request) -> dict[int, list[Node]]:
    by_kas: dict[int, list[Node]] = {}
    for node in _of_role(krrm, domain, request, "compute"):
        by_kas.setdefault(node.kas, []).append(node)
    return by_kas


def _meeting_places(data: Node, facilities: Mapping[int, list[Node]], movable: Collection[str]) -> Iterator[Node]:
    yield data
    if data.get("data_may_move", data.name in movable):
        yield from facilities.get(data.kas, [])


def _wanted(data: Node, request: Request) -> tuple[int, Mix]:
    """Return how many samples of the request's groups a node holds, and their mix (sums to 1)."""
    shares: Mix = data.get("group_shares", {})
    mine = {
        g: share for g, share in sorted(shares.items()) if share > 0 and (not request.groups or g in request.groups)
    }
    total = sum(mine.values())
    samples = round(data.get("samples", 0) * min(1.0, total))
    return (samples, {g: share / total for g, share in mine.items()}) if samples else (0, {})


def _meeting(
    domain: DomainPlan, request: Request, data: Node, facility: Node, salt: bytes, without: Collection[str]
) -> Meeting | None:
    """Cut one meeting; ``None`` when it cannot take place (no compute there, or no way)."""
    speed = facility.get("compute_samples_per_s", 0.0)
    move_data = data.name != facility.name
    try:
        way_in = _way_in(domain, facility, without)
        way_over = host_route(domain, data.name, facility.name, without) if move_data else None
    except NoPath:
        return None
    if speed <= 0:
        return None
    samples, mix = _wanted(data, request)
    held = data.get("samples", 0)
    move_bytes = held * data.get("sample_bytes", DEFAULT_SAMPLE_BYTES) if move_data else 0
    option = Option(
        kas=data.kas,
        handle=handle_of(salt, request.task, data.name, facility.name),
        mix=mix,
        samples=samples,
        epoch_s=held / speed * (1 + facility.get("queue", 0)),  # those ahead in the queue are taken to be like us
        reach_s=way_in.transfer_s(request.model_bytes),
        move_s=way_over.transfer_s(move_bytes) if way_over else 0.0,
        move_bytes=move_bytes,
        quality=data.get("quality", UNKNOWN_SHARE),
        trust=min(data.get("trust", UNKNOWN_SHARE), facility.get("trust", UNKNOWN_SHARE)),
        available_s=min(data.get("available_s", math.inf), facility.get("available_s", math.inf)),
        place=place_of(salt, facility.name),
    )
    rendezvous = Rendezvous(data_node=data.name, facility=facility.name, move_data=move_data)
    return Meeting(
        option=option, rendezvous=rendezvous, basis=_basis(data, DATA_BASIS) | _basis(facility, FACILITY_BASIS)
    )


def _way_in(domain: DomainPlan, facility: Node, without: Collection[str]) -> Route:
    """Return the route from the K-AS's border gateway (nearest, where it has several) to a facility."""
    gateways = [s.name for s in domain.switches if s.gateway and s.kas == facility.kas]
    gateways = gateways or [h.switch for h in domain.hosts if h.name == facility.name]
    routes = []
    for gateway in gateways:
        try:
            # asked for from the facility, so that one shortest-path tree per gateway serves every facility
            routes.append(host_route(domain, facility.name, gateway, without))
        except NoPath:
            continue
    if not routes:
        raise NoPath(f"no path from the border of K-AS {facility.kas} to {facility.name}")
    return min(routes, key=lambda r: (r.transfer_s(1e6), r.places))


def _basis(node: Node, attributes: Collection[str]) -> dict[str, Attribute]:
    return {f"{node.name}.{a}": node.attributes[a] for a in attributes if a in node.attributes}


def _basis_now(krrm: Krrm, basis: Mapping[str, Attribute]) -> dict[str, Attribute]:
    now = {}
    for key in basis:
        name, _, attribute = key.rpartition(".")
        now[key] = krrm.node(name).attributes[attribute]
    return now


def _aged(meeting: Meeting, now_s: float) -> Option:
    return msgspec.structs.replace(meeting.option, age_s=round(max(0.0, meeting.age_s(now_s)), 3))


def _told(meeting: Meeting, known: Mapping[str, Node], now_s: float) -> dict[str, Any]:
    """Describe a meeting: type, quality, volume, age, dynamics, reachability, compute, trust (paper, section II)."""
    option, data = meeting.option, known[meeting.rendezvous.data_node]
    samples = data.attributes.get("samples")
    return {
        "handle": option.handle,
        "data_node": meeting.rendezvous.data_node,
        "facility": meeting.rendezvous.facility,
        "move_data": meeting.rendezvous.move_data,
        "mix": {g: round(share, 4) for g, share in option.mix.items()},
        "epsilon": data.get("epsilon"),
        "quality": option.quality,
        "samples": option.samples,
        "volume_bytes": data.get("samples", 0) * data.get("sample_bytes", DEFAULT_SAMPLE_BYTES),
        "data_age_s": data.get("data_age_s"),
        "changes": samples.changes if samples else 0,
        "reachable": bool(data.get("reachable", True)),
        "available_s": None if math.isinf(option.available_s) else option.available_s,
        "epoch_s": round(option.epoch_s, 4),
        "reach_s": round(option.reach_s, 4),
        "move_s": round(option.move_s, 4),
        "trust": option.trust,
        "age_s": round(max(0.0, meeting.age_s(now_s)), 3),
        "ages_s": {key: round(max(0.0, now_s - held.t_s), 3) for key, held in meeting.basis.items()},
    }


def _of_node(node: Node, attributes: Collection[str], now_s: float) -> dict[str, Any]:
    held = {a: node.attributes[a] for a in attributes if a in node.attributes}
    told = {a: v.value for a, v in held.items()}
    return {"node": node.name, **told, "ages_s": {a: round(max(0.0, now_s - v.t_s), 3) for a, v in held.items()}}


def _draw(domain: DomainPlan, members: Collection[Node]) -> nx.Graph:
    """Draw the members of a topology and the switches and links between them."""
    graph = nx.Graph()
    for switch in domain.switches:
        graph.add_node(switch.name, role="gateway" if switch.gateway else "switch", kas=switch.kas)
    for node in members:
        graph.add_node(
            node.name, role=node.role, kas=node.kas, **{a: held.value for a, held in node.attributes.items()}
        )
    for link in domain.links:
        if link.a in graph and link.b in graph:
            graph.add_edge(link.a, link.b, rate_mbps=link.rate_mbps, delay_ms=link.delay_ms)
    return graph
