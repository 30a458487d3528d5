"use strict";
// Explore: which cells, against what, and how.

const AXES = {
  examples: ["n", "examples n", "examples"],
  depth: ["m", "weights and biases m, by depth", "depth (m in proportion)"],
  width: ["width", "width of the hidden layers", "width (m by its square)"],
  activation: ["p", "operations per activation p", "activation cost"],
  joint: ["nm", "n·m, examples times weights and biases", "all moved together"],
  functions: ["p", "operations p of real functions, counted", "real activation functions"],
  all: ["nm", "n·m, examples times weights and biases", "every cell"],
};
const MEASURES = {
  time: ["time", secondsText, "time"],
  memory: ["peak bytes of a step", bytesText, "memory"],
  share: ["share of the matrix-product ceiling", percentText, "share of the ceiling"],
};
/** Why a share may be larger than 1: bench/ceilings.py. */
const ABOVE_CEILING = "Above 100 %: the ceiling is the best rate of one square product (1,024 rows; on an accelerator up to 8,192), timed in the run's own processes; a step whose matrices have another shape or lie in a cache, or that the machine's clock favoured, can beat it.";

/** The axes along which there are cells, for a select. */
function axisChoices(rows) {
  return Object.entries(AXES).filter(([name]) => name === "all" || rows.some((row) => row.axes.includes(name))).map(([name, [, , text]]) => [name, text]);
}

/** What each control asks of a cell. @type {Record<string, (row: any, value: string) => boolean>} */
const ASKS = {
  axis: (row, value) => value === "all" || row.axes.includes(value),
  phase: (row, value) => row.phase === value,
  measure: (row, value) => (value === "memory" ? row.phase === "step" && row.peak_bytes > 0 : value !== "share" || row.share_of_ceiling > 0),
  device: (row, value) => value === "all" || row.device === value,
  dtype: (row, value) => value === "all" || row.dtype === value,
  optimizer: (row, value) => row.optimizer === value,
};

/** Which controls a cell does not fit. */
function misfits(row, chosen, asks) {
  return Object.keys(asks).filter((name) => !asks[name](row, chosen[name]));
}

/** Every control's values that some cell has together with all else that is chosen. @param {Record<string, string[]>} values by control */
function offered(rows, chosen, asks, values) {
  const found = Object.fromEntries(Object.keys(asks).map((name) => [name, new Set()]));
  for (const row of rows) {
    const off = misfits(row, chosen, asks);
    if (off.length > 1) continue;
    for (const name of off.length ? off : Object.keys(asks)) {
      for (const value of values[name]) if (asks[name](row, value)) found[name].add(value);
    }
  }
  return found;
}

/** The changes, as few as can be, by which a choice shows something; those made last are kept if others will do. */
function nearestChanges(rows, chosen, asks, values) {
  const order = Object.keys(chosen);
  const weight = (off) => off.reduce((sum, name) => sum + 1 + order.indexOf(name) / 1000, 0);
  let best = null;
  for (const row of rows) {
    const off = misfits(row, chosen, asks);
    if (!best || weight(off) < weight(best.off)) best = { row, off };
  }
  return Object.fromEntries(best.off.map((name) => [name, values[name].find((value) => asks[name](best.row, value))]));
}

/** Grey what no cell has together with all else that is chosen. @returns {boolean} whether there is any */
function greyOut(selects, found) {
  const options = Object.entries(selects).flatMap(([name, select]) => [...select.options].map((option) => [option, found[name].has(option.value)]));
  for (const [option, there] of options) option.disabled = !there && !option.selected;
  return options.some(([option]) => option.disabled);
}

/** What is chosen in words, of the controls named: "phase update and memory". */
function chosenTold(selects, changes) {
  const text = (name, value) => [...selects[name].options].find((option) => option.value === value).text;
  return listText(Object.entries(changes).map(([name, value]) => (name === "measure" ? "" : `${name} `) + text(name, value)));
}

/** What a cell's point is, of what is measured: {y, low, high, law, lawLow, lawHigh}; y is null where there is none. */
function measured(row, measure, raw) {
  if (measure === "memory") {
    return { y: row.phase === "step" ? row.peak_bytes : null, low: null, high: null, law: row.law_bytes, lawLow: row.law_low_bytes, lawHigh: row.law_high_bytes };
  }
  const law = { law: row.law_s, lawLow: row.law_low_s, lawHigh: row.law_high_s };
  if (measure === "time") {
    if (raw) return { y: row.raw_s, low: null, high: null, law: null, lawLow: null, lawHigh: null };
    return { y: row.time_s, low: row.ci_low_s, high: row.ci_high_s, ...law };
  }
  // a share is operations / seconds / ceiling: it turns with time
  const top = row.share_of_ceiling > 0 ? row.share_of_ceiling * row.time_s : null;
  const over = (seconds) => (top && seconds ? top / seconds : null);
  if (raw) return { y: over(row.raw_s), low: null, high: null, law: null, lawLow: null, lawHigh: null };
  return { y: over(row.time_s), low: over(row.ci_high_s), high: over(row.ci_low_s), law: over(law.law), lawLow: over(law.lawHigh), lawHigh: over(law.lawLow) };
}

/** The rows that a choice shows, in the order of lines, with where they stand. */
function shownRows(rows, chosen) {
  const hidden = new Set(chosen.hide.split(",").filter(Boolean));
  const variable = AXES[chosen.axis][0];
  const found = [];
  for (const row of rows) {
    if (hidden.has(String(row.place)) || misfits(row, chosen, ASKS).length) continue;
    const point = measured(row, chosen.measure, chosen.kind === "raw");
    if (!known(point.y) || point.y <= 0) continue;
    found.push({ ...point, id: row.id, x: variable === "nm" ? row.n * row.m : row[variable], series: row.series, line: lineOf(row, chosen.axis), row });
  }
  return found.sort(byLine);
}

/** What a line joins: cells of one series between which only the axis moves. */
function lineOf(row, axis) {
  const network = { examples: `${row.layers} ${row.activation}`, activation: `${row.layers} ${row.n}` };
  return `${row.series} ${network[axis] ?? (axis === "depth" ? `${row.width} ${row.n}` : axis === "width" ? `${row.depth} ${row.n}` : "")}`;
}

/** The chart of a choice, for Vega-Lite. */
function exploreSpec(points, chosen, series) {
  const [, xTitle] = AXES[chosen.axis];
  const [yTitle] = MEASURES[chosen.measure];
  const lined = chosen.bands === "1" && !["joint", "functions", "all"].includes(chosen.axis);
  const { color, shape } = looks(series);
  const x = { field: "x", ...axisOf(xTitle, chosen.x === "log") };
  const what = chosen.measure === "time" ? `${chosen.kind === "raw" ? "raw " : ""}time, ${chosen.phase}` : yTitle;
  const y = { field: "y", ...axisOf(what, chosen.y === "log", { form: MEASURES[chosen.measure][1] }) };
  const values = points.map(({ row, ...point }) => point);
  const size = points.length > 400 ? 28 : 60;
  const marks = { x, y, color, shape, size: lit(220, size), stroke: lit("var(--ink)", "transparent"), strokeWidth: lit(2.5, 0), description: { field: "name" } };
  const layer = [
    ...(chosen.measure === "share" ? ceilingLayer(y) : []),
    ...(lined ? lawLayers(values, x, y, color) : []),
    ...intervalLayer(values, x, y, color),
    { mark: { type: "point", filled: true, opacity: 0.9 }, encoding: marks },
  ];
  return { height: innerWidth < 600 ? 320 : 440, params: [{ name: "lit", value: -1 }], data: { name: "cells", values }, layer };
}

/** The ceiling itself, as a line. */
function ceilingLayer(y) {
  const data = { values: [{ y: 1 }] };
  return [
    { data, mark: { type: "rule", strokeDash: [2, 3], color: "var(--muted)", aria: false }, encoding: { y } },
    { data, mark: { type: "text", align: "left", dx: 6, dy: -6, fontSize: 13, color: "var(--ink)", text: "the ceiling", aria: false }, encoding: { y, x: { value: 0 } } },
  ];
}

/** The laws' lines, dashed, with their bands; none where no cell has a law. */
function lawLayers(values, x, y, color) {
  const detail = { field: "line" };
  const found = [
    ["lawLow", { type: "area", opacity: 0.16, aria: false }, { x, y: { ...y, field: "lawLow" }, y2: { field: "lawHigh" }, color, detail }],
    ["law", { type: "line", strokeDash: [6, 4], strokeWidth: 1.4, aria: false }, { x, y: { ...y, field: "law" }, color, detail }],
  ];
  return found.filter(([field]) => values.some((point) => known(point[field]))).map(([field, mark, encoding]) => ({ transform: [{ filter: `datum.${field} != null` }], mark, encoding }));
}

/** 95 % intervals; none where no cell has one. */
function intervalLayer(values, x, y, color) {
  if (!values.some((point) => known(point.low))) return [];
  return [{ transform: [{ filter: "datum.low != null" }], mark: { type: "rule", aria: false, strokeWidth: 1.5 }, encoding: { x, y: { ...y, field: "low" }, y2: { field: "high" }, color } }];
}

/** A cell in words, for the tip and for those who listen. */
function cellTold(row, point, measure) {
  const form = MEASURES[measure][1];
  return [
    ["", `${row.series}: ${intervalText({ value: point.y, low: point.low, high: point.high }, form)}`],
    ["layers", row.layers],
    ["activation", `${row.activation} (p = ${row.p})`],
    ["n", countText(row.n)],
    ["m", countText(row.m)],
    ["phase", row.phase],
    ["passes", String(row.passes)],
    ...(row.regime ? [["regime", row.regime]] : []),
    ...(known(point.law) ? [["by its law", form(point.law)]] : []),
    ...(measure === "share" && point.y > 1 ? [["above 100 %", "faster than the product that the ceiling is timed by"]] : []),
    ...(row.heldout ? [["held out", "not used to fit laws"]] : []),
  ];
}

/** The chart in one sentence: its text alternative. */
function exploreTold(points, chosen) {
  const names = [...new Set(points.map((point) => point.series))];
  const form = MEASURES[chosen.measure][1];
  const ranges = names.map((name) => {
    const own = points.filter((point) => point.series === name);
    const ys = own.map((point) => point.y);
    return `${name} ${form(Math.min(...ys))} to ${form(Math.max(...ys))} over ${own.length} ${own.length === 1 ? "cell" : "cells"}`;
  });
  const xs = points.map((point) => point.x);
  const what = chosen.measure === "memory" ? "peak memory of a step" : chosen.measure === "share" ? `share of the matrix-product ceiling, ${chosen.phase}` : `${chosen.kind} time, ${chosen.phase}`;
  const above = chosen.measure === "share" && points.some((point) => point.y > 1) ? ` ${ABOVE_CEILING}` : "";
  return `${what[0].toUpperCase()}${what.slice(1)}, against ${AXES[chosen.axis][1]} from ${countText(Math.min(...xs))} to ${countText(Math.max(...xs))}: ${ranges.join("; ")}.${above}`;
}

/** The same points as a table. */
function exploreTable(points, chosen) {
  const form = MEASURES[chosen.measure][1];
  const rows = points.map(({ row, ...point }) => [
    row.series, row.layers, row.activation, countText(row.n), countText(row.m), numberOf(point.y, form),
    endsOf(point.low, point.high, form), String(row.passes), row.settled ? "yes" : "no", row.regime ?? "–", numberOf(point.law, form),
  ]);
  return {
    caption: exploreTold(points, chosen),
    columns: ["implementation", "layers", "activation", "n", "m", MEASURES[chosen.measure][2], "95 % interval", "passes", "steady", "regime", "by its law"],
    rows, numbers: [3, 4, 5, 7, 10],
  };
}

/** The section and its controls. */
function startExplore(data, rows) {
  const place = byId("explore-chart");
  const selects = prepareControls(data, rows);
  readable(place, (id) => {
    choose({ cell: String(id) });
    meet(byId("cell"));
  });
  const redraw = async () => {
    const points = shownRows(rows, state);
    const { values } = guide(data, rows, selects);
    place.points = points.map((point) => ({ ...point, told: () => cellTold(point.row, point, state.measure) }));
    byId("explore-view").hidden = byId("explore-table").hidden = !points.length;
    byId("explore-empty").hidden = Boolean(points.length);
    if (!points.length) return showNearest(rows, selects, values);
    const told = exploreTold(points, state);
    byId("explore-told").textContent = told;
    const { measure } = state;
    place.setAttribute("aria-label", `Chart. ${told} Arrow keys move between cells, Enter shows a cell's rounds.`);
    if (byId("explore-table").open) showTable(byId("explore-rows"), exploreTable(points, state));
    return drawInto(place, exploreSpec(points.map((point) => ({ ...point, name: `${cellName(point.row)}: ${MEASURES[measure][1](point.y)}` })), state, data.series), told);
  };
  byId("explore-table").addEventListener("toggle", () => {
    if (byId("explore-table").open) showTable(byId("explore-rows"), exploreTable(shownRows(rows, state), state));
  });
  const mine = [...Object.keys(ASKS), "kind", "hide", "x", "y", "bands"];
  watchers.push((changed) => {
    if (mine.some((name) => changed.has(name))) redraw();
    if (changed.has("cell") || changed.has("kind")) showCell(data, rows, state.cell);
  });
  Object.assign(homes, { hide: byId("choose-series"), cell: byId("cell") });
  byId("explore-reset").addEventListener("click", () => choose({ ...usualState }));
  byId("cell-close").addEventListener("click", closeCell);
  byId("cell").addEventListener("keydown", (event) => { if (event.key === "Escape") closeCell(); });
}

/** Back from a cell's rounds to its point. */
function closeCell() {
  const place = byId("explore-chart");
  const id = Number(state.cell);
  choose({ cell: "" });
  place.scrollIntoView({ block: "nearest", behavior: "instant" });
  place.focus({ preventScroll: true });
  if (!place.parentElement.hidden) place.light(id);
}

/** Fill the controls with what the run has; what it has only one of is not asked. @returns {Record<string, HTMLSelectElement>} those that choose cells */
function prepareControls(data, rows) {
  const unique = (name) => [...new Set(rows.map((row) => row[name]))];
  const asked = { axis: axisChoices(rows) };
  asked.phase = PHASES.filter((name) => unique("phase").includes(name)).map((name) => [name, name === "step" ? "step (all four)" : name]);
  asked.measure = Object.entries(MEASURES).filter(([name]) => name !== "memory" || rows.some((row) => row.peak_bytes)).map(([name, [, , text]]) => [name, text]);
  for (const name of ["device", "dtype"]) asked[name] = [["all", "all"], ...unique(name).map((value) => [value, value])];
  asked.optimizer = unique("optimizer").map((value) => [value, value]);
  const selects = {};
  for (const [name, choices] of Object.entries(asked)) {
    selects[name] = byId(`choose-${name}`);
    fillSelect(selects[name], choices);
    selects[name].closest("label").hidden = choices.filter(([value]) => value !== "all").length < 2;
    bind(selects[name], name);
  }
  bind(byId("choose-kind"), "kind");
  for (const name of ["x", "y"]) bind(byId(`choose-${name}`), name);
  bind(byId("choose-bands"), "bands");
  data.series.forEach((one, place) => byId("choose-series").append(seriesBox(one, place)));
  return selects;
}

/** What can be chosen, by control. */
function valuesOf(selects) {
  return Object.fromEntries(Object.entries(selects).map(([name, select]) => [name, [...select.options].map((option) => option.value)]));
}

/** Tell which choices have cells with all else that is chosen. */
function guide(data, rows, selects) {
  const values = valuesOf(selects);
  byId("explore-grey").hidden = !greyOut(selects, offered(rows, state, ASKS, values));
  const there = new Set(rows.filter((row) => !misfits(row, state, ASKS).length).map((row) => row.place));
  data.series.forEach((_, place) => { byId(`series-none-${place}`).hidden = there.has(place) || !there.size; });
  return { values };
}

/** Nothing to draw: say so, and offer the view nearest to what was asked for. */
function showNearest(rows, selects, values) {
  if (!rows.length) return byId("explore-empty").replaceChildren("This run has no cells.");
  const changes = nearestChanges(rows, state, ASKS, values);
  const hidden = !Object.keys(changes).length;
  const asked = Object.fromEntries(Object.entries(state).filter(([name, value]) => name in ASKS && value !== "all" && !selects[name].closest("label").hidden));
  const told = hidden ? "Nothing to draw: the implementations that have such cells are hidden." : `Nothing to draw: no cell of this run has all of ${chosenTold(selects, asked)}.`;
  const text = hidden ? "Show them" : `Show ${chosenTold(selects, changes)} instead`;
  return byId("explore-empty").replaceChildren(make("p", { class: "answer", role: "status" }, told), offerOf(text, hidden ? { hide: "" } : changes, byId("explore-chart")));
}

/** A button that makes changes, and gives the focus to the chart that they bring. */
function offerOf(text, changes, place) {
  const offer = make("button", { type: "button" }, text);
  offer.addEventListener("click", () => {
    choose(changes);
    place.focus({ preventScroll: true });
  });
  return offer;
}

/** A box that shows or hides a series; it is the chart's key as well. */
function seriesBox(one, place) {
  const box = make("input", { type: "checkbox", value: place });
  const hidden = () => new Set(state.hide.split(",").filter(Boolean));
  box.addEventListener("change", () => {
    const now = hidden();
    if (box.checked) now.delete(String(place));
    else now.add(String(place));
    choose({ hide: [...now].sort().join(",") });
  });
  watchers.push((changed) => { if (changed.has("hide")) box.checked = !hidden().has(String(place)); });
  const none = make("span", { class: "muted", id: `series-none-${place}`, hidden: "" }, "(none here)");
  return make("label", { class: "check" }, box, signOf(one), make("span", { class: "name" }, one.name), none);
}

/** A cell that was picked: what is known of it, and its rounds. */
async function showCell(data, rows, id) {
  const row = id === "" ? null : rows[Number(id)];
  byId("cell").hidden = !row;
  if (!row) return;
  const point = measured(row, "time", state.kind === "raw");
  byId("cell-name").textContent = cellName(row);
  const facts = [...cellTold(row, point, "time").slice(1), ["raw time", secondsText(row.raw_s)], ["normalised time", intervalText({ value: row.time_s, low: row.ci_low_s, high: row.ci_high_s }, secondsText)]];
  if (row.peak_bytes) facts.push(["peak memory", bytesText(row.peak_bytes)]);
  if (known(row.share_of_ceiling) && row.share_of_ceiling > 0) facts.push(["share of the ceiling", percentText(row.share_of_ceiling)]);
  if (row.share_of_ceiling > 1) facts.push(["why more than 100 %", ABOVE_CEILING]);
  byId("cell-facts").replaceChildren(...facts.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]));
  const rounds = roundsOf(data, row, state.kind);
  const every = data.rounds.kept_one_in;
  const kind = state.kind === "raw" ? "as measured" : "normalised";
  const told = `${rounds.length} rounds ${kind} in the order of the clock, ${secondsText(Math.min(...rounds.map((r) => r.y)))} to ${secondsText(Math.max(...rounds.map((r) => r.y)))}, in ${row.passes} passes that count${every > 1 ? `; one round in ${every} is kept in this page` : ""}.`;
  byId("cell-told").textContent = told;
  await drawInto(byId("cell-chart"), roundsSpec(rounds), `Rounds of ${cellName(row)}: ${told}`);
}

/** Rounds in the order of the clock, pass by pass. */
function roundsSpec(rounds) {
  const x = { field: "x", type: "quantitative", title: "round, in the order of the clock", scale: { zero: false, nice: false }, axis: { tickMinStep: 1, tickCount: 8 } };
  const y = { field: "y", ...axisOf("time", false, { form: secondsText, scale: { zero: false, nice: true } }) };
  const passes = [...new Set(rounds.map((round) => round.pass))];
  const pass = { field: "pass", type: "nominal", title: "pass", scale: { domain: passes, range: passes.map((_, i) => `var(--series-${i % 8})`) }, legend: { orient: "bottom", columns: 8 } };
  return { height: innerWidth >= 1760 ? 320 : 240, data: { name: "rounds", values: rounds }, mark: { type: "point", filled: true, size: 30 }, encoding: { x, y, color: pass, shape: { field: "pass", type: "nominal", scale: { domain: passes, range: passes.map((_, i) => SHAPES[i % 8]) }, title: "pass", legend: { orient: "bottom", columns: 8 } } } };
}
