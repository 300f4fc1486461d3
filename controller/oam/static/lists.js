// Hosts and events: two lists with a filter each.

import { byId, h, keyed, setText } from "./dom.js";
import { REFUSALS, ROLES, clock, sentence } from "./words.js";

const MAX_HOSTS = 500;
const MAX_EVENTS = 200;

export class HostsView {
  constructor(store) {
    this.store = store;
    this.filter = byId("host-filter");
    this.filter.addEventListener("input", () => this.render());
  }

  render() {
    const wanted = this.filter.value.trim().toLowerCase();
    const stops = this.stopsByNode();
    const all = this.store.all("terminals").sort((a, b) => a.kas - b.kas || a.name.localeCompare(b.name, "en", { numeric: true }));
    const rows = all.map((host) => this.cells(host, stops)).filter((cells) => !wanted || cells.join(" ").toLowerCase().includes(wanted));
    keyed(byId("hosts"), rows.slice(0, MAX_HOSTS).map((cells) => ({ key: cells[0], stamp: cells.join("|"), make: () => this.row(cells) })));
    const empty = byId("hosts-empty");
    empty.hidden = rows.length > 0 && rows.length <= MAX_HOSTS;
    setText(empty, !all.length ? "No host has reported yet." : rows.length ? `${rows.length - MAX_HOSTS} more; filter to see them.` : `No host matches "${this.filter.value}".`);
  }

  stopsByNode() {
    const stops = {};
    for (const job of this.store.all("jobs")) for (const stop of job.stops) if (stop.arrived_unix_s && stop.node) (stops[stop.node] ??= []).push(stop.visit + 1);
    return stops;
  }

  cells(host, stops) {
    const holds = [];
    const at = this.store.all("objects").filter((one) => one.kind === "model" && one.node === host.name);
    if (at.length && !host.models.length) holds.push("the model");
    if (host.models.length) holds.push(`serves ${host.models.join(", ")}`);
    if (host.attributes?.samples) holds.push(`${Math.round(host.attributes.samples)} samples`);
    if (host.attributes?.test_samples) holds.push(`${Math.round(host.attributes.test_samples)} test samples`);
    if (host.attributes?.trust !== undefined) holds.push(`trust ${host.attributes.trust.toFixed(2)}`);
    return [host.name, String(host.kas || ""), ROLES[host.role] ?? host.role, host.state, (stops[host.name] ?? []).join(", "), holds.join("; "), host.address];
  }

  row([name, kas, role, state, visits, holds, address]) {
    return h(
      "tr",
      { "data-state": state },
      h("th", { scope: "row" }, name),
      h("td", { class: "figure" }, kas),
      h("td", null, role),
      h("td", null, h("span", { class: "state" }, state)),
      h("td", { class: "wide figure" }, visits),
      h("td", { class: "wide" }, holds),
      h("td", { class: "wide figure address" }, address),
    );
  }
}

export class EventsView {
  constructor(store) {
    this.store = store;
    this.paused = false;
    this.list = byId("events");
    this.filter = byId("event-filter");
    this.filter.addEventListener("input", () => this.fill());
    byId("pause").addEventListener("click", () => this.toggle());
  }

  toggle() {
    this.paused = !this.paused;
    this.pausedAt = this.store.lastEvent;
    byId("pause").setAttribute("aria-pressed", String(this.paused));
    if (!this.paused) this.fill();
    this.render();
  }

  render() {
    if (!this.paused) this.fill();
    const waiting = this.paused ? this.store.events.filter((event) => event.id > this.pausedAt).length : 0;
    setText(byId("pause"), this.paused ? `Resume${waiting ? ` (${waiting} new)` : ""}` : "Pause");
    this.notices();
  }

  fill() {
    const wanted = this.filter.value.trim().toLowerCase();
    const last = this.paused ? this.pausedAt : Infinity;
    const rows = [];
    for (let i = this.store.events.length - 1; i >= 0 && rows.length < MAX_EVENTS; i--) {
      const event = this.store.events[i];
      if (event.id <= last && (!wanted || `${event.kind} ${event.source} ${sentence(event)}`.toLowerCase().includes(wanted))) rows.push(event);
    }
    keyed(this.list, rows.map((event) => ({ key: String(event.id), stamp: "", make: () => this.row(event) })));
    const empty = byId("events-empty");
    empty.hidden = rows.length > 0;
    setText(empty, wanted && this.store.events.length ? `No event matches "${this.filter.value}".` : "No event yet.");
  }

  row(event) {
    const time = clock(event.t_unix_s);
    return h("li", { class: ["warning", "error"].includes(event.kind) ? event.kind : null }, h("time", null, time), h("span", { class: "source" }, event.source), h("span", { class: "kind" }, event.kind), h("span", { class: "words" }, sentence(event)));
  }

  notices() {
    const list = byId("notices");
    const shown = this.store.all("notices").filter((one) => !REFUSALS.includes(one.kind)).slice(-5).reverse();
    list.hidden = !shown.length;
    keyed(list, shown.map((one) => ({ key: `${one.kind}/${one.source}/${one.text}`, stamp: String(one.count), make: () => h("li", { class: one.kind }, h("b", null, one.kind), ` ${one.source}: ${one.text}${one.count > 1 ? ` (${one.count} times)` : ""}`) })));
  }
}
