// Figures and events in words.

export const ROLES = {
  data: "data node",
  compute: "compute facility",
  mpvu: "MPVU",
  mdfp: "MDFP",
  model_owner: "model owner",
  query_owner: "query owner",
  host: "host",
};

/** Events of what is kept out: counted, no fault of the network. */
export const REFUSALS = ["packet.refused", "frame.dropped"];

export const ACTIONS = { train: "Train", verify: "Verify", confirm: "Confirm", home: "Home", deploy: "Deploy" };

/** Stops at an MPVU: the model is measured there, not trained. */
export const measures = (stop) => stop.action === "verify" || stop.action === "confirm";

const REQUIREMENTS = {
  broad_accuracy: (v) => `broad ${percent(v)}`,
  expert_accuracy: (v) => `expert ${percent(v)}`,
  max_visits: (v) => `${v} visits`,
  least_visits: (v) => `${v} visits`,
  deadline_s: (v) => `within ${v} s`,
  trust_floor: (v) => `trust from ${v}`,
};

/** A requirement in words: its name and value as T-FAM gives them. */
export const requirement = ([name, value]) => REQUIREMENTS[name]?.(value) ?? `${name} ${value <= 1 ? percent(value) : value}`;

/** What a class of queries needs, in words ("" for nothing). */
export function wanted(need) {
  const words = [];
  if (need?.broad_accuracy) words.push(`accuracy from ${percent(need.broad_accuracy)}`);
  if (need?.expert_group) words.push(`${need.expert_group} from ${percent(need.expert_accuracy)}`);
  if (need?.deadline_ms) words.push(`within ${need.deadline_ms} ms`);
  if (need?.local) words.push("local");
  return words.join(", ");
}

export const percent = (share) => (typeof share === "number" ? `${(share * 100).toFixed(1)}\u00a0%` : "–");

export const points = (share) => `${share >= 0 ? "+" : "−"}${Math.abs(share * 100).toFixed(1)}`;

export function size(bytes) {
  if (typeof bytes !== "number") return "–";
  if (bytes < 1000) return `${bytes}\u00a0B`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)}\u00a0kB` : `${(bytes / 1e6).toFixed(2)}\u00a0MB`;
}

export function seconds(s) {
  if (typeof s !== "number") return "–";
  if (s < 1) return `${Math.round(s * 1000)}\u00a0ms`;
  return s < 60 ? `${s.toFixed(1)}\u00a0s` : `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
}

export const clock = (t) => {
  const at = new Date(t * 1000);
  const two = (n) => String(n).padStart(2, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, "0")}`;
};

export const mbps = (rate) => `${rate >= 100 ? rate.toFixed(0) : rate.toFixed(1)}\u00a0Mbit/s`;

/** The class E address that carries a label (the low 28 bits of an object's identity), as a capture shows it. */
function labelAddress(id) {
  const label = BigInt(id) & 0xfffffffn;
  const byte = (shift) => Number((label >> shift) & 0xffn);
  return `${240 + byte(24n)}.${byte(16n)}.${byte(8n)}.${byte(0n)}`;
}

const object = (d) => `object ${labelAddress(d.object_id)}`;
const weights = (given) => (Array.isArray(given) ? given : Object.entries(given ?? {})).map(([place, weight]) => `${place} (${weight})`).join(", ");
const at = (d) => (d.node ? ` at ${d.node}` : "");

const SENTENCES = {
  "run.phase": (d) => (d.state === "end" ? `${d.phase}: done in ${seconds(d.seconds)}` : `${d.phase}: begun`),
  "network.up": (d) => `${d.plan?.name ?? "network"}: ${d.plan?.switches?.length ?? 0} switches, ${d.plan?.hosts?.length ?? 0} hosts, ${d.plan?.links?.length ?? 0} links`,
  "link.calibrated": (d) => `${d.link}: ${d.measured_mbps?.toFixed?.(1) ?? "–"} of ${d.rate_mbps} Mbit/s, ${d.measured_delay_ms?.toFixed?.(1) ?? "–"} of ${d.delay_ms} ms${d.ok === false ? ", out of tolerance" : ""}`,
  "dcc.ready": (d) => `control centre of K-AS ${d.kas} ready`,
  "agent.ready": (d) => `${d.name} (${ROLES[d.role] ?? d.role}, K-AS ${d.kas}) ready`,
  "agent.state": (d) => `${d.name} ${d.state}${d.object_id && d.object_id !== "0" ? `, ${object(d)}` : ""}`,
  "agent.gone": (d) => `${d.name} gone`,
  "job.submitted": (d) => `${d.owner} asks for ${d.spec?.task}: broad ${percent(d.spec?.broad_accuracy)}${d.spec?.expert_group ? `, ${d.spec.expert_group} ${percent(d.spec.expert_accuracy)}` : ""}`,
  "job.assessed": (d) => (d.admitted ? `admitted, ${object(d)}` : `rejected: ${(d.reasons ?? []).join("; ")}`) + (d.by ? `, by K-AS ${d.by.kas}'s T-FAM in ${d.by.ms.toFixed(0)} ms` : ""),
  "engine.borrowed": (d) => `K-AS ${d.kas} has none of its own: ${d.text}`,
  "at.decided": (d) => `${object(d)} meets ${d.facility === d.data_node ? d.facility : `${d.data_node} at ${d.facility}`} in ${d.at}, of ${d.offers} on offer`,
  "holder.decided": (d) => `${object(d)} visit ${d.visit}: ${d.node || "another terminal"} of K-AS ${d.kas} decides, in ${d.took_ms} ms`,
  "proposal.refused": (d) => `${object(d)}: ${d.text}`,
  "offers.refused": (d) => `K-AS ${d.kas}: offers refused: ${d.reason}`,
  "engine.lent": (d) => `K-AS ${d.kas}: ${d.text}`,
  "job.decided": (d) => `stop ${d.visit + 1}: ${d.action} in K-AS ${d.kas}: ${d.reason}`,
  "object.steered": (d) => `${object(d)} by ${(d.switches ?? []).join(" ")}${d.node ? ` to ${d.node}` : ""}${d.purpose ? ` (${String(d.purpose).replace("_", " ")})` : ""}`,
  "object.resteered": (d) => `${object(d)} goes elsewhere: ${d.reason}; ${d.from_node || `K-AS ${d.from_kas}`} → ${d.to_node || `K-AS ${d.to_kas}`} in ${d.resteer_ms} ms`,
  "object.rerouted": (d) => `${object(d)} goes another way: ${d.reason}; ${d.switches?.join(" ") ?? `K-AS ${(d.path ?? []).join(" ")}`} in ${d.reroute_ms} ms`,
  "object.handed_over": (d) => `${object(d)}: ${d.node} handed over ${size(d.bytes)} in ${seconds(d.seconds)}`,
  "job.recovered": (d) => `stop ${d.visit + 1} lost (${d.reason}): goes on from the last state, ${seconds(d.lost_s)} lost`,
  "parcel.kept": (d) => `parcel${at(d)}: ${size(d.bytes)}, SHA-256 ${String(d.sha256).slice(0, 16)}…`,
  "terminal.withdrawn": (d) => `${d.name} is withdrawn${d.reason ? `: ${d.reason}` : ""}`,
  "object.launched": (d) => `${object(d)} from ${d.node}, ${size(d.bytes)}`,
  "object.arrived": (d) => `${object(d)}${at(d)}: ${size(d.bytes)} in ${seconds(d.seconds)}${d.goodput_mbps ? `, ${mbps(d.goodput_mbps)}` : ""}`,
  "object.delivered": (d) => `${object(d)} from ${d.node}: ${d.retransmissions ?? 0} sent again, round trip ${d.rtt_ms?.toFixed?.(1) ?? "–"} ms`,
  "visit.trained": (d) => `stop ${d.visit + 1}${at(d)}: loss ${d.loss?.toFixed?.(3) ?? "–"}, ${d.samples} samples, ${d.epochs} epochs in ${seconds(d.seconds)}`,
  "visit.verified": (d) => `stop ${d.visit + 1}${at(d)}: broad ${percent(d.broad)}, expert ${percent(d.expert)}, ${d.accepted === false ? "not accepted" : "accepted"}`,
  "job.finished": (d) => `${d.state}: broad ${percent(d.broad)}, expert ${percent(d.expert)}, ${d.visits} visits${d.reason ? `; ${d.reason}` : ""}`,
  "object.returned": (d) => `${object(d)} home${at(d)}`,
  "model.deployed": (d) => `${d.task} deployed${at(d)}`,
  "query.sent": (d) => `${d.node} asks ${d.task}`,
  "query.answered": (d) => `${d.answered_by}: ${d.answer}${d.expected ? (d.answer === d.expected ? ", as expected" : `, expected ${d.expected}`) : ""}, ${d.latency_ms?.toFixed?.(1) ?? "–"} ms`,
  "query.classed": (d) => `${d.id} for ${d.task}${wanted(d.need) ? `, ${wanted(d.need)}` : ""}${d.refused ? `: refused, ${d.refused}` : ""}`,
  "query.steered": (d) => `queries of K-AS ${d.kas} for ${d.task}${wanted(d.need) ? ` (${wanted(d.need)})` : ""} go to ${weights(d.weights)}`,
  "query.unserved": (d) => `queries of K-AS ${d.kas} for ${d.task} are not served: ${d.reason}`,
  "model.out": (d) => `${d.node} is out: ${d.reason}`,
  "model.retired": (d) => `${d.node} serves model ${labelAddress(d.label)} no more`,
  "model.moved": (d) => `model ${labelAddress(d.label)} moved to ${d.to}: ${d.reason}`,
  "model.copied": (d) => `model ${labelAddress(d.label)} copied to ${d.to}: ${d.reason}`,
  "model.scaled": (d) => `model ${labelAddress(d.label)} given up: ${d.reason}`,
  "model.remeasured": (d) => `${d.task} measured on ${d.samples} late samples: ${percent(d.broad)}`,
  "model.drifted": (d) => `${d.task} has fallen behind: ${(d.reasons ?? []).join("; ")}`,
  "threshold.learned": (d) => `the cheap model answers from a confidence of ${percent(d.threshold)} on, ${percent(1 - d.sent_on)} of ${d.samples} test samples: ${percent(d.broad)} right, the large one ${percent(d.large)}`,
  "fusion.learned": (d) => `findings and vitals together: ${percent(d.broad)} of ${d.samples} test samples right, findings alone ${percent(d.text)}, vitals alone ${percent(d.vitals)}`,
  "model.recalibrating": (d) => `${object(d)} is trained on${at(d)}: ${d.reason}`,
  "model.redeployed": (d) => `${d.task} deployed anew at ${d.labels?.length ?? 0} places, broad ${percent(d.broad)}`,
  "model.back": (d) => `${d.node} is back`,
  "load.over": (d) => `${d.node} asked ${d.asked}: ${d.answered} answered, ${d.refused} refused, ${d.lost} lost; p50 ${d.p50_ms} ms, p95 ${d.p95_ms} ms`,
  "zygote.ready": () => "PyTorch is loaded, agents can be forked",
  "request.refused": (d) => `${d.node ?? d.name ?? "a request"}: ${d.reason ?? d.text ?? ""}`,
  "object.released": (d) => `${object(d)} waited ${d.waited_ms?.toFixed?.(1) ?? "–"} ms for its way to K-AS ${d.to_kas}`,
  "border.ready": (d) => `border speaker ${d.name} of K-AS ${d.kas} listens`,
  "border.up": (d) => `border session with ${d.gateway} over ${d.link} is up`,
  "border.down": (d) => `border session with ${d.gateway} over ${d.link} ended: ${d.why}`,
  "border.way": (d) => (d.path?.length ? `K-AS ${d.kas} reaches K-AS ${d.to} by ${d.path.join(", ")}` : `K-AS ${d.kas} knows no way to K-AS ${d.to}`),
  "border.refused": (d) => `what ${d.gateway} told is refused: ${d.text}`,
  "host.confirmed": (d) => `${d.name} is at ${d.switch} port ${d.port}`,
  "link.confirmed": (d) => `${d.switch} port ${d.port} leads to ${d.far_switch} port ${d.far_port}`,
  "packet.in": (d) => `no rule at ${d.switch} for ${labelAddress(d.label)}`,
  "packet.refused": (d) => `${d.reason}${d.more > 1 ? ` (${d.more} packets)` : ""}`,
  "frame.dropped": (d) => `${d.switch} dropped ${d.more} frames${d.node ? ` of ${d.node}` : ""}: ${d.text}`,
  "terminal.revoked": (d) => `${d.name} is revoked: ${d.reason}`,
  "terminal.restored": (d) => `${d.name} is let in again`,
  warning: (d) => `${d.text}`,
  error: (d) => `${d.text}`,
};

export function sentence(event) {
  try {
    if (SENTENCES[event.kind]) return SENTENCES[event.kind](event.data);
  } catch {
    // odd data: shown as it is
  }
  return Object.entries(event.data)
    .map(([key, value]) => `${key}=${typeof value === "object" ? JSON.stringify(value) : value}`)
    .join(" ")
    .slice(0, 300);
}
