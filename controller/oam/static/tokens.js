// The objects that travel: a disc for a model, a small square for data, gliding along the way that was laid for it.
// `data-node` is what the eye sees: a terminal's name once the token is there, "moving" while it is not.

import { s } from "./dom.js";

const LAND_MS = 250; // from the news that it has arrived to the token being there
const REPLAY_MS = 300; // a whole way that came as news only after it was over
const DWELL_MS = 100; // the least time at a stop, so that a short one is seen too; all four keep the page within a second
const SHORT_OF_END = 0.93; // nobody knows when it arrives: the token waits before the last node
const DATA_LINGERS_MS = 1500;
const MAX_MODELS = 16;
const MAX_DATA = 40;
const STILL = matchMedia("(prefers-reduced-motion: reduce)");

export class Tokens {
  constructor(store, plan, layer, routes) {
    this.store = store;
    this.tokens = new Map();
    this.moveTo(plan, layer, routes);
    document.addEventListener("visibilitychange", () => this.finish());
  }

  /** The drawing was made anew: every token goes to the same place in it. */
  moveTo(plan, layer, routes) {
    this.plan = plan;
    this.layer = layer;
    this.routes = routes;
    for (const token of this.tokens.values()) {
      layer.append(token.group);
      routes.append(token.way);
      token.relocate(plan);
    }
    return this;
  }

  sync() {
    const objects = this.store.all("objects");
    const models = objects.filter((one) => one.kind === "model").slice(-MAX_MODELS);
    const data = objects.filter((one) => one.kind === "data" && this.fresh(one)).slice(-MAX_DATA);
    const wanted = new Set();
    for (const object of [...models, ...data]) {
      wanted.add(object.object_id);
      this.token(object).follow(object, this.duration(object));
    }
    for (const [id, token] of this.tokens) if (!wanted.has(id)) this.drop(id, token);
    this.spread();
  }

  fresh(object) {
    const token = this.tokens.get(object.object_id);
    if (object.moving) return true;
    return Boolean(token) && (token.animation !== null || token.pending !== null || performance.now() - token.landed < DATA_LINGERS_MS);
  }

  token(object) {
    let token = this.tokens.get(object.object_id);
    if (!token) {
      token = new Token(object, this.plan, () => this.landed());
      this.tokens.set(object.object_id, token);
      this.layer.append(token.group);
      this.routes.append(token.way);
    }
    return token;
  }

  landed() {
    this.spread();
    setTimeout(() => this.sync(), DATA_LINGERS_MS + 50);
  }

  drop(id, token) {
    token.remove();
    this.tokens.delete(id);
  }

  /** Two models at one terminal stand side by side (data lies on a heap). */
  spread() {
    const at = new Map();
    for (const token of this.tokens.values()) {
      if (token.animation || !token.node || !token.model) continue;
      const before = at.get(token.node) ?? 0;
      at.set(token.node, before + 1);
      token.shift(before * 9);
    }
  }

  finish() {
    if (document.hidden) for (const token of this.tokens.values()) token.finish();
  }

  /** How long the way should take, from its slowest link: only for the eye. */
  duration(object) {
    const way = object.route ?? [];
    let rate = 100;
    let delay = 0;
    for (let i = 1; i < way.length; i++) {
      const link = this.store.get("links", `${way[i - 1]}-${way[i]}`) ?? this.store.get("links", `${way[i]}-${way[i - 1]}`);
      rate = Math.min(rate, link?.rate_mbps ?? rate);
      delay += link?.delay_ms ?? 0;
    }
    const ms = ((object.bytes || 1e5) * 8e-3) / rate + 4 * delay;
    return Math.min(6000, Math.max(400, ms * 1.15));
  }
}

class Token {
  constructor(object, plan, landed) {
    this.plan = plan;
    this.model = object.kind === "model";
    this.onLanded = landed;
    this.node = "";
    this.goal = "";
    this.route = [];
    this.at = null;
    this.animation = null;
    this.then = null;
    this.pending = null;
    this.dwelling = 0;
    this.landed = performance.now();
    const body = this.model
      ? [s("circle", { r: 11, class: "halo" }), s("circle", { r: 6.5, class: "body" }), s("text", { y: 3, class: "letter" }, "M")]
      : [s("rect", { x: -3.5, y: -3.5, width: 7, height: 7, rx: 1, class: "body" })];
    const label = this.model ? `model ${object.label}` : `data ${object.label}`;
    this.group = s("g", { class: `token ${object.kind}`, "data-testid": this.model ? "model" : "data-object", "data-object": object.object_id, "data-node": "" }, s("title", null, label), ...body);
    this.way = s("polyline", { class: `route ${object.kind}` });
  }

  follow(object, ms) {
    const goal = object.moving ? `moving ${object.visit} ${object.route.join(" ")}` : `at ${object.visit} ${object.node}`;
    if (goal === this.goal) return;
    const first = this.goal === "";
    this.goal = goal;
    this.pending = [object, ms];
    if (first && object.moving && this.plan.nodes.has(object.from_node)) this.place(object.from_node, this.plan.nodes.get(object.from_node));
    else if (!this.then && !this.dwelling) this.proceed(first);
  }

  /** Take the latest news; what came while the token was landing has waited, and only the last of it counts. */
  proceed(first) {
    const [object, ms] = this.pending ?? [];
    this.pending = null;
    if (!object) return;
    if (object.moving) this.depart(object, ms);
    else this.arrive(object, first);
  }

  depart(object, ms) {
    this.setNode("moving", "");
    this.show(object.route, true);
    const path = this.path(object.route);
    if (path.length < 2) return;
    this.at ??= path[0];
    this.glide(this.onward(path), SHORT_OF_END, ms, null);
  }

  arrive(object, first) {
    const end = this.plan.nodes.get(object.node);
    if (!end) return this.setNode(object.node, object.node);
    if (first || !this.at) return this.place(object.node, end);
    const path = this.path(object.route);
    const fits = object.route.at(-1) === object.node && path.length > 1;
    if (this.node === object.node) return this.place(object.node, end);
    const late = this.group.dataset.node !== "moving";
    this.show(object.route, true);
    this.setNode("moving", "");
    this.glide(fits ? this.onward(path) : [this.at, end], 1, late ? REPLAY_MS : LAND_MS, () => this.place(object.node, end));
  }

  /** What is left of a path from where the token is: it does not go back to the start. */
  onward(path) {
    if (!this.at) return path;
    let best = { distance: Infinity, index: 0 };
    for (let i = 1; i < path.length; i++) {
      const distance = toSegment(this.at, path[i - 1], path[i]);
      if (distance <= best.distance) best = { distance, index: i };
    }
    return [this.at, ...path.slice(Math.max(1, best.index))];
  }

  path(route) {
    return route.map((name) => this.plan.nodes.get(name)).filter(Boolean);
  }

  show(route, moving) {
    this.route = route;
    this.way.setAttribute("points", this.path(route).map((p) => `${p.x},${p.y}`).join(" "));
    this.way.classList.toggle("moving", moving);
  }

  glide(path, share, ms, then) {
    this.stop();
    if (STILL.matches || document.hidden) {
      this.move(along(path, then ? 1 : share));
      return then?.();
    }
    const begun = performance.now();
    this.then = then;
    const step = (now) => {
      const done = Math.min(1, Math.max(0, now - begun) / ms);
      this.move(along(path, share * (then ? done : 1 - (1 - done) ** 1.6)));
      if (done < 1) this.animation = requestAnimationFrame(step);
      else {
        this.animation = null;
        this.then = null;
        then?.();
      }
    };
    this.animation = requestAnimationFrame(step);
  }

  finish() {
    const then = this.then;
    this.stop();
    then?.();
  }

  stop() {
    cancelAnimationFrame(this.animation);
    this.animation = null;
    this.then = null;
  }

  place(name, point) {
    this.stop();
    this.move(point);
    this.setNode(name, name);
    this.way.classList.remove("moving");
    this.landed = performance.now();
    clearTimeout(this.dwelling);
    this.dwelling = setTimeout(() => {
      this.dwelling = 0;
      this.proceed(false);
    }, DWELL_MS);
    this.onLanded();
  }

  relocate(plan) {
    this.plan = plan;
    const point = plan.nodes.get(this.node);
    this.show(this.route, this.way.classList.contains("moving"));
    if (point) this.move(point);
    else this.at = this.path(this.route)[0] ?? null;
    if (!point && this.goal) this.goal = "again";
  }

  setNode(shown, node) {
    this.node = node;
    this.group.dataset.node = shown;
    this.group.classList.toggle("moving", shown === "moving");
  }

  shift(dx) {
    if (this.at) this.group.setAttribute("transform", `translate(${(this.at.x + dx).toFixed(1)} ${this.at.y.toFixed(1)})`);
  }

  move(point) {
    this.at = { x: point.x, y: point.y };
    this.shift(0);
  }

  remove() {
    this.stop();
    clearTimeout(this.dwelling);
    this.group.remove();
    this.way.remove();
  }
}

function along(path, share) {
  const lengths = path.slice(1).map((p, i) => Math.hypot(p.x - path[i].x, p.y - path[i].y));
  let left = share * lengths.reduce((sum, one) => sum + one, 0);
  for (let i = 0; i < lengths.length; i++) {
    if (left <= lengths[i] && lengths[i] > 0) {
      const t = left / lengths[i];
      return { x: path[i].x + t * (path[i + 1].x - path[i].x), y: path[i].y + t * (path[i + 1].y - path[i].y) };
    }
    left -= lengths[i];
  }
  return path.at(-1);
}

function toSegment(p, a, b) {
  const dx = b.x - a.x;
  const dy = b.y - a.y;
  const t = Math.max(0, Math.min(1, ((p.x - a.x) * dx + (p.y - a.y) * dy) / (dx * dx + dy * dy || 1)));
  return Math.hypot(p.x - a.x - t * dx, p.y - a.y - t * dy);
}
