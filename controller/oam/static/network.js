// The network as a drawing: K-AS, switches, terminals by role and state, links by load, and the objects on their way.

import { byId, s, setText } from "./dom.js";
import { layout } from "./layout.js";
import { Tokens } from "./tokens.js";
import { ROLES, mbps } from "./words.js";

const SHAPES = {
  data: (r) => s("circle", { r }),
  compute: (r) => s("rect", { x: -r * 0.9, y: -r * 0.9, width: r * 1.8, height: r * 1.8, rx: 1.5 }),
  mpvu: (r) => s("path", { d: `M0 ${-r * 1.25}L${r * 1.25} 0L0 ${r * 1.25}L${-r * 1.25} 0Z` }),
  mdfp: (r) => s("path", { d: polygon(6, r * 1.12, 0) }),
  model_owner: (r) => s("path", { d: polygon(5, r * 1.15, -Math.PI / 2) }),
  query_owner: (r) => s("path", { d: polygon(3, r * 1.35, Math.PI / 2) }),
  host: (r) => s("circle", { r: r * 0.8 }),
};

function polygon(corners, r, turn) {
  const corner = (i) => {
    const angle = turn + (2 * Math.PI * i) / corners;
    return `${(r * Math.cos(angle)).toFixed(2)} ${(r * Math.sin(angle)).toFixed(2)}`;
  };
  return `M${Array.from({ length: corners }, (_, i) => corner(i)).join("L")}Z`;
}

export class NetworkView {
  constructor(store) {
    this.store = store;
    this.box = byId("network");
    this.shape = "";
    new ResizeObserver(() => this.resize()).observe(this.box);
    legend(byId("legend"));
  }

  resize() {
    if (this.svg && Math.abs(this.box.clientWidth - this.width) > 1) {
      this.shape = "";
      this.render();
    }
  }

  render() {
    const switches = this.store.all("switches");
    if (!switches.length || this.box.clientWidth < 100) return;
    const terminals = this.store.all("terminals").filter((one) => one.switch);
    const shape = `${this.box.clientWidth}/${switches.length}/${terminals.map((one) => one.name + one.switch).join()}/${this.store.all("links").length}`;
    if (shape !== this.shape) this.draw(switches, terminals, shape);
    this.paint();
  }

  draw(switches, terminals, shape) {
    this.shape = shape;
    this.width = this.box.clientWidth;
    this.plan = layout(switches, terminals, this.width);
    this.nodes = new Map();
    this.links = new Map();
    const { cells, height, compact } = this.plan;
    const layers = ["cells", "links", "routes", "nodes", "labels", "tokens"].map((name) => s("g", { class: name }));
    const [cellLayer, linkLayer, routeLayer, nodeLayer, labelLayer, tokenLayer] = layers;
    for (const cell of cells) cellLayer.append(...this.cell(cell));
    for (const link of this.store.all("links")) this.link(link, linkLayer, labelLayer);
    for (const [name, place] of this.plan.nodes) this.node(name, place, nodeLayer, labelLayer);
    for (const { x, y, count } of this.plan.hidden) labelLayer.append(s("text", { x, y: y - 12, class: "more" }, `${count} more`));
    this.svg = s("svg", { viewBox: `0 0 ${this.width} ${height}`, height, role: "img", "aria-labelledby": "network-says", class: compact ? "compact" : null }, ...layers);
    this.tokens = this.tokens?.moveTo(this.plan, tokenLayer, routeLayer) ?? new Tokens(this.store, this.plan, tokenLayer, routeLayer);
    this.box.replaceChildren(this.svg);
  }

  cell(cell) {
    const { x, y, width, height, kas } = cell;
    return [
      s("rect", { x: x + 0.5, y: y + 0.5, width: width - 1, height: height - 1, rx: 6, class: "cell" }),
      s("text", { x: x + 10, y: cell.titleY, class: "cell-title" }, `K-AS ${kas}`),
      s("text", { x: x + width - 10, y: cell.titleY, class: "cell-note", "data-kas": kas }),
    ];
  }

  link(link, layer, labels) {
    const a = this.plan.nodes.get(link.a);
    const b = this.plan.nodes.get(link.b);
    if (!a || !b || a.kind === "hidden") return;
    const title = s("title");
    const line = s("line", { x1: a.x, y1: a.y, x2: b.x, y2: b.y, class: `link ${link.wan ? "wan" : link.access ? "access" : "lan"}` }, title);
    layer.append(line);
    const drawn = { line, title };
    if (link.wan) {
      const [rate, delay] = wanLabels(a, b);
      drawn.rate = s("text", rate);
      drawn.delay = s("text", delay, `${link.delay_ms ?? 0} ms`);
      labels.append(drawn.rate, drawn.delay);
    }
    this.links.set(link.name, drawn);
  }

  node(name, place, layer, labels) {
    if (place.kind === "hidden") return;
    if (place.kind !== "terminal") return this.switch(name, place, layer, labels);
    const terminal = this.store.get("terminals", name);
    const r = this.plan.unit.node;
    const title = s("title");
    const group = s("g", { transform: `translate(${place.x} ${place.y})`, class: "terminal", "data-name": name, "data-role": terminal.role });
    group.append((SHAPES[terminal.role] ?? SHAPES.host)(r), title);
    layer.append(group);
    const outside = place.flipped ? r + 15 : -r - 7;
    labels.append(s("text", { x: place.x, y: place.y + outside, class: "name" }, name));
    const stops = s("text", { x: place.x + r + 3, y: place.y + 3.5, class: "stop-numbers" });
    labels.append(stops);
    this.nodes.set(name, { group, title, stops });
  }

  switch(name, place, layer, labels) {
    const gateway = place.kind === "gateway";
    const [w, h] = gateway ? [26, 15] : [20, 11];
    layer.append(s("rect", { x: place.x - w / 2, y: place.y - h / 2, width: w, height: h, rx: 3, class: place.kind }));
    if (gateway) {
      const aside = place.right ? "right" : "left";
      labels.append(s("text", { x: place.x + (place.right ? 18 : -18), y: place.y + (place.flipped ? -8 : 15), class: `switch-name ${aside}` }, name));
    } else {
      const x = place.x + (place.right ? 1 : -1) * (w / 2 + 4);
      labels.append(s("text", { x, y: place.y + 3.5, class: `switch-name ${place.right ? "right" : "left"}` }, this.plan.compact ? name.slice(-2) : name));
    }
  }

  paint() {
    this.paintTerminals();
    for (const link of this.store.all("links")) this.paintLink(link);
    for (const kas of this.store.all("kas")) {
      const note = this.svg.querySelector(`[data-kas="${kas.kas}"]`);
      if (!note) continue;
      setText(note, kas.ready ? (kas.kind ?? "").split(" (")[0] : "control centre not ready");
      note.classList.toggle("fine", kas.ready);
    }
    this.tokens.sync();
    setText(byId("network-says"), this.says());
  }

  paintTerminals() {
    const stops = new Map();
    for (const job of this.store.all("jobs")) {
      for (const stop of job.stops) if (stop.arrived_unix_s && stop.action !== "home") (stops.get(stop.node) ?? stops.set(stop.node, []).get(stop.node)).push(stop.visit + 1);
    }
    for (const [name, { group, title, stops: label }] of this.nodes) {
      const terminal = this.store.get("terminals", name);
      if (!terminal) continue;
      group.setAttribute("data-state", terminal.ready || terminal.state === "gone" ? terminal.state : "waiting");
      group.classList.toggle("serves", terminal.models.length > 0);
      setText(title, `${name}: ${ROLES[terminal.role] ?? terminal.role}, ${terminal.state}${terminal.models.length ? `, serves ${terminal.models.join(", ")}` : ""}`);
      const visits = stops.get(name) ?? [];
      setText(label, visits.length > 3 ? `${visits.length}×` : visits.join("·"));
    }
  }

  paintLink(link) {
    const drawn = this.links.get(link.name);
    if (!drawn) return;
    const load = link.load ?? 0;
    drawn.line.style.strokeWidth = load > 0.01 ? `${(1.5 + 3.5 * load).toFixed(1)}px` : "";
    drawn.line.classList.toggle("loaded", load > 0.01);
    drawn.line.classList.toggle("out", link.ok === false);
    const measured = link.measured_mbps ? `, measured ${mbps(link.measured_mbps)} and ${link.measured_delay_ms?.toFixed(1) ?? "–"} ms` : "";
    setText(drawn.title, `${link.name}: ${link.rate_mbps ?? "–"} Mbit/s, ${link.delay_ms ?? 0} ms${measured}; now ${mbps(link.mbps ?? 0)}`);
    if (drawn.rate) {
      setText(drawn.rate, load > 0.01 ? mbps(link.mbps) : `${link.rate_mbps ?? "–"} Mbit/s`);
      drawn.rate.classList.toggle("loaded", load > 0.01);
    }
  }

  says() {
    const models = this.store.all("objects").filter((one) => one.kind === "model");
    const model = models.filter((one) => one.job).at(-1) ?? models.at(-1);
    if (!model) return `${this.store.all("terminals").length} hosts in ${this.plan.cells.length} K-AS`;
    if (model.moving) return `Model under way: ${model.from_node || "?"} to ${model.to_node || "the next K-AS"}`;
    const state = this.store.get("terminals", model.node)?.state;
    return `Model at ${model.node}${state && state !== "idle" ? `, ${state}` : ""}`;
  }
}

/** Where the rate and the delay of a WAN link stand: above and below a level line, to the right of a steep one. */
function wanLabels(a, b) {
  const x = (a.x + b.x) / 2;
  const y = (a.y + b.y) / 2;
  const rise = Math.abs(a.y - b.y);
  if (rise < 20) return [{ x, y: y - 6, class: "wan-label" }, { x, y: y + 14, class: "wan-label" }];
  if (Math.abs(a.x - b.x) < 20) return [{ x: x + 7, y: y - 2, class: "wan-label aside" }, { x: x + 7, y: y + 11, class: "wan-label aside" }];
  const aside = x + ((b.x - a.x) * (b.y - a.y) > 0 ? 32 : -32); // above the line, on the side from which it falls away
  return [{ x: aside, y: y - 15, class: "wan-label" }, { x: aside, y: y - 2, class: "wan-label" }];
}

function legend(list) {
  const item = (picture, words) => {
    const li = document.createElement("li");
    li.append(s("svg", { viewBox: "-10 -10 20 20", width: 16, height: 16, "aria-hidden": "true" }, picture), words);
    return li;
  };
  const roles = Object.entries(ROLES).filter(([role]) => role !== "host");
  list.append(...roles.map(([role, words]) => item(s("g", { class: "terminal", "data-state": "idle" }, SHAPES[role](7)), words)));
  list.append(item(s("g", { class: "token model" }, s("circle", { r: 6, class: "body" })), "model"), item(s("g", { class: "token data" }, s("rect", { x: -4, y: -4, width: 8, height: 8, class: "body" })), "data"));
}
