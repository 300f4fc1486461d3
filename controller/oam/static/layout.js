// Where everything goes: K-AS in a grid walked like a snake (so that a ring of them is a ring on the page), gateways turned to the
// middle, terminals to the outside. Units are CSS pixels of the given width, so text keeps its size on a phone.

const MAX_PER_SWITCH = 24;

const byName = (a, b) => a.name.localeCompare(b.name, "en", { numeric: true });

export function layout(switches, terminals, width) {
  const compact = width < 560;
  const unit = compact
    ? { slot: 39, row: 42, pad: 6, gutterX: 14, gutterY: 58, node: 8, title: 20, gap: 40 }
    : { slot: 52, row: 50, pad: 12, gutterX: 64, gutterY: 66, node: 9.5, title: 22, gap: 46 };
  const numbers = [...new Set(switches.map((one) => one.kas))].sort((a, b) => a - b);
  const columns = gridColumns(numbers.length, width, compact);
  const rows = Math.ceil(numbers.length / columns);
  const cellWidth = (width - unit.gutterX * (columns - 1)) / columns;
  const plan = { width, compact, unit, cells: [], nodes: new Map(), hidden: [], height: 0 };
  let top = 0;
  for (let row = 0; row < rows; row++) {
    const inRow = numbers.slice(row * columns, (row + 1) * columns);
    const groups = inRow.map((kas) => groupsOf(kas, switches, terminals, cellWidth, unit));
    const height = Math.max(...groups.map((g) => g.height));
    inRow.forEach((kas, i) => {
      const column = row % 2 ? columns - 1 - i : i;
      const cell = { kas, x: column * (cellWidth + unit.gutterX), y: top, width: cellWidth, height };
      cell.flipped = rows > 1 && row >= rows / 2;
      placeCell(plan, cell, groups[i]);
    });
    top += height + (row < rows - 1 ? unit.gutterY : 0);
  }
  plan.height = top;
  return plan;
}

function gridColumns(count, width, compact) {
  if (count <= 1) return 1;
  const wished = count <= 4 ? 2 : Math.ceil(Math.sqrt(count));
  return Math.max(1, Math.min(wished, Math.floor(width / (compact ? 150 : 250))));
}

/** Terminals of a K-AS by the switch they hang on, and how wide and high that gets. */
function groupsOf(kas, switches, terminals, cellWidth, unit) {
  const mine = switches.filter((one) => one.kas === kas).sort(byName);
  const gateways = mine.filter((one) => one.gateway);
  const access = mine.filter((one) => !one.gateway);
  const of = (name) => terminals.filter((one) => one.switch === name).sort(byName);
  const groups = (access.length ? access : gateways).map((one) => ({ at: one, all: of(one.name) }));
  if (access.length) groups[0].all.push(...gateways.flatMap((one) => of(one.name)));
  for (const group of groups) {
    group.shown = group.all.slice(0, MAX_PER_SWITCH);
    group.rest = group.all.slice(MAX_PER_SWITCH);
  }
  const inner = cellWidth - 2 * unit.pad;
  const total = groups.reduce((sum, group) => sum + Math.max(1, group.shown.length), 0);
  const oneRow = total * unit.slot <= inner; // else each switch gets the same width, and rows as needed
  let rows = 1;
  for (const group of groups) {
    group.width = oneRow ? (inner * Math.max(1, group.shown.length)) / total : inner / groups.length;
    group.perRow = Math.max(1, Math.floor(group.width / unit.slot));
    rows = Math.max(rows, Math.ceil(group.shown.length / group.perRow));
  }
  const separate = access.length > 0 && gateways.length > 0;
  const height = unit.title + unit.pad + rows * unit.row + unit.gap + (separate ? unit.gap : 0) + 4;
  return { groups, gateways: separate ? gateways : [], rows, height };
}

function placeCell(plan, cell, content) {
  const { unit } = plan;
  const up = (y) => (cell.flipped ? cell.y + cell.height - y : cell.y + y);
  plan.cells.push({ ...cell, titleY: up(unit.title - (cell.flipped ? 12 : 5)) });
  const first = unit.title + unit.pad + unit.row / 2 + 2;
  const switchY = unit.title + unit.pad + content.rows * unit.row + unit.gap * 0.55;
  let left = cell.x + unit.pad;
  for (const group of content.groups) {
    const middle = left + group.width / 2;
    plan.nodes.set(group.at.name, { x: middle, y: up(switchY), kind: "switch", flipped: cell.flipped, right: middle >= cell.x + cell.width / 2 });
    group.shown.forEach((terminal, i) => placeTerminal(plan, cell, group, terminal, i, middle, up, first));
    for (const one of group.rest) plan.nodes.set(one.name, { x: middle, y: up(switchY), kind: "hidden" });
    if (group.rest.length) plan.hidden.push({ x: middle, y: up(switchY), count: group.rest.length });
    left += group.width;
  }
  content.gateways.forEach((gateway, i) => {
    const x = cell.x + (cell.width * (i + 1)) / (content.gateways.length + 1);
    plan.nodes.set(gateway.name, { x, y: up(switchY + unit.gap), kind: "gateway", flipped: cell.flipped, right: x > plan.width / 2 });
  });
}

function placeTerminal(plan, cell, group, terminal, i, middle, up, first) {
  const row = Math.floor(i / group.perRow);
  const inRow = Math.min(group.perRow, group.shown.length - row * group.perRow);
  const step = Math.min(group.width / inRow, plan.unit.slot * 1.25);
  const aside = group.perRow === 1 ? (row % 2 ? 0.2 : -0.2) * group.width : 0; // so that no link runs behind a terminal
  const x = middle + ((i % group.perRow) - (inRow - 1) / 2) * step + (group.shown.length > 1 ? aside : 0);
  plan.nodes.set(terminal.name, { x, y: up(first + row * plan.unit.row), kind: "terminal", flipped: cell.flipped });
}
