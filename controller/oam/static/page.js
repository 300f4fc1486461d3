// The page: one live stream in, six views out.

import { AskedView } from "./asked.js";
import { byId, h, keyed, setText } from "./dom.js";
import { JobView } from "./job.js";
import { EventsView, HostsView } from "./lists.js";
import { NetworkView } from "./network.js";
import { Store } from "./store.js";
import { Stream } from "./stream.js";
import { REFUSALS, seconds } from "./words.js";

const store = new Store();
const network = new NetworkView(store);
const job = new JobView(store);
const hosts = new HostsView(store);
const events = new EventsView(store);
const asked = new AskedView(store);
const drawAsked = () => asked.render();
const drawNetwork = () => network.render();
const drawJob = () => job.render();
const drawHosts = () => hosts.render();
const drawEvents = () => events.render();
const views = {
  run: [figures],
  kas: [figures, drawNetwork],
  switches: [drawNetwork],
  links: [drawNetwork],
  terminals: [drawNetwork, drawHosts, drawJob, drawAsked, figures],
  jobs: [drawJob, drawNetwork, drawHosts],
  objects: [drawNetwork, drawHosts],
  notices: [drawEvents, figures],
  queries: [figures, drawJob],
  classes: [drawAsked],
  load: [drawAsked, figures],
  placed: [drawAsked],
  outs: [drawAsked],
  events: [drawEvents],
};
const due = new Set();
let scheduled = false;

/** Draw what shows these sections, once for all changes of this moment. */
function draw(sections) {
  for (const section of sections) for (const view of views[section] ?? []) due.add(view);
  if (scheduled) return;
  scheduled = true;
  setTimeout(() => {
    scheduled = false;
    const now = [...due];
    due.clear();
    for (const view of now) view();
  }, 0);
}

function figures() {
  const run = store.sections.run ?? {};
  const terminals = store.all("terminals");
  const kas = store.all("kas");
  const notices = store.all("notices").reduce((sum, one) => sum + (REFUSALS.includes(one.kind) ? 0 : one.count), 0);
  const single = store.all("queries");
  const load = store.get("load", "now")?.ever;
  const count = single.length + (load?.asked ?? 0);
  const answered = single.filter((one) => one.state === "answered").length + (load?.answered ?? 0);
  setText(byId("network-name"), run.network?.name ?? "");
  const rows = [
    ["Phase", run.phase ? `${run.phase.phase}${run.phase.state === "end" ? ", done" : ""}` : "–"],
    ["Run time", run.counts ? seconds(run.counts.last_unix_s - run.counts.first_unix_s) : "–"],
    ["Control centres", `${kas.filter((one) => one.ready).length} of ${kas.length}`],
    ["Hosts ready", `${terminals.filter((one) => one.ready).length} of ${terminals.length}`],
    ["Packet-ins", `${kas.reduce((sum, one) => sum + one.packet_ins, 0)}`],
    ["Queries", count ? `${answered} of ${count} answered` : "none"],
    ["Warnings", `${notices}`],
  ];
  keyed(byId("figures"), rows.map(([name, value]) => ({ key: name, stamp: value, make: () => h("div", { class: name === "Warnings" && notices ? "warn" : null }, h("dt", null, name), h("dd", null, value)) })));
}

function status(name, lostMs) {
  byId("connection").dataset.state = name;
  const said = { live: "live", connecting: "connecting", lost: `stream lost ${Math.round(lostMs / 1000)} s ago, trying again` };
  setText(byId("connection-text"), said[name]);
  document.body.classList.toggle("stale", name === "lost");
}

new Stream(
  "/events",
  {
    state: (picture) => {
      store.replace(picture);
      draw(Object.keys(views));
    },
    patch: (changes) => {
      store.patch(changes);
      draw(Object.keys(changes));
    },
    event: (event) => store.event(event) && draw(["events"]),
  },
  status,
);
figures();
