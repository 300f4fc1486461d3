// Queries: how many a second and how fast (loads), where each class goes and why, models that are out.

import { byId, h, keyed, s, setText } from "./dom.js";
import { strip } from "./placed.js";
import { percent, wanted } from "./words.js";

const SECONDS = 60;
const HEIGHT = 84;
const TOP = 18;
const FLOOR = HEIGHT - 14;
const STEPS = 16; // buckets to a factor of ten
const MIN_BARS = 16;
const MAX_BARS = 64;
const MAX_CLASSES = 40;

export class AskedView {
  constructor(store) {
    this.store = store;
    new ResizeObserver(() => this.charts()).observe(byId("asked"));
  }

  render() {
    const classes = this.store.all("classes").sort((a, b) => a.kas - b.kas || a.task.localeCompare(b.task) || a.label - b.label);
    const out = this.store.all("terminals").filter((one) => one.out);
    this.load = this.store.get("load", "now");
    byId("asked").hidden = !classes.length && !this.load && !out.length && !this.store.all("placed").length;
    setText(byId("asked-says"), this.says());
    byId("models-out").hidden = !out.length;
    keyed(byId("models-out"), out.map((one) => ({ key: one.name, stamp: one.out, make: () => h("li", null, h("b", null, one.name), ` is out, asked by nobody: ${one.out}`) })));
    byId("classes-table").hidden = !classes.length;
    const [nodes, caches] = [this.nodes(), this.caches()];
    keyed(byId("classes"), classes.slice(0, MAX_CLASSES).map((one) => ({ key: `${one.kas}/${one.label}`, stamp: JSON.stringify([one, nodes, one.models.map((model) => caches[model.label])]), make: () => this.row(one, nodes) })));
    this.charts();
  }

  /** The MDFP of each label: the control centres know it only as a place. */
  nodes() {
    return Object.fromEntries(this.store.all("terminals").flatMap((one) => Object.keys(one.labels ?? {}).map((label) => [label, one.name])));
  }

  /** Hits and misses of each cache, by its label. */
  caches() {
    const told = this.store.all("terminals").flatMap((one) => one.attributes?.models ?? []);
    return Object.fromEntries(told.filter((model) => typeof model.hits === "number").map((model) => [model.label, model]));
  }

  says() {
    const load = this.load;
    if (!load) return "";
    const { asked, answered, refused, lost } = load.total;
    const whole = `${answered} of ${asked} answered, ${refused} refused, ${lost} lost`;
    if (load.over) return `load over: ${whole}`;
    const now = this.recent().slice(-4, -1);
    const rate = now.reduce((sum, one) => sum + one.asked, 0) / (now.length || 1);
    const under = Object.values(load.under_way).reduce((sum, one) => sum + one, 0);
    return `${rate.toFixed(rate < 10 ? 1 : 0)} a second by ${load.policy}, ${under} under way; ${whole}`;
  }

  /** The last minute, seconds in which nothing came back included. */
  recent() {
    const known = new Map(this.load.seconds.map((one) => [one.t, one]));
    const end = this.load.seconds.at(-1)?.t ?? 0;
    const begin = Math.max(end - SECONDS + 1, this.load.seconds[0]?.t ?? 0);
    return Array.from({ length: end - begin + 1 }, (_, i) => known.get(begin + i) ?? { t: begin + i, asked: 0, answered: 0, refused: 0, lost: 0 });
  }

  charts() {
    const placed = byId("asked-placed");
    placed.hidden = !this.store.all("placed").length;
    if (placed.clientWidth) placed.replaceChildren(strip(this.store, placed.clientWidth) ?? "");
    byId("asked-charts").hidden = !this.load?.seconds.length;
    if (!this.load?.seconds.length) return;
    const [rate, latency] = [byId("asked-rate"), byId("asked-latency")];
    if (rate.clientWidth) rate.replaceChildren(this.rates(rate.clientWidth));
    if (latency.clientWidth) latency.replaceChildren(this.latencies(latency.clientWidth));
  }

  rates(width) {
    const seconds = this.recent();
    const most = Math.max(1, ...seconds.map((one) => one.asked));
    const step = width / SECONDS;
    const x = (i) => width - (seconds.length - i) * step;
    const y = (count) => FLOOR - (count / most) * (FLOOR - TOP);
    const stairs = (of) => seconds.flatMap((one, i) => [`${x(i)},${y(of(one))}`, `${x(i + 1)},${y(of(one))}`]);
    const failed = (one) => one.refused + one.lost;
    const words = `Queries a second, the last minute; at most ${most}`;
    return s(
      "svg",
      { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img", "aria-label": words },
      s("text", { x: 0, y: 10, class: "small-title" }, words),
      s("polygon", { points: [`${x(0)},${FLOOR}`, ...stairs((one) => one.answered), `${width},${FLOOR}`].join(" "), class: "rate answered" }),
      s("polyline", { points: stairs((one) => one.asked).join(" "), class: "rate asked" }),
      seconds.some(failed) ? s("polyline", { points: stairs(failed).join(" "), class: "rate failed" }) : null,
      s("line", { x1: 0, x2: width, y1: FLOOR, y2: FLOOR, class: "grid" }),
      s("text", { x: width, y: HEIGHT - 2, class: "tick left" }, "now"),
      s("text", { x: 0, y: HEIGHT - 2, class: "tick small-title" }, `${SECONDS} s ago`),
    );
  }

  latencies(width) {
    const bars = this.bars();
    const most = Math.max(1, ...bars.map((bar) => bar.count));
    const step = width / Math.max(MIN_BARS, bars.length);
    const ms = (value) => (typeof value === "number" ? `${value < 10 ? value.toFixed(1) : value.toFixed(0)} ms` : "–");
    const words = `Latency: p50 ${ms(this.load.p50_ms)}, p95 ${ms(this.load.p95_ms)}`;
    const bar = ({ bound, count }, i) => {
      const height = (count / most) * (FLOOR - TOP);
      return s("rect", { x: i * step, y: FLOOR - height, width: Math.max(1, step - 1.5), height, class: "bucket" }, s("title", null, `up to ${ms(bound)}: ${count}`));
    };
    const ends = [s("text", { x: 0, y: HEIGHT - 2, class: "tick small-title" }, ms(bars[0]?.bound)), s("text", { x: Math.max(MIN_BARS / 2, bars.length) * step, y: HEIGHT - 2, class: "tick left" }, `to ${ms(bars.at(-1)?.bound)}`)];
    return s("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img", "aria-label": words }, s("text", { x: 0, y: 10, class: "small-title" }, words), ...bars.map(bar), ...(bars.length ? ends : []));
  }

  /** One bar a bucket, empty ones between them included: the axis is logarithmic. */
  bars() {
    const place = (bound) => Math.round(STEPS * Math.log10(bound));
    const counts = new Map(this.load.histogram.map(([bound, count]) => [place(bound), count]));
    if (!counts.size) return [];
    const last = Math.max(...counts.keys());
    const first = Math.max(Math.min(...counts.keys()), last - MAX_BARS + 1);
    return Array.from({ length: last - first + 1 }, (_, i) => ({ bound: 10 ** ((first + i) / STEPS), count: counts.get(first + i) ?? 0 }));
  }

  row(one, nodes) {
    const total = one.models.reduce((sum, model) => sum + model.weight, 0) || 1;
    const name = (model) => `${nodes[model.label] ?? `model ${Number(model.label).toString(16)}`} ${percent(model.weight / total)}`;
    const line = (model) => h("div", null, h("b", null, name(model)), h("span", { class: "quiet" }, ` ${this.why(model, one.kas)}`));
    const needs = wanted(one.need);
    const goes = one.unserved ? h("td", { class: "bad" }, `nobody: ${one.unserved}`) : h("td", null, ...one.models.map(line));
    return h("tr", null, h("td", { class: "figure" }, `${one.kas}`), h("th", { scope: "row" }, `${one.task}${needs ? `, ${needs}` : ""}`), goes);
  }

  why(model, kas) {
    const words = [model.kas === kas ? "here" : `K-AS ${model.kas}, ${model.path_ms?.toFixed(1) ?? "–"} ms away`];
    if (model.service_ms) words.push(`${model.service_ms.toFixed(1)} ms a query`);
    words.push(`${model.in_flight ?? 0} in flight`);
    if (model.accuracy) words.push(`accuracy ${percent(model.accuracy)}`);
    words.push(...Object.entries(model.metrics ?? {}).map(([name, value]) => `${name} ${Number(value.toPrecision(4))}`));
    if (typeof model.score === "number") words.push(`score ${model.score.toFixed(1)} of 10`);
    const cache = this.caches()[model.label];
    if (cache) words.push(`${percent(cache.hits / Math.max(1, cache.hits + cache.misses))} of ${cache.hits + cache.misses} from memory`);
    if (typeof model.age_s === "number") words.push(`known ${model.age_s.toFixed(1)} s ago`);
    return words.join("; ");
  }
}
