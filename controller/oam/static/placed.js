// Where models serve, the last minutes: a row an MDFP, its bars in the colour of its K-AS; beneath, where queries come from.

import { s } from "./dom.js";
import { seconds } from "./words.js";

const SPAN = 180; // seconds
const ROW = 17;
const BAR = 10;
const NAMES = 92;
const RATES = 40;
const TITLE = 18;
const MAX_ROWS = 16;
const COLOURS = 8;

/** The picture, or null where nothing is deployed. */
export function strip(store, width) {
  const placed = store.all("placed");
  const load = store.get("load", "now")?.seconds ?? [];
  if (!placed.length) return null;
  const now = Math.max(...placed.map((one) => one.to_unix_s ?? one.from_unix_s), (load.at(-1)?.t ?? 0) + 1, store.sections.run?.counts?.last_unix_s ?? 0);
  const shown = placed.filter((one) => (one.to_unix_s ?? now) > now - SPAN);
  const rows = rowsOf(store, shown);
  const kas = [...new Set([...rows.map((one) => one.kas), ...load.flatMap((one) => Object.keys(one.by_kas ?? {}).map(Number))])].sort((a, b) => a - b);
  const hue = (number) => `kas-${kas.indexOf(number) % COLOURS}`;
  const x = (t) => NAMES + Math.max(0, 1 - (now - t) / SPAN) * (width - NAMES);
  const y = new Map(rows.map((one, i) => [one.name, TITLE + i * ROW + ROW / 2]));
  const floor = TITLE + rows.length * ROW + RATES + 4;
  const kasOf = (name) => rows.find((one) => one.name === name).kas;
  const bars = shown.filter((one) => y.has(one.node));
  const words = "Where models serve, and who asks, by K-AS";
  return s(
    "svg",
    { viewBox: `0 0 ${width} ${floor + 14}`, height: floor + 14, role: "img", "aria-label": words, "data-testid": "placed" },
    s("text", { x: 0, y: 10, class: "small-title" }, words),
    ...rows.map((one) => s("text", { x: 0, y: y.get(one.name) + 4, class: "tick small-title" }, `K-AS ${one.kas} · ${one.name}`)),
    ...bars.map((one) => bar(one, x, y, now, hue(kasOf(one.node)))),
    ...store.all("outs").flatMap((one) => (y.has(one.node) ? one.spans.filter(([, to]) => (to ?? now) > now - SPAN).map((span) => outside(span, x, y.get(one.node), now)) : [])),
    ...bars.filter((one) => y.has(one.came_from) && one.from_unix_s > now - SPAN).map((one) => arrow(one, x, y)),
    ...bars.filter((one) => one.went === "scaled" || one.went === "gone").map((one) => end(one, x, y)),
    ...rates(load, kas, hue, x, now, floor),
    s("line", { x1: NAMES, x2: width, y1: floor, y2: floor, class: "grid" }),
    s("text", { x: width, y: floor + 12, class: "tick left" }, "now"),
    s("text", { x: NAMES, y: floor + 12, class: "tick small-title" }, `${SPAN / 60} min ago`),
  );
}

/** MDFPs by K-AS; where there are too many, those that serve. */
function rowsOf(store, shown) {
  const serving = new Set(shown.map((one) => one.node));
  const all = store.all("terminals").filter((one) => one.role === "mdfp").sort((a, b) => a.kas - b.kas || a.name.localeCompare(b.name));
  return (all.length > MAX_ROWS ? all.filter((one) => serving.has(one.name)) : all).slice(0, MAX_ROWS);
}

function bar(one, x, y, now, hue) {
  const [from, to] = [x(one.from_unix_s), x(one.to_unix_s ?? now)];
  const came = one.came_from ? `${one.came} from ${one.came_from}: ${one.came_why}` : one.came;
  const went = one.went ? `; ${one.went}${one.went_why ? `: ${one.went_why}` : ""}` : "";
  const words = `${one.task} at ${one.node}, ${seconds((one.to_unix_s ?? now) - one.from_unix_s)}: ${came}${went}`;
  return s("rect", { x: from, y: y.get(one.node) - BAR / 2, width: Math.max(1, to - from), height: BAR, class: `serving ${hue}` }, s("title", null, words));
}

function outside([from, to], x, y, now) {
  const [left, right] = [x(from), x(to ?? now)];
  return s("rect", { x: left, y: y - BAR / 2, width: Math.max(2, right - left), height: BAR, class: "outside" }, s("title", null, "out: asked by nobody"));
}

function arrow(one, x, y) {
  const [at, from, to] = [x(one.from_unix_s), y.get(one.came_from), y.get(one.node)];
  const tip = to + (to > from ? -4 : 4);
  return s("g", { class: `arrow ${one.came}` }, s("line", { x1: at, x2: at, y1: from, y2: tip }), s("polygon", { points: `${at - 3},${tip} ${at + 3},${tip} ${at},${to}` }));
}

function end(one, x, y) {
  const [at, middle] = [x(one.to_unix_s ?? one.from_unix_s), y.get(one.node)];
  return s("polygon", { points: `${at - 4},${middle - 3} ${at + 4},${middle - 3} ${at},${middle + 4}`, class: `mark ${one.went}` });
}

/** Queries a second by K-AS of asker, in layers. */
function rates(load, kas, hue, x, now, floor) {
  const seen = load.filter((one) => one.t >= now - SPAN && one.by_kas);
  const sum = (one) => Object.values(one.by_kas).reduce((total, count) => total + count, 0);
  const most = Math.max(1, ...seen.map(sum));
  const high = (count) => (count / most) * RATES;
  const below = new Map(seen.map((one) => [one.t, 0]));
  return kas.map((number) => {
    const path = seen.map((one) => {
      const [low, count] = [below.get(one.t), one.by_kas[number] ?? 0];
      below.set(one.t, low + count);
      return count ? `M${x(one.t)} ${floor - high(low)}V${floor - high(low + count)}H${x(one.t + 1)}V${floor - high(low)}Z` : "";
    });
    return s("path", { d: path.join(""), class: hue(number) }, s("title", null, `asked from K-AS ${number}`));
  });
}
