// Accuracy per stop: broad and expert as the MPVUs measured them, against their targets; small marks show what was expected.

import { s } from "./dom.js";
import { measures, percent } from "./words.js";

const HEIGHT = 208;
const MARGIN = { top: 14, right: 64, bottom: 34, left: 34 };
const SERIES = ["broad", "expert"];

export function drawChart(box, job) {
  const width = box.clientWidth;
  if (!job || !width) return box.replaceChildren();
  const stops = job.stops.filter((stop) => stop.action !== "home");
  const last = Math.max(3, ...stops.map((stop) => stop.visit + 1));
  const x = (number) => MARGIN.left + ((number - 0.5) / last) * (width - MARGIN.left - MARGIN.right);
  const y = (share) => MARGIN.top + (1 - share) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const svg = s("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img", "aria-label": inWords(job) });
  svg.append(grid(width, y), axis(stops, last, x));
  const names = { broad: "broad", expert: job.expert_group || "expert" };
  const shown = SERIES.filter((name) => name === "broad" || job.expert_group);
  for (const name of shown) svg.append(target(job, name, width, y), series(stops, name, x, y));
  svg.append(...endLabels(job, stops, shown, names, width, y));
  box.replaceChildren(svg);
}

function grid(width, y) {
  const lines = [0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
    s("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(share), y2: y(share), class: "grid" }),
    s("text", { x: MARGIN.left - 6, y: y(share) + 3.5, class: "tick left" }, `${share * 100}`),
  ]);
  return s("g", null, ...lines, s("text", { x: MARGIN.left - 6, y: 9, class: "tick left" }, "%"));
}

function axis(stops, last, x) {
  const every = Math.ceil(last / 16);
  const roomy = (x(2) - x(1)) / 1 > 30;
  const ticks = [];
  for (let number = 1; number <= last; number += every) ticks.push(s("text", { x: x(number), y: HEIGHT - 19, class: "tick" }, `${number}`));
  if (roomy) {
    for (const stop of stops) {
      const strong = measures(stop);
      ticks.push(s("text", { x: x(stop.visit + 1), y: HEIGHT - 6, class: `tick node${strong ? " strong" : ""}` }, stop.node ?? ""));
    }
  } else ticks.push(s("text", { x: x((last + 1) / 2), y: HEIGHT - 6, class: "tick" }, "stop"));
  return s("g", null, ...ticks);
}

function target(job, name, width, y) {
  const share = job.targets?.[name];
  if (!share) return s("g");
  return s("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(share), y2: y(share), class: `target ${name}` });
}

function series(stops, name, x, y) {
  const measured = stops.filter((stop) => typeof stop[name] === "number");
  const accepted = measured.filter((stop) => stop.accepted !== false);
  const line = accepted.map((stop) => `${x(stop.visit + 1)},${y(stop[name])}`).join(" ");
  const expected = stops.filter((stop) => typeof stop.expected?.[name] === "number");
  return s(
    "g",
    { class: `series ${name}` },
    ...expected.map((stop) => s("line", { x1: x(stop.visit + 1) - 5, x2: x(stop.visit + 1) + 5, y1: y(stop.expected[name]), y2: y(stop.expected[name]), class: "expected" })),
    s("polyline", { points: line, class: "line" }),
    ...measured.map((stop) => mark(name, x(stop.visit + 1), y(stop[name]), stop)),
  );
}

function mark(name, x, y, stop) {
  const kind = `mark${stop.accepted === false ? " refused" : ""}`;
  const title = s("title", null, `stop ${stop.visit + 1} at ${stop.node}: ${name} ${percent(stop[name])}${stop.accepted === false ? ", not accepted" : ""}`);
  return name === "broad" ? s("circle", { cx: x, cy: y, r: 4, class: kind }, title) : s("rect", { x: x - 3.75, y: y - 3.75, width: 7.5, height: 7.5, class: kind }, title);
}

/** Names beside the line ends (or the targets before there is a measurement), pushed apart when they would overlap. */
function endLabels(job, stops, shown, names, width, y) {
  const labels = shown.map((name) => {
    const end = stops.findLast((stop) => typeof stop[name] === "number" && stop.accepted !== false)?.[name];
    return { name, y: y(end ?? job.targets?.[name] ?? 0.5) };
  });
  labels.sort((a, b) => a.y - b.y);
  if (labels.length === 2 && labels[1].y - labels[0].y < 13) {
    const middle = (labels[0].y + labels[1].y) / 2;
    labels[0].y = middle - 6.5;
    labels[1].y = middle + 6.5;
  }
  return labels.map((label) => s("text", { x: width - MARGIN.right + 5, y: label.y + 3.5, class: `end ${label.name}` }, names[label.name].slice(0, 10)));
}

function inWords(job) {
  const measured = job.stops.filter((stop) => typeof stop.broad === "number");
  if (!measured.length) return "Accuracy per stop: not measured yet";
  return `Accuracy per stop: ${measured.map((stop) => `stop ${stop.visit + 1} broad ${percent(stop.broad)}, ${job.expert_group || "expert"} ${percent(stop.expert)}`).join("; ")}`;
}
