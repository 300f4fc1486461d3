"""The page in a real Chromium, over a scripted run: it follows, fits, keeps to itself, survives."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from selenium.webdriver.common.keys import Keys

from controller.oam.page import PageServer, create_app
from controller.oam.scripted import OWNER, STOPS, Script
from controller.oam.state.run import NetworkState
from packets.events import Event
from tests.browser.chromium import RECORD, Browser, now_ms, shots_folder
from tests.helpers import wait_until

FOLLOWS_WITHIN_MS = 1000.0
PACE = 3.0  # the scripted run is played this many times faster
MODEL = "document.querySelector('[data-testid=model][data-object=\"%s\"]')"
OVERFLOWING = """
const wide = document.documentElement.clientWidth;
const scrolls = (e) => e && (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
return [...document.querySelectorAll('body *')].filter((e) => {
  const box = e.getBoundingClientRect();
  const outside = box.width > 1 && (box.right > wide + 0.5 || box.left < -0.5);
  return outside && !e.closest('.skip') && !scrolls(e.parentElement);
}).map((e) => `${e.tagName} ${e.className.baseVal ?? e.className} ${e.textContent.slice(0, 30)}`);
"""
CONTRAST = """
const parse = (c) => c.match(/[\\d.]+/g).map(Number);
const light = (c) => { const [r, g, b] = c.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const behind = (e) => { for (let p = e; p; p = p.parentElement) { const c = parse(getComputedStyle(p).backgroundColor);
  if (c.length < 4 || c[3] > 0.5) return c.slice(0, 3); } return [255, 255, 255]; };
const low = [];
for (const e of document.querySelectorAll('body *')) {
  if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
  if (!e.getClientRects().length || e.closest('.unseen, .skip, title')) continue;
  const style = getComputedStyle(e), svg = e.namespaceURI.endsWith('svg');
  const ink = parse(svg ? style.fill : style.color).slice(0, 3);
  const token = e.closest('.token');
  const ground = token ? parse(getComputedStyle(token.querySelector('.body')).fill) : behind(e);
  const [a, b] = [light(ink), light(ground.slice(0, 3))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) low.push(`${ratio.toFixed(2)} ${e.className.baseVal ?? e.className} ${e.textContent.slice(0, 20)}`);
}
return low;
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def state() -> NetworkState:
    return NetworkState()


@pytest.fixture
def server(state: NetworkState, browser: Browser) -> Iterator[PageServer]:
    with PageServer(create_app(state, keep_alive_s=0.5), port=0) as server:
        browser.look(1280)
        browser.open(server.url)
        wait_until(lambda: connection(browser) == "live", 30, "the page is live")
        yield server
        browser.driver.get("about:blank")


def connection(browser: Browser) -> str:
    said: str = browser.run("return document.getElementById('connection').dataset.state")
    return said


def text(browser: Browser, element: str) -> str:
    said: str = browser.run("return document.getElementById(arguments[0]).textContent", element)
    return said.replace("\xa0", " ")


def feed(state: NetworkState, events: Iterator[Event] | list[Event]) -> None:
    for said in events:
        state.apply(said)


def model_at(browser: Browser, object_id: int) -> str:
    found: str = browser.run(f"return ({MODEL % object_id})?.dataset.node ?? ''")
    return found


def test_the_model_is_seen_where_it_is_within_a_second(
    browser: Browser, server: PageServer, state: NetworkState, script: Script
) -> None:
    browser.run(RECORD)
    told: list[tuple[str, str, float]] = []
    before, gate = 0.0, threading.Event()
    for said in script.run():
        gate.wait(min(1.5, (said.t_unix_s - before) / PACE) if before else 0)
        before = said.t_unix_s
        state.apply(said)
        if said.kind == "object.arrived" and said.data["object_id"] in (script.object_id, script.deploy_id):
            told.append((str(said.data["object_id"]), said.data["node"], now_ms()))
            at = said.data["object_id"], said.data["node"]  # it goes on once it was seen: a slow browser skips no stop
            wait_until(lambda at=at: model_at(browser, at[0]) == at[1], 10, f"the model at {at[1]}")
    wait_until(lambda: model_at(browser, script.deploy_id) == "mdfp3", 10, "the deployed model at mdfp3")
    placed: list[tuple[str, str, float]] = [tuple(p) for p in browser.run("return window.placed")]
    assert [node for _, node, _ in told] == [*(s[1] for s in STOPS), OWNER, "mdfp3"]
    for object_id, node, at in told:
        late = [t - at for o, n, t in placed if (o, n) == (object_id, node) and t >= at - 20]
        assert late and min(late) <= FOLLOWS_WITHIN_MS, f"{node}: {late[:1] or 'never'} ms after the event"
    seen = [node for o, node, _ in placed if o == str(script.object_id)]
    stays = [node for node, after in zip(seen, [*seen[1:], ""], strict=True) if node != "moving" and node != after]
    assert stays == [OWNER, *(s[1] for s in STOPS), OWNER], "each stop once, in order"
    assert seen.count("moving") >= len(STOPS) + 1
    assert browser.errors() == []


def test_a_token_travels_along_the_way_that_was_laid(
    browser: Browser, server: PageServer, state: NetworkState, script: Script
) -> None:
    feed(state, script.start())
    feed(state, script.admitted())
    moving = list(script.move(script.object_id, 0, OWNER, "h23", "MODEL_SHARD", "train", 4_000_000, 0.5))
    feed(state, moving[:-1])
    wait_until(lambda: model_at(browser, script.object_id) == "moving", 1, "the model under way")
    places = browser.run(
        f"""const token = {MODEL % script.object_id}, got = [];
        return new Promise((done) => {{ const look = () => {{ const m = token.transform.baseVal[0].matrix;
          got.push([m.e, m.f]); got.length < 25 ? requestAnimationFrame(look) : done(got); }}; look(); }})"""
    )
    points = browser.run("return document.querySelector('.route.model').getAttribute('points')")
    way = [tuple(float(v) for v in p.split(",")) for p in points.split()]
    assert len(way) == 6, "owner1 k1s2 k1g k2g k2s1 h23"
    assert len({tuple(p) for p in places}) > 10, "it glides"
    assert all(min(_distance(p, a, b) for a, b in pairwise(way)) < 1.5 for p in places)
    state.apply(moving[-1])
    wait_until(lambda: model_at(browser, script.object_id) == "h23", 1, "the model at h23")


def _distance(p: list[float], a: tuple[float, ...], b: tuple[float, ...]) -> float:
    dx, dy = b[0] - a[0], b[1] - a[1]
    share = max(0.0, min(1.0, ((p[0] - a[0]) * dx + (p[1] - a[1]) * dy) / (dx * dx + dy * dy)))
    return float(((p[0] - a[0] - share * dx) ** 2 + (p[1] - a[1] - share * dy) ** 2) ** 0.5)


def test_who_wishes_less_motion_gets_none(
    browser: Browser, server: PageServer, state: NetworkState, script: Script
) -> None:
    browser.look(1280, still=True)
    feed(state, script.start())
    feed(state, script.admitted())
    feed(state, script.move(script.object_id, 0, OWNER, "h41", "MODEL_SHARD", "train", 9, 0.1))
    wait_until(lambda: model_at(browser, script.object_id) == "h41", 1, "the model at h41")


def test_the_page_tells_the_job_the_hosts_and_the_events(
    browser: Browser, server: PageServer, state: NetworkState, script: Script
) -> None:
    feed(state, script.run())
    wait_until(lambda: "finished" in text(browser, "job-state"), 10, "the job's end")
    job = text(browser, "job")
    assert "84.7 %" in job and "96.8 %" in job and job.count(", met") == 2
    stops = text(browser, "stops")
    assert all(words in stops for *_, words in STOPS) and "(+25.8 points)" in stops
    assert browser.run("return document.querySelectorAll('#chart .mark').length") == 6
    assert browser.run("return document.querySelectorAll('#hosts tr').length") == 22
    assert "atrial fibrillation, as expected" in text(browser, "served")
    assert "fig3 (scripted)" in text(browser, "network-name")
    assert browser.run("return document.querySelectorAll('#events li').length") == 200
    assert browser.run("return document.getElementById('job-state').ariaLive") == "polite"


def test_the_page_tells_where_queries_go_how_many_and_how_fast(
    browser: Browser, server: PageServer, state: NetworkState, script: Script
) -> None:
    assert not browser.run("return document.getElementById('asked').checkVisibility()")
    feed(state, [*script.start(), *script.served(), *script.asked()])
    wait_until(lambda: "a second by qirce" in text(browser, "asked-says"), 5, "the load")
    wait_until(lambda: "mdfp3 100.0" in text(browser, "classes"), 5, "the class")
    assert "power_w 61.5; score 9.1 of 10" in text(browser, "classes")
    assert "no MDFP is in reach" in text(browser, "classes") and "mdfp1 is out" in text(browser, "models-out")
    wait_until(lambda: browser.run("return document.querySelectorAll('.bucket').length") > 3, 5, "the histogram")
    assert browser.run("return document.querySelectorAll('.rate').length") == 3
    assert browser.errors() == []


def test_the_page_shows_where_models_served_and_from_where_they_were_asked(
    browser: Browser, server: PageServer, state: NetworkState, script: Script
) -> None:
    feed(state, [*script.start(), *script.served(), *script.placed()])
    count = "return document.querySelectorAll(`#asked-placed ${arguments[0]}`).length"
    drawn = {".serving": 2, ".arrow.copied": 1, ".outside": 1, ".mark.scaled": 1, "path": 3}
    wait_until(lambda: {c: browser.run(count, c) for c in drawn} == drawn, 10, "bars, arrow, mark, rates")
    assert "K-AS 1 · mdfp1" in text(browser, "asked-placed") and "K-AS 3 · mdfp3" in text(browser, "asked-placed")
    assert "copied from mdfp3: answers 14 of 20" in text(browser, "asked-placed")
    bars = browser.run("return [...document.querySelectorAll('.serving')].map((e) => e.getBoundingClientRect().width)")
    assert bars[0] > bars[1] > 20, "the copy served a part of the time"
    assert browser.errors() == []


def test_an_empty_network_says_what_to_do(browser: Browser, server: PageServer) -> None:
    assert "daitn up" in text(browser, "network") and "daitn submit" in text(browser, "job")
    assert "No host has reported" in text(browser, "hosts-empty") and "No event yet" in text(browser, "events-empty")
    assert browser.errors() == []


def test_a_rejected_job_shows_every_reason(
    browser: Browser, server: PageServer, state: NetworkState, script: Script
) -> None:
    feed(state, script.start())
    spec = {"task": "table", "broad_accuracy": 0.8, "expert_group": "class1", "expert_accuracy": 0.95}
    for kind, data in (
        ("job.submitted", {"object_id": 0, "owner": OWNER, "spec": spec}),
        (
            "job.assessed",
            {"object_id": 0, "admitted": False, "reasons": ["too few", "too far"], "nearest": {"broad": 0.7}},
        ),
    ):
        state.apply(Event(kind=kind, source="dcc1", t_unix_s=5.0, data=data))
    wait_until(lambda: "rejected" in text(browser, "job-state"), 10, "the verdict")
    said = text(browser, "job")
    assert "too few" in said and "too far" in said and "broad 70.0 %" in said
    assert browser.run("return document.getElementById('chart').hidden")


def test_nothing_leaves_the_machine_and_nothing_goes_wrong(
    browser: Browser, server: PageServer, state: NetworkState, script: Script
) -> None:
    feed(state, script.run())
    wait_until(lambda: "finished" in text(browser, "job-state"), 10, "the job's end")
    for width in (1280, 390):
        browser.look(width)
    asked = [urlsplit(url) for url in browser.requests()]
    assert len(asked) > 5
    assert {u.netloc for u in asked if u.scheme not in ("data", "about")} == {f"127.0.0.1:{server.port}"}
    assert browser.errors() == []


def test_text_off_the_wire_stays_text(
    browser: Browser, server: PageServer, state: NetworkState, script: Script
) -> None:
    feed(state, script.start())
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    state.apply(Event(kind="warning", source=evil, t_unix_s=1.0, data={"text": evil}))
    state.apply(Event(kind=evil, source="x", t_unix_s=1.0, data={evil: evil}))
    state.apply(Event(kind="agent.ready", source="x", t_unix_s=1.0, data={"name": evil, "role": evil, "kas": 1}))
    wait_until(lambda: evil in text(browser, "events"), 10, "the warning")
    assert browser.driver.title == "DA-ITN testbed"
    assert browser.run("return document.querySelectorAll('img').length") == 0
    assert browser.errors() == []


@pytest.mark.parametrize("width", [1920, 1280, 768, 390, 320])
def test_everything_fits(
    browser: Browser, server: PageServer, state: NetworkState, script: Script, width: int, tmp_path: Path
) -> None:
    feed(state, [*script.run(), *script.asked(), *script.placed()])
    state.apply(Event(kind="warning", source="dcc3", t_unix_s=9.0, data={"text": "wan link k1g-k3g " + "x" * 90}))
    wait_until(lambda: "finished" in text(browser, "job-state"), 10, "the job's end")
    for dark in (False, True):
        browser.look(width, 844 if width < 500 else 900, dark=dark)
        wait_until(lambda: browser.run(OVERFLOWING) == [], 10, "nothing wider than the window")
        assert browser.run("return document.documentElement.scrollWidth") <= width
        browser.shot(shots_folder(tmp_path) / f"page-{width}-{'dark' if dark else 'light'}.png")


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_has_contrast(
    browser: Browser, server: PageServer, state: NetworkState, script: Script, dark: bool
) -> None:
    browser.look(1280, dark=dark)
    events = list(script.run())
    arrivals = [n for n, e in enumerate(events) if e.kind == "agent.state" and e.data["state"] == "training"]
    feed(state, [*events[: arrivals[1] + 1], *script.asked(), *script.placed()])
    state.apply(Event(kind="warning", source="dcc3", t_unix_s=9.0, data={"text": "careful"}))
    state.apply(Event(kind="agent.gone", source="main", t_unix_s=9.0, data={"name": "h33"}))
    wait_until(lambda: "training" in text(browser, "job-state"), 10, "a visit")
    assert browser.run(CONTRAST) == []


def test_no_two_hosts_lie_on_each_other(browser: Browser, server: PageServer, state: NetworkState) -> None:
    feed(state, Script(7).start())
    wait_until(lambda: "7 of 7" in text(browser, "figures"), 10, "seven control centres")
    for width in (1280, 390):
        browser.look(width)
        boxes = wait_until(lambda: browser.run(
            "return [...document.querySelectorAll('.nodes > *')].map((e) => e.getBoundingClientRect())"
            ".map((b) => [b.left, b.top, b.right, b.bottom])"
        ), 2, "a drawing")  # fmt: skip
        assert len(boxes) == 7 * 3 + 7 * 4 + 6
        assert not [(a, b) for n, a in enumerate(boxes) for b in boxes[:n] if _overlap(a, b)]


def _overlap(a: list[float], b: list[float]) -> bool:
    return a[0] < b[2] - 1 and b[0] < a[2] - 1 and a[1] < b[3] - 1 and b[1] < a[3] - 1


def test_hosts_and_events_are_filtered_and_paused_from_the_keyboard(
    browser: Browser, server: PageServer, state: NetworkState, script: Script
) -> None:
    feed(state, script.start())
    wait_until(lambda: browser.run("return document.querySelectorAll('#hosts tr').length") == 22, 10, "the hosts")
    order = tab_order(browser)
    assert order.index("host-filter") < order.index("event-filter") < order.index("pause") < order.index("events")
    browser.run("document.getElementById('host-filter').focus()")
    browser.driver.switch_to.active_element.send_keys("mpvu")
    assert browser.run("return [...document.querySelectorAll('#hosts th')].map(e => e.textContent)") == [
        "mpvu2",
        "mpvu4",
    ]
    browser.run("document.getElementById('pause').focus()")
    browser.driver.switch_to.active_element.send_keys(" ")
    state.apply(Event(kind="warning", source="main", t_unix_s=1.0, data={"text": "while paused"}))
    wait_until(lambda: "1 new" in text(browser, "pause"), 10, "a count of what waits")
    assert "while paused" not in text(browser, "events")
    browser.driver.switch_to.active_element.send_keys(" ")
    assert "while paused" in text(browser, "events")


def tab_order(browser: Browser) -> list[str]:
    found: list[str] = []
    browser.run("document.body.focus()")
    for _ in range(20):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        found.append(browser.run("return document.activeElement.id || document.activeElement.className"))
    return found


def test_a_lost_stream_is_told_and_found_again(
    browser: Browser, server: PageServer, state: NetworkState, script: Script
) -> None:
    feed(state, script.start())
    wait_until(lambda: "22 of 22" in text(browser, "figures"), 10, "the hosts")
    server.close()
    wait_until(lambda: connection(browser) == "lost", 10, "the loss is told")
    assert re.search(r"stream lost \d+ s ago", text(browser, "connection-text"))
    assert "22 of 22" in text(browser, "figures"), "the last picture stays"
    state.apply(Event(kind="agent.gone", source="main", t_unix_s=9.0, data={"name": "h11"}))
    with PageServer(create_app(state), port=server.port):
        wait_until(lambda: connection(browser) == "live", 30, "live again")
        wait_until(lambda: "21 of 22" in text(browser, "figures"), 10, "what was missed")
