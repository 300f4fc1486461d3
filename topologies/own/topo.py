"""A network of one's own in Mininet's idiom: subclass ``Topo``, say in ``build`` what there is.

    class Mine(Topo):
        def build(self):
            left = self.addSwitch("s1", kas=1, gateway=True)
            right = self.addSwitch("s2", kas=2, gateway=True)
            self.addLink(left, right, bw=50, delay="5ms", loss=0.1, max_queue_size=200)
            self.addLink(self.addHost("h1", role="data"), left)

    topos, controllers = for_mn(mine=Mine)

The same class serves ``mn --custom mine.py --topo mine --controller dcc``, ``daitn run healthcare --topo mine.py:Mine``
and Python (``Mine().plan``). A switch that has a link to another K-AS is a gateway, said or not; several gateways and
parallel links are welcome.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

from topologies import venv  # noqa: F401  (first: what only the project's .venv has becomes importable)
from topologies.build import Builder, Rates, Terminal, check_reach
from topologies.custom import DccController, PlanTopo, cleanup, leave, plan_topo
from topologies.errors import PlanError, TopologyError
from topologies.own.files import make_own
from topologies.own.profiles import profile
from topologies.plan import NetworkPlan, Role

_DELAY = re.compile(r"([0-9.]+)\s*(us|ms|s)?\Z")
_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, None: 1.0}
LINK_WORDS = ("bw", "delay", "loss", "max_queue_size", "profile")


class Topo:
    """Declare with ``addSwitch``, ``addHost``, ``addLink`` in ``build``; ``plan`` is what came of it.

    ``PlanError`` names what is wrong; ``mn`` shows it as one line. Arguments go to ``build``, as Mininet's do.
    """

    rates = Rates()

    def __init__(self, *args: Any, **params: Any) -> None:
        self._declared = Builder(self.rates)
        self._waiting: dict[str, Terminal] = {}
        self.build(*args, **params)
        self._check_placed()
        self.plan: NetworkPlan = self._declared.plan(type(self).__name__.lower())
        check_reach(self.plan)

    def build(self, *args: Any, **params: Any) -> None:
        """Say what there is; a subclass's own."""
        raise PlanError(f"topology {type(self).__name__} has no build method that says what there is")

    def addSwitch(self, name: str, kas: int = 1, gateway: bool = False, **opts: Any) -> str:
        """Declare a switch of a K-AS; return its name."""
        _no_more(f"switch {name}", opts)
        return self._declared.add_switch(kas, name, gateway=gateway)

    def addHost(
        self, name: str, role: Role = "host", cpu_share: float = 1.0, data_may_move: bool = False, **opts: Any
    ) -> str:
        """Declare a terminal, ``cpu_share`` in cores; the switch of its one link says which K-AS it is in."""
        if role not in get_args(Role):
            raise PlanError(f"terminal {name}: role {role!r} is none of {', '.join(get_args(Role))}")
        _no_more(f"terminal {name}", opts)
        self._waiting[name] = Terminal(name, role, cpu_share=cpu_share, data_may_move=data_may_move)
        return name

    def addLink(self, a: str, b: str, **opts: Any) -> None:
        """Declare a link: ``bw`` (Mbit/s), ``delay`` (``"5ms"``, one way), ``loss`` (percent), ``max_queue_size``
        (packets), or a ``profile`` by name (``topologies.own.profiles``) under them.
        """
        _no_more(f"link {a}-{b}", {k: v for k, v in opts.items() if k not in LINK_WORDS})
        a, b = (b, a) if b in self._waiting else (a, b)
        kind = profile(opts["profile"]) if "profile" in opts else None
        usual_ms, usual_loss = (kind.delay_ms, kind.loss_percent) if kind else (0.0, 0.0)
        rate = opts.get("bw", kind.rate_mbps if kind else None)
        delay_ms = _delay_ms(opts["delay"], f"link {a}-{b}") if "delay" in opts else usual_ms
        loss, queue = float(opts.get("loss", usual_loss)), int(opts.get("max_queue_size") or 0)
        if a in self._waiting:
            terminal = replace(self._waiting.pop(a), rate_mbps=rate, delay_ms=delay_ms)
            self._declared.add_terminal_at(b, terminal, loss_percent=loss, queue_packets=queue)
        else:
            self._declared.add_link(a, b, float(rate or self.rates.lan_mbps), delay_ms, loss, queue)

    def _check_placed(self) -> None:
        if self._waiting:
            name = min(self._waiting)
            raise PlanError(f"terminal {name} has no link to a switch: addLink({name!r}, ...)")


def _no_more(what: str, opts: dict[str, Any]) -> None:
    if opts:
        raise PlanError(f"{what}: option {min(opts)!r} is not understood here")


def _delay_ms(value: Any, where: str) -> float:
    """Return milliseconds of ``"5ms"``, ``"100us"``, ``"1s"`` or a number of milliseconds."""
    found = _DELAY.match(str(value))
    if found is None:
        raise PlanError(f"{where}: delay {value!r} is not like 5ms, 100us or 1s")
    return float(found[1]) * _MS[found[2]]


def for_mn(**kinds: type[Topo]) -> tuple[dict[str, Callable[..., PlanTopo]], dict[str, type[DccController]]]:
    """Return ``topos`` and ``controllers`` of a file for ``mn --custom``: networks by name, and ``dcc`` for each."""
    made: list[NetworkPlan] = []

    def maker(kind: type[Topo]) -> Callable[..., PlanTopo]:
        def make(*args: Any, **params: Any) -> PlanTopo:
            try:
                made[:] = [kind(*args, **params).plan]
            except TopologyError as error:
                leave(error)
            except TypeError as error:  # arguments that its build does not take
                leave(PlanError(f"topology {kind.__name__}: {error}"))
            return plan_topo(made[0])()

        return make

    class Dcc(DccController):
        plan = property(lambda self: made[0])

    return {name: maker(kind) for name, kind in kinds.items()}, {"dcc": Dcc}


def load_topo(spec: str) -> NetworkPlan:
    """Return the plan of ``file.py:Class``; ``PlanError`` is one line that says what to mend."""
    return make_own("topology", spec, Topo, lambda kind: kind().plan, PlanError)


__all__ = ["Topo", "cleanup", "for_mn", "load_topo"]
