"""Of which kind each K-AS of a scenario is: the key ``kas``, checked against its network."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

from controller.errors import PluginError
from controller.placement.kinds import NOT_LENT, KasKind, told
from controller.plugins.loading import check_name
from experiments.errors import ScenarioError
from topologies.plan import NetworkPlan

AT_TERMINALS = ("mtrce",)  # engines that the terminals of a distributed K-AS hold
IN_ONE = ("data", "compute")  # roles of the terminals that an abstract terminal may stand for


def check_kinds(kinds: Mapping[int, KasKind], plan: NetworkPlan, where: str, own_engines: Collection[str] = ()) -> None:
    """Check that what is said of K-AS can be; ``ScenarioError`` names the key and the nearest right one.

    ``own_engines``: those of which the network or a job has one of its own.
    """
    for kas, kind in kinds.items():
        if kas not in plan.kas_numbers:
            _no(where, f"kas.{kas}", f"the network has no K-AS {kas}; there are: {_list(plan.kas_numbers)}")
        _check_words(kind, f"{where}: kas.{kas}")
        for engine, lenders in kind.borrows.items():
            _check_engine(engine, f"{where}: kas.{kas}.borrows")
            _check_lenders(kas, engine, lenders, kinds, plan, f"{where}: kas.{kas}.borrows.{engine}")
        _check_members(kas, kind, plan, f"{where}: kas.{kas}.abstract_terminals")


def check_at_terminals(kinds: Mapping[int, KasKind], own_engines: Collection[str], where: str) -> None:
    """Check that no engine of one's own is wanted that terminals hold: they are born with the default ones."""
    for kas, kind in kinds.items():
        for engine in AT_TERMINALS:
            if kind.kind == "distributed" and engine in own_engines:
                told = f"its terminals run the default {engine}; leave your own out, or choose another kind"
                _no(where, f"kas.{kas}", told)


def all_kinds(kinds: Mapping[int, KasKind], plan: NetworkPlan) -> dict[str, str]:
    """Return the kind of every K-AS in words, by its number."""
    return {str(kas): told(kinds.get(kas, KasKind())) for kas in plan.kas_numbers}


def summary(kinds: Mapping[str, str]) -> str:
    """Return the kinds of all K-AS in one line, those that are alike together."""
    alike: dict[str, list[str]] = {}
    for kas, words in kinds.items():
        alike.setdefault(words, []).append(kas)
    return "; ".join(f"K-AS {', '.join(numbers)} {words}" for words, numbers in alike.items())


def _no(where: str, key: str, why: str) -> None:
    raise ScenarioError(f"scenario {where}: {key}: {why}")


def _list(names: Collection[object]) -> str:
    return ", ".join(map(str, names))


def _nearest(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {_list(names)}"


def _check_words(kind: KasKind, where: str) -> None:
    """Check that a kind says what it needs, and nothing that another one is for."""
    if kind.kind == "non_standalone" and not kind.borrows:
        _no(where, "kind", "a non_standalone K-AS borrows an engine; say which, from whom: `borrows: {tfam: [4, 1]}`")
    if kind.kind == "centralised" and kind.borrows:
        _no(where, "borrows", "a centralised K-AS has all engines; say `kind: non_standalone`")
    if kind.kind == "distributed":
        for engine in kind.borrows:
            if engine in AT_TERMINALS:
                _no(where, f"borrows.{engine}", "the terminals of a distributed K-AS have it; leave it out")
    if kind.kind == "hierarchical" and not kind.abstract_terminals:
        _no(where, "kind", "a hierarchical K-AS has abstract terminals: `abstract_terminals: {at31: [h31, h32]}`")
    if kind.kind != "hierarchical" and kind.abstract_terminals:
        _no(where, "abstract_terminals", f"a {kind.kind} K-AS has none; say `kind: hierarchical`")


def _check_engine(engine: str, where: str) -> None:
    try:
        check_name(engine)
    except PluginError as error:
        raise ScenarioError(f"scenario {where}: {error}") from None
    if engine in NOT_LENT:
        _no(where, engine, "it judges while the object waits and is not lent; leave it out")


def _check_lenders(
    kas: int, engine: str, lenders: list[int], kinds: Mapping[int, KasKind], plan: NetworkPlan, where: str
) -> None:
    able = [k for k in plan.kas_numbers if k != kas and _has(engine, kinds.get(k, KasKind()))]
    able_words = f"those that can: {_list(able)}" if able else "no other K-AS has it"
    for lender in lenders:
        if lender == kas:
            raise ScenarioError(f"scenario {where}: K-AS {kas} cannot lend to itself; {able_words}")
        if lender not in plan.kas_numbers:
            raise ScenarioError(f"scenario {where}: the network has no K-AS {lender}; {able_words}")
        if lender not in able:
            lacks = f"borrows its own {engine}" if engine in kinds[lender].borrows else f"has {engine} at its terminals"
            raise ScenarioError(f"scenario {where}: K-AS {lender} {lacks}; {able_words}")
        if lenders.count(lender) > 1:
            raise ScenarioError(f"scenario {where}: K-AS {lender} stands there twice; name each lender once")


def _has(engine: str, kind: KasKind) -> bool:
    """Tell whether the control centre of a K-AS has an engine, to lend it."""
    return engine not in kind.borrows and (kind.kind != "distributed" or engine not in AT_TERMINALS)


def _check_members(kas: int, kind: KasKind, plan: NetworkPlan, where: str) -> None:
    roles = {h.name: h.role for h in plan.hosts if h.kas == kas}
    able = [name for name, role in roles.items() if role in IN_ONE]
    taken = {h.name for h in plan.stations} | {s.name for s in plan.switches}
    seen: dict[str, str] = {}
    for name, members in kind.abstract_terminals.items():
        if name in taken or not (0 < len(name) <= 32 and name.isascii() and name.isalnum()):
            _no(where, name, "it needs a name of its own, up to 32 letters and digits")
        for member in members:
            if member not in able:
                near = _nearest(member, able)
                _no(where, name, f"{member!r} is no data node or compute facility of K-AS {kas}; {near}")
            if member in seen:
                _no(where, name, f"{member!r} is in {seen[member]} already; a terminal is in one at most")
            seen[member] = name
        if not any(roles[member] == "data" for member in members):
            _no(where, name, "none of its terminals is a data node; nothing could be learned there")
