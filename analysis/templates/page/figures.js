"use strict";
// Figures that Python tells as data (analysis/charts.py): panels of points and lines, each a chart of its own to point at and walk through.

const DASHES = { joined: [1, 0], line: [1, 0], dashed: [6, 4], dotted: [2, 3] };
const withPoints = (line) => line.drawn === "points" || line.drawn === "joined";

/** Title and unit of an axis. */
function axisTitle(axis) {
  return axis.unit ? `${axis.title}, ${axis.unit}` : axis.title;
}

/** A value of an axis in words: what its mark says, or the number with its unit. */
function valueText(axis, value) {
  const mark = axis.marks.find(([at]) => Math.abs(at - value) <= 1e-6 * Math.abs(at));
  if (mark && !axis.unit) return mark[1];  // sizes in bytes read as numbers, marked or not
  const text = Math.abs(value) >= 1000 && Math.abs(value) < 1e9 ? countText(value) : short(value);
  return axis.unit ? `${text}\u00a0${axis.unit}` : text;
}

/** The ends of what several lines show, along x or y, intervals too, as far as the axis goes. */
function reachOf(axis, lines, names) {
  const values = lines.flatMap((line) => names.flatMap((name) => (name === "x" ? line.x.map((x) => x * (1 + line.aside)) : line[name]))).filter((value) => known(value) && (!axis.log || value > 0));
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const room = axis.log ? [least / (most / least) ** 0.04 / 1.02, most * (most / least) ** 0.04 * 1.02] : [least - 0.04 * (most - least), most + 0.04 * (most - least)];
  return [axis.low ?? room[0], axis.high ?? room[1]];
}

/** Ticks of a logarithmic axis: 1, 2, 5 and their like, over many decades powers of ten alone. */
function logTicks([least, most]) {
  const steps = most / least < 1e3 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let power = Math.floor(Math.log10(least)); power <= Math.log10(most); power += 1) {
    ticks.push(...steps.map((step) => Number(`${step}e${power}`)).filter((at) => at >= least && at <= most));
  }
  return ticks;
}

/** An axis for Vega-Lite. */
function scaleOf(axis, ends) {
  const form = ends[1] < 1e4 ? { form: short } : {};
  const made = axisOf(axisTitle(axis), axis.log, { ...form, scale: { domain: ends, padding: 0, ...(axis.log ? {} : { zero: false }) } });
  if (!axis.marks.length) return axis.log ? { ...made, axis: { ...made.axis, values: logTicks(ends) } } : made;
  const texts = JSON.stringify(Object.fromEntries(axis.marks));
  return { ...made, axis: { ...made.axis, values: axis.marks.map(([at]) => at), labelExpr: `(${texts})[datum.value]` } };
}

/** The points of a panel, name by name from left to right, with what they tell; ``law`` and the like are what lines say there. */
function pointsOf(chart, row, panel) {
  const found = panel.lines.filter(withPoints).flatMap((line) => line.x.map((x, i) => ({
    x: x * (1 + line.aside), at: x, y: line.y[i], low: line.low[i] ?? null, high: line.high[i] ?? null,
    hollow: Boolean(line.hollow[i]), series: line.name, line: line.name, drawn: line.drawn,
  })));
  const order = chart.names.map((one) => one.name);
  return found.filter((point) => known(point.y)).sort((a, b) => order.indexOf(a.series) - order.indexOf(b.series) || a.x - b.x)
    .map((point, id) => ({ ...point, id, told: () => pointTold(chart, row, panel, point) }));
}

/** A point in words. */
function pointTold(chart, row, panel, point) {
  const form = (value) => valueText({ ...row.y, marks: [] }, value);
  const beside = panel.lines.filter((line) => !withPoints(line) && line.means && line.name === point.series && line.x.includes(point.at));
  return [
    ["", `${point.series}: ${intervalText({ value: point.y, low: point.low, high: point.high }, form)}`],
    [chart.x.title, valueText(chart.x, point.at)],
    ...beside.map((line) => [line.means, form(line.y[line.x.indexOf(point.at)])]),
    ...(point.hollow && chart.hollow ? [["", chart.hollow]] : []),
  ];
}

/** A panel for Vega-Lite. */
function panelSpec(chart, row, panel, points) {
  const every = chart.rows.flatMap((one) => one.panels.flatMap((other) => other.lines));
  const x = { field: "x", ...scaleOf(chart.x, reachOf(chart.x, every, ["x"])) };
  const y = { field: "y", ...scaleOf(row.y, reachOf(row.y, row.panels.flatMap((one) => one.lines), ["y", "low", "high"])) };
  const { color, shape } = looks(chart.names);
  const values = points.map(({ told, ...point }) => ({ ...point, name: told().map(([name, text]) => (name ? `${name}: ${text}` : text)).join("; ") }));
  const hue = { condition: { test: "datum.hollow", value: "var(--paper)" }, ...color };
  return {
    height: innerWidth < 600 ? 240 : 280, params: [{ name: "lit", value: -1 }], data: { name: "cells", values },
    layer: [
      ...panel.lines.filter((line) => line.drawn !== "points").map((line) => strokeOf(line, x, y, color)),
      ...(values.some((point) => known(point.low)) ? [{ transform: [{ filter: "datum.low != null" }], mark: { type: "rule", aria: false, clip: true, strokeWidth: 1.5 }, encoding: { x, y: { ...y, field: "low" }, y2: { field: "high" }, color } }] : []),
      { mark: { type: "point", filled: true, clip: true, opacity: 1, strokeWidth: 1.6 }, encoding: { x, y, shape, fill: hue, stroke: { condition: { test: "datum.id === lit", value: "var(--ink)" }, ...color }, size: lit(200, 55), description: { field: "name" } } },
    ],
  };
}

/** A line without points; nobody's is grey. */
function strokeOf(line, x, y, color) {
  const values = line.x.map((at, i) => ({ x: at * (1 + line.aside), y: line.y[i], series: line.name })).filter((one) => known(one.y));
  const mark = { type: "line", clip: true, aria: false, strokeWidth: 1.5, strokeDash: DASHES[line.drawn] };
  return { data: { values }, mark, encoding: { x, y, color: line.name ? color : { value: "var(--muted)" } } };
}

/** What colours, and ways of drawing, stand for. */
function keyOf(chart) {
  const names = chart.names.map((one) => make("span", { class: "check" }, signOf(one), make("span", { class: "name" }, one.name)));
  const means = new Map(chart.rows.flatMap((row) => row.panels.flatMap((panel) => panel.lines)).filter((line) => line.means).map((line) => [line.drawn, line.means]));
  const sample = (drawn) => (drawn === "points" ? make("span", { class: "sign", "aria-hidden": "true" }, "●") : make("span", { class: `stroke ${drawn}`, "aria-hidden": "true" }));
  const ways = [...means].map(([drawn, text]) => make("span", { class: "check" }, sample(drawn), text));
  const hollow = chart.hollow ? [make("span", { class: "check" }, make("span", { class: "sign", "aria-hidden": "true" }, "○"), chart.hollow)] : [];
  return make("div", { class: "key" }, ...names, ...ways, ...hollow);
}

/** A panel in a sentence. */
function panelTold(row, panel, points) {
  const form = (value) => valueText({ ...row.y, marks: [] }, value);
  const each = [...new Set(points.map((point) => point.series))].map((name) => {
    const own = points.filter((point) => point.series === name).map((point) => point.y);
    return `${name} ${form(Math.min(...own))} to ${form(Math.max(...own))} over ${own.length} ${own.length === 1 ? "point" : "points"}`;
  });
  return `${panel.title ? `${panel.title}, ` : ""}${axisTitle(row.y)}: ${each.join("; ") || "no points"}.`;
}

/** Every point of a figure as a table. */
function figureTable(chart, title) {
  const several = chart.rows.length > 1;
  const rows = chart.rows.flatMap((row) => row.panels.flatMap((panel) => pointsOf(chart, row, panel).map((point) => [
    panel.title || point.series, ...(several ? [axisTitle(row.y)] : []), point.series, valueText(chart.x, point.at),
    numberOf(point.y, (value) => valueText({ ...row.y, marks: [] }, value), point.low, point.high),
  ])));
  const columns = ["panel", ...(several ? ["what"] : []), "of", chart.x.title, several ? "value" : axisTitle(chart.rows[0].y)];
  return { caption: title, columns, rows, numbers: [columns.length - 2, columns.length - 1] };
}

/** Places for a figure's panels, with key and table. @returns {(() => Promise<void>)[]} drawings to be done */
function prepareFigure(place, chart) {
  const title = place.closest("figure").querySelector("h3").textContent;
  const queue = [];
  place.before(keyOf(chart));
  for (const row of chart.rows) {
    const side = make("div", { class: "panels" });
    place.append(side);
    for (const panel of row.panels) {
      const points = pointsOf(chart, row, panel);
      const told = panelTold(row, panel, points);
      const room = make("div", { class: "chart", tabindex: "0", role: "application", "aria-label": `Chart: ${title}. ${told} Arrow keys move between points.` });
      room.points = points;
      readable(room, () => undefined);
      side.append(make("div", { class: "panel" }, make("p", { class: "panel-name" }, panel.title), room));
      queue.push(() => drawInto(room, panelSpec(chart, row, panel, points), told));
    }
  }
  const rows = make("div");
  const table = make("details", { class: "points" }, make("summary", {}, "These points as a table"), rows);
  table.addEventListener("toggle", () => { if (table.open) showTable(rows, figureTable(chart, title)); });
  place.after(table);
  return queue;
}

/** Draw all figures that have told their data, one panel after the other, whenever nothing else is to be done. */
async function drawFigures(charts) {
  const places = [...document.querySelectorAll("[data-chart]")].filter((place) => Object.hasOwn(charts, place.dataset.chart));
  const queue = places.flatMap((place) => prepareFigure(place, charts[place.dataset.chart]));
  const idle = window.requestIdleCallback ?? ((next) => setTimeout(next, 1));
  drawings.underway += 1;
  try {
    for (const draw of queue) {
      await new Promise((next) => idle(next, { timeout: 200 }));
      await draw();
    }
  } finally {
    drawings.underway -= 1;
  }
}
