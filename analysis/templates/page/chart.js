"use strict";
// Vega-Lite does the drawing; here are our theme, and how a chart is read by pointer and by keyboard.

/** Shapes and signs of the markers, in the order of analysis/figures.py; its star and ✕ are triangles here. */
const SHAPES = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "triangle-left", "triangle-right"];
const SIGNS = ["●", "■", "◆", "▲", "▼", "✚", "◀", "▶"];

/** Colours are names of the style sheet, so that light, dark and paper need no drawing anew. */
function theme() {
  const size = 12 * (innerWidth >= 1760 ? 1.3 : 1);  // a projector is read from afar
  return {
    background: null,
    font: "system-ui, sans-serif",
    view: { stroke: null },
    axis: {
      labelColor: "var(--muted)", titleColor: "var(--ink)", gridColor: "var(--line)", domainColor: "var(--muted)",
      tickColor: "var(--muted)", labelFontSize: size, titleFontSize: size + 1, titleFontWeight: 500, gridOpacity: 0.7,
    },
    legend: { labelColor: "var(--ink)", titleColor: "var(--ink)", labelFontSize: size, titleFontSize: size },
  };
}

/** How series look, the same in every chart. @param {{name: string, colour: number, marker: number}[]} series */
function looks(series) {
  const domain = series.map((one) => one.name);
  return {
    color: { field: "series", type: "nominal", legend: null, scale: { domain, range: series.map((one) => `var(--series-${one.colour})`) } },
    shape: { field: "series", type: "nominal", legend: null, scale: { domain, range: series.map((one) => SHAPES[one.marker]) } },
  };
}

/** What the point that is lit has, and the others. */
function lit(then, otherwise) {
  return { condition: { test: "datum.id === lit", value: then }, value: otherwise };
}

/** Points line by line, each from left to right. */
function byLine(a, b) {
  return a.line < b.line ? -1 : a.line > b.line ? 1 : a.x - b.x;
}

/** A key to series: sign in its colour, and name. */
function signOf(one) {
  return make("span", { class: "sign", style: `color: var(--series-${one.colour})`, "aria-hidden": "true" }, SIGNS[one.marker]);
}

/** Ticks of an axis in units that people read, 200 µs rather than 200µ, by the form of its values; close ones differ in a late digit. */
function tick(value, form) {
  return value ? { secondsText, bytesText, percentText, short }[form](value, 6) : "0";
}

/** How an axis asks for them; on a logarithmic one the ticks that Vega leaves without a label stay so. @param {(value: number) => string} form */
function ticksOf(form) {
  return { labelExpr: `datum.label === '' ? '' : tick(datum.value, '${form.name}')` };
}

/** A number axis; its ticks are large counts (10k) where no other form is asked for. */
function axisOf(title, log, extra = {}) {
  return {
    type: "quantitative", title, scale: { ...(log ? { type: "log" } : { zero: true }), nice: false, padding: 8, ...extra.scale },
    axis: { format: "~s", ...(extra.form ? ticksOf(extra.form) : {}), tickCount: innerWidth < 600 ? 4 : 6, labelFlush: false, labelOverlap: true, labelSeparation: 5 },
  };
}

/** Drawings under way; ``started`` once the page has drawn at all. */
const drawings = { underway: 0, started: false };

/** Whether every chart stands. */
function isQuiet() {
  return drawings.started && drawings.underway === 0;
}

/** Draw, and keep the handle on the place; of two drawings begun the later stands. */
async function drawInto(place, specification, description) {
  const turn = (place.turn ?? 0) + 1;
  place.turn = turn;
  const old = place.chart;
  const spec = {
    autosize: { type: "fit", contains: "padding" }, width: Math.max(200, place.clientWidth), description, config: theme(), ...specification,
  };
  const room = make("div", { class: "drawing" });
  drawings.underway += 1;
  place.style.minHeight = `${specification.height}px`;  // nothing below moves when the chart comes
  const chart = await vegaEmbed(room, spec, { actions: false, renderer: "svg", defaultStyle: false, ast: true, tooltip: false, expressionFunctions: { tick } })
    .finally(() => { drawings.underway -= 1; });
  if (place.turn !== turn) {
    chart.finalize();
    return null;
  }
  place.replaceChildren(room);
  if (old) old.finalize();
  place.chart = chart;
  place.drawn = { specification, description, width: place.clientWidth };
  return chart;
}

/** Keep charts as wide as their places. */
function followWidth(places) {
  let waiting = 0;
  const fit = () => places().forEach((place) => {
    if (!place.chart || Math.abs(place.clientWidth - place.drawn.width) < 2) return;
    place.drawn.width = place.clientWidth;
    place.chart.view.width(Math.max(200, place.clientWidth)).runAsync();
  });
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(fit, 100);
  });
}

/** Where a point stands within its chart, in pixels. */
function pixelOf(view, point) {
  const [left, top] = view.origin();
  const pad = view.padding();
  return [left + pad.left + view.scale("x")(point.x), top + pad.top + view.scale("y")(point.y)];
}

/** The point nearest to a place, if one is near enough to be meant. */
function nearest(view, points, x, y, reach) {
  let best = null;
  let least = reach ** 2;
  for (const point of points) {
    const [px, py] = pixelOf(view, point);
    const away = (px - x) ** 2 + (py - y) ** 2;
    if (away <= least) [best, least] = [point, away];
  }
  return best;
}

/** The point nearest across, at any height. */
function nearestAcross(view, points, x) {
  const away = (point) => Math.abs(pixelOf(view, point)[0] - x);
  return points.reduce((best, point) => (!best || away(point) < away(best) ? point : best), null);
}

/**
 * Make a chart readable by pointer and by keyboard: hovering and arrow keys light a point, a click and Enter pick it.
 * @param {HTMLElement} place  holds ``place.chart`` and ``place.points`` ({id, x, y, series, told, line}) of the latest drawing,
 *   and ``place.byX`` where only the place across counts
 * @param {(id: number) => void} pick
 */
function readable(place, pick) {
  const tip = byId("tip");
  let at = null;
  const light = (point, quiet) => {
    at = point;
    if (place.chart) place.chart.view.signal("lit", point ? point.id : -1).runAsync();
    tip.hidden = !point;
    if (!point) return;
    tip.replaceChildren(...point.told().map(([name, text], i) => make(i ? "div" : "strong", {}, name && i ? `${name}: ${text}` : text)));
    const [x, y] = pixelOf(place.chart.view, point);
    const box = place.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(innerWidth - tip.offsetWidth - 8, box.left + x + 14))}px`;
    const below = box.top + y + 14;
    tip.style.top = `${below + tip.offsetHeight > innerHeight ? Math.max(4, box.top + y - tip.offsetHeight - 14) : below}px`;
    if (!quiet) say(point.told().map(([name, text]) => (name ? `${name}: ${text}` : text)).join("; "));
  };
  const under = (event, reach) => {
    const box = place.getBoundingClientRect();
    if (!place.chart) return null;
    if (place.byX) return nearestAcross(place.chart.view, place.points, event.clientX - box.left);
    return nearest(place.chart.view, place.points, event.clientX - box.left, event.clientY - box.top, reach);
  };
  place.addEventListener("pointermove", (event) => {
    const found = under(event, 24);
    if (found !== at) light(found, true);
  });
  place.addEventListener("pointerleave", () => light(null));
  place.addEventListener("blur", () => light(null));
  place.addEventListener("pointerup", (event) => {
    const found = under(event, 32);
    if (found) pick(found.id);
  });
  place.addEventListener("keydown", (event) => {
    const moved = step(place.points, at, event.key);
    if (moved) light(moved);
    else if (event.key === "Enter" && at) pick(at.id);
    else if (event.key === "Escape") light(null);
    else return;
    event.preventDefault();
  });
  place.light = (id) => light(place.points.find((point) => point.id === id) ?? null, true);
}

/** The point that an arrow key leads to: along a line, or to the next line. */
function step(points, at, key) {
  if (!points || !points.length || !/^(Arrow|Home|End)/.test(key)) return null;
  if (!at || !points.includes(at)) return points[0];
  const line = points.filter((point) => point.line === at.line);
  const place = line.indexOf(at);
  if (key === "ArrowRight") return line[Math.min(place + 1, line.length - 1)];
  if (key === "ArrowLeft") return line[Math.max(place - 1, 0)];
  if (key === "Home") return line[0];
  if (key === "End") return line[line.length - 1];
  const lines = [...new Set(points.map((point) => point.line))];
  const other = lines[(lines.indexOf(at.line) + (key === "ArrowDown" ? 1 : lines.length - 1)) % lines.length];
  const near = points.filter((point) => point.line === other);
  return near.reduce((a, b) => (Math.abs(Math.log(b.x / at.x)) < Math.abs(Math.log(a.x / at.x)) ? b : a));
}
