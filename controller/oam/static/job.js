// One job: how it stands, its accuracies against their targets, and every stop with the reason for it.

import { drawChart } from "./chart.js";
import { byId, h, keyed, setText } from "./dom.js";
import { ACTIONS, mbps, percent, points, requirement, seconds, size } from "./words.js";

const ENDED = ["finished", "failed", "stopped", "rejected"];

export class JobView {
  constructor(store) {
    this.store = store;
    this.chosen = "";
    byId("job-select").addEventListener("change", (change) => {
      this.chosen = change.target.value;
      this.render();
    });
    new ResizeObserver(() => this.job && drawChart(byId("chart"), this.job)).observe(byId("chart"));
  }

  render() {
    this.served();
    const jobs = this.store.all("jobs");
    this.job = jobs.find((job) => job.object_id === this.chosen) ?? jobs.findLast((job) => !ENDED.includes(job.state)) ?? jobs.at(-1);
    this.choice(jobs);
    if (!this.job) return;
    setText(byId("job-state"), this.state(this.job));
    byId("job").replaceChildren(...this.summary(this.job));
    byId("chart").hidden = this.job.state === "rejected";
    drawChart(byId("chart"), this.job);
    this.caption(this.job);
    this.stops(this.job);
  }

  caption(job) {
    const drawn = job.state !== "rejected";
    byId("chart-caption").hidden = !drawn;
  }

  /** Who serves which model, and the last queries with their answers. */
  served() {
    const hosts = this.store.all("terminals").filter((one) => one.models.length);
    const queries = this.store.all("queries").slice(-4).reverse();
    byId("served").hidden = byId("served-title").hidden = !hosts.length && !queries.length;
    const rows = [...hosts.map((host) => this.serving(host)), ...queries.map((query) => this.query(query))];
    keyed(byId("served"), rows.map(([key, words, wrong]) => ({ key, stamp: words, make: () => h("li", { class: wrong ? "wrong" : null }, words) })));
  }

  serving(host) {
    const known = Object.entries(host.deployed?.[host.models[0]] ?? {});
    const accuracy = known.filter(([name]) => name !== "expert" || known.length < 3).slice(0, 3);
    const figures = accuracy.map(([name, share]) => `${name} ${percent(share)}`).join(", ");
    return [`host ${host.name}`, `${host.name} serves ${host.models.join(", ")}${figures ? ` (${figures})` : ""}`, false];
  }

  query(query) {
    const asked = `${query.node} asked ${query.task || "a model"}`;
    if (query.state === "refused") return [`query ${query.id}`, `${asked}; refused: ${query.reason}`, true];
    if (query.state !== "answered") return [`query ${query.id}`, `${asked}; no answer yet`, false];
    const verdict = query.expected ? (query.right ? ", as expected" : `, expected ${query.expected}`) : "";
    const words = `${asked}: ${query.answer}${verdict}; from ${query.answered_by} in ${query.latency_ms?.toFixed(1) ?? "–"} ms`;
    return [`query ${query.id}`, words, query.right === false];
  }

  choice(jobs) {
    byId("job-choice").hidden = jobs.length < 2;
    const options = jobs.map((job) => ({
      key: job.object_id,
      stamp: `${job.task} ${job.state}`,
      make: () => h("option", { value: job.object_id }, `${job.task || "job"}, ${job.label || job.owner} (${job.state})`),
    }));
    keyed(byId("job-select"), options);
    if (this.job) byId("job-select").value = this.job.object_id;
  }

  state(job) {
    const who = `${job.task || "Job"} for ${job.owner || "its owner"}`;
    if (job.state === "rejected") return `${who}: rejected`;
    if (["finished", "failed", "stopped"].includes(job.state)) return `${who}: ${job.state}${job.reason ? `, ${job.reason}` : ""}${job.returned ? "; the model is home" : ""}`;
    const stop = job.stops.at(-1);
    if (!stop) return `${who}: ${job.state}`;
    const trained = job.stops.filter((one) => one.action === "train").length;
    const limit = job.spec?.max_visits ? `, visit ${trained} of at most ${job.spec.max_visits}` : "";
    return `${who}: stop ${stop.visit + 1}${limit}, ${this.doing(stop)}`;
  }

  doing(stop) {
    const where = stop.node ? `${stop.node} (K-AS ${stop.kas})` : `K-AS ${stop.kas}`;
    if (!stop.arrived_unix_s) return `on the way to ${where}`;
    return `${{ train: "training", verify: "being verified", confirm: "being confirmed", home: "home" }[stop.action] ?? "visiting"} at ${where}`;
  }

  summary(job) {
    if (job.state === "rejected") return this.rejection(job);
    const rows = [["broad", "Broad accuracy"]];
    if (job.expert_group) rows.push(["expert", `${job.expert_group[0].toUpperCase()}${job.expert_group.slice(1)} accuracy`]);
    return [h("dl", { class: "accuracies" }, ...rows.map(([name, words]) => this.accuracy(job, name, words)))];
  }

  accuracy(job, name, words) {
    const wanted = job.targets?.[name];
    const met = typeof job[name] === "number" && wanted && job[name] >= wanted;
    const verdict = typeof job[name] !== "number" ? "not measured yet" : !wanted ? "" : met ? "met" : `${((wanted - job[name]) * 100).toFixed(1)} points short`;
    return h(
      "div",
      { class: `accuracy ${name}` },
      h("dt", null, words),
      h("dd", { class: "value" }, percent(job[name])),
      h("dd", { class: `verdict${met ? " met" : ""}` }, `target ${wanted ? percent(wanted) : "–"}${verdict ? `, ${verdict}` : ""}`),
    );
  }

  rejection(job) {
    const nearest = Object.entries(job.nearest ?? {}).map(requirement);
    return [
      h("ul", { class: "reasons" }, ...job.reasons.map((reason) => h("li", null, reason))),
      nearest.length ? h("p", { class: "quiet" }, `Nearest that would be admitted: ${nearest.join(", ")}.`) : null,
    ].filter(Boolean);
  }

  stops(job) {
    byId("stops").hidden = byId("stops-title").hidden = !job.stops.length;
    const rows = job.stops.map((stop) => ({ key: `${job.object_id}/${stop.visit}`, stamp: JSON.stringify([stop, job.next]), make: () => this.stop(job, stop) }));
    keyed(byId("stops"), rows.reverse());
  }

  stop(job, stop) {
    const now = stop.visit === job.next && !ENDED.includes(job.state);
    const where = stop.node || (stop.kas ? `K-AS ${stop.kas}` : "…");
    return h(
      "li",
      { class: now ? "now" : null, "data-visit": stop.visit },
      h("span", { class: "number" }, `${stop.visit + 1}`),
      h("div", null, h("p", { class: "head" }, h("b", null, `${ACTIONS[stop.action] ?? stop.action ?? "Stop"} at ${where}`), this.aside(stop), now ? h("span", { class: "tag" }, stop.arrived_unix_s ? "now" : "next") : null), stop.reason ? h("p", { class: "reason" }, stop.reason) : null, this.detail("Expected", this.expected(job, stop)), this.detail("Measured", this.measured(job, stop)), this.detail("Moved", this.moved(stop)), this.detail("Trained", this.trained(stop))),
    );
  }

  aside(stop) {
    const lent = stop.data_node && stop.data_node !== stop.node ? `, data of ${stop.data_node}` : "";
    return h("span", { class: "quiet" }, `${stop.node && stop.kas ? `K-AS ${stop.kas}` : ""}${lent}`);
  }

  detail(name, words) {
    return words ? h("p", { class: "detail" }, h("span", { class: "quiet" }, name), words) : null;
  }

  expected(job, stop) {
    return Object.entries(stop.expected ?? {})
      .map(([name, share]) => {
        const gain = stop.gain?.[name];
        return `${name === "expert" ? job.expert_group || "expert" : name} ${percent(share)}${typeof gain === "number" ? ` (${points(gain)} points)` : ""}`;
      })
      .join(", ");
  }

  measured(job, stop) {
    if (typeof stop.broad !== "number") return "";
    const expert = typeof stop.expert === "number" ? `, ${job.expert_group || "expert"} ${percent(stop.expert)}` : "";
    const verdict = stop.accepted === false ? `; not accepted${stop.verdict ? `: ${stop.verdict}` : ""}` : "";
    return `broad ${percent(stop.broad)}${expert}${stop.samples ? ` on ${stop.samples} samples` : ""}${verdict}`;
  }

  moved(stop) {
    if (!stop.bytes) return "";
    const again = stop.retransmissions ? `, ${stop.retransmissions} sent again` : "";
    return `${size(stop.bytes)} in ${seconds(stop.seconds)}${stop.goodput_mbps ? `, ${mbps(stop.goodput_mbps)}` : ""}${again}`;
  }

  trained(stop) {
    if (typeof stop.loss !== "number") return "";
    return `${stop.samples} samples, ${stop.epochs} epochs in ${seconds(stop.train_s)}, loss ${stop.loss.toFixed(3)}`;
  }
}
