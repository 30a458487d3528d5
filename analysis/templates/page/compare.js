"use strict";
// Runs side by side: the same cells, run by run.

const RATIO_MEASURES = { ratio: ["time over the first run's", short], time: ["time", secondsText], memory: ["peak bytes of a step", bytesText] };

/** A run's time of a cell, in the kind asked for; null where it has none. */
function timeOf(run, row, kind) {
  const over = kind === "reference" ? run.reference_s[row.device] : 1;
  if (!over || !known(run.time_s[row.id])) return null;
  if (kind === "raw") return { value: run.raw_s[row.id], low: null, high: null };
  return { value: run.time_s[row.id] / over, low: known(run.ci_low_s[row.id]) ? run.ci_low_s[row.id] / over : null, high: known(run.ci_high_s[row.id]) ? run.ci_high_s[row.id] / over : null };
}

/** What each control asks of a cell; bytes are of whole steps, a ratio is of cells that the first run has too. */
function compareAsks(data) {
  const has = (runs, name, row) => runs.some((run) => known(run[name][row.id]));
  const [base, ...others] = data.runs;
  const measures = {
    ratio: (row) => has([base], "time_s", row) && has(others, "time_s", row),
    time: (row) => has(data.runs, "time_s", row),
    memory: (row) => row.phase === "step" && has(data.runs, "peak_bytes", row),
  };
  return {
    series: (row, value) => String(row.place) === value,
    axis: ASKS.axis, phase: ASKS.phase, optimizer: ASKS.optimizer,
    measure: (row, value) => measures[value](row),
  };
}

/** The points of a choice, a line for each run. */
function comparedPoints(data, rows, chosen) {
  const variable = AXES[chosen.axis][0];
  const fits = rows.filter((row) => String(row.place) === chosen.series && row.phase === chosen.phase && row.optimizer === chosen.optimizer && (chosen.axis === "all" || row.axes.includes(chosen.axis)));
  const found = [];
  data.runs.forEach((run, at) => {
    if (chosen.measure === "ratio" && at === 0) return;
    for (const row of fits) {
      const own = timeOf(run, row, chosen.kind);
      const base = timeOf(data.runs[0], row, chosen.kind);
      const shown = chosen.measure === "memory" ? { value: run.peak_bytes[row.id], low: null, high: null } : chosen.measure === "time" ? own : own && base ? ratioOf(own, base) : null;
      if (!shown || !known(shown.value)) continue;
      found.push({ id: found.length, x: variable === "nm" ? row.n * row.m : row[variable], y: shown.value, low: shown.low, high: shown.high, series: run.name, line: run.name, row });
    }
  });
  return found.sort(byLine).map((point, id) => ({ ...point, id }));
}

function compareSpec(points, chosen, runs) {
  const [title] = RATIO_MEASURES[chosen.measure];
  const { color, shape } = looks(runs);
  const x = { field: "x", ...axisOf(AXES[chosen.axis][1], true) };
  const unit = chosen.measure === "time" && chosen.kind === "reference" ? "multiples of the reference kernel" : title;
  const y = { field: "y", ...axisOf(unit, chosen.y === "log", { form: formOf(chosen) }) };
  const values = points.map(({ row, ...point }) => ({ ...point, name: `${point.series}, n = ${countText(row.n)}, layers ${row.layers}: ${formOf(chosen)(point.y)}` }));
  const layer = [
    ...(chosen.measure === "ratio" ? [{ data: { values: [{ y: 1 }] }, mark: { type: "rule", strokeDash: [6, 4], color: "var(--muted)", aria: false }, encoding: { y } }] : []),
    ...intervalLayer(values, x, y, color),
    { mark: { type: "point", filled: true, opacity: 0.9 }, encoding: { x, y, color, shape, size: lit(220, 55), stroke: lit("var(--ink)", "transparent"), strokeWidth: lit(2.5, 0), description: { field: "name" } } },
  ];
  return { height: innerWidth < 600 ? 320 : 420, params: [{ name: "lit", value: -1 }], data: { name: "cells", values }, layer };
}

/** How a value reads. */
function formOf(chosen) {
  return chosen.measure === "time" && chosen.kind === "reference" ? short : RATIO_MEASURES[chosen.measure][1];
}

/** The chart in a sentence. */
function compareTold(points, chosen, data) {
  const form = formOf(chosen);
  if (!points.length) return "Nothing to draw: the runs have no such cell in common.";
  const each = [...new Set(points.map((point) => point.series))].map((name) => {
    const own = points.filter((point) => point.series === name).map((point) => point.y).sort((a, b) => a - b);
    return `${name} ${form(own[0])} to ${form(own[own.length - 1])}, median ${form(own[Math.floor(own.length / 2)])}, over ${own.length} ${own.length === 1 ? "cell" : "cells"}`;
  });
  const what = chosen.measure === "ratio" ? `time over that of ${data.runs[0].name} (below 1: faster)` : chosen.measure === "time" ? "time" : "peak memory";
  const series = data.series[Number(chosen.series)].name;
  return `${series}, ${chosen.phase}: ${what}, against ${AXES[chosen.axis][1]}: ${each.join("; ")}. Bars: 95 % intervals.`;
}

function compareTable(points, chosen, told) {
  const form = formOf(chosen);
  return {
    caption: told,
    columns: ["run", "layers", "activation", "n", "m", RATIO_MEASURES[chosen.measure][0], "95 % interval"],
    rows: points.map((point) => [point.series, point.row.layers, point.row.activation, countText(point.row.n), countText(point.row.m), numberOf(point.y, form), endsOf(point.low, point.high, form)]),
    numbers: [3, 4, 5],
  };
}

function startCompare() {
  const data = pageData();
  const rows = cellsOf(data);
  const place = byId("compare-chart");
  const unique = (name) => [...new Set(rows.map((row) => row[name]))];
  const axes = axisChoices(rows);
  const phases = PHASES.filter((name) => unique("phase").includes(name)).map((name) => [name, name]);
  const asked = { series: data.series.map((one, i) => [String(i), one.name]), axis: axes, phase: phases, optimizer: unique("optimizer").map((name) => [name, name]) };
  for (const [name, choices] of Object.entries(asked)) {
    fillSelect(byId(`choose-${name}`), choices);
    byId(`choose-${name}`).closest("label").hidden = choices.length < 2;
  }
  for (const name of ["series", "axis", "phase", "optimizer", "measure", "kind", "y"]) bind(byId(`choose-${name}`), name);
  const asks = compareAsks(data);
  const selects = Object.fromEntries(Object.keys(asks).map((name) => [name, byId(`choose-${name}`)]));
  const key = () => byId("compare-key").replaceChildren(...data.runs.filter((_, i) => i || state.measure !== "ratio").map((run) => make("span", { class: "check" }, signOf(run), make("span", { class: "name" }, run.name))));
  readable(place, () => undefined);
  const table = () => {
    const points = comparedPoints(data, rows, state);
    if (byId("compare-table").open) showTable(byId("compare-rows"), compareTable(points, state, compareTold(points, state, data)));
  };
  byId("compare-table").addEventListener("toggle", table);
  watchers.push(async () => {
    const points = comparedPoints(data, rows, state);
    const told = compareTold(points, state, data);
    const form = formOf(state);
    place.points = points.map((point) => ({ ...point, told: () => [["", `${point.series}: ${intervalText({ value: point.y, low: point.low, high: point.high }, form)}`], ["layers", point.row.layers], ["activation", point.row.activation], ["n", countText(point.row.n)], ["phase", point.row.phase]] }));
    byId("compare-told").textContent = told;
    const values = valuesOf(selects);
    byId("compare-grey").hidden = !greyOut(selects, offered(rows, state, asks, values));
    byId("compare-empty").hidden = Boolean(points.length);
    place.hidden = !points.length;
    if (!points.length) {
      const changes = nearestChanges(rows, state, asks, values);
      const [text, offer] = Object.keys(changes).length ? [chosenTold(selects, changes), changes] : ["normalised times", { kind: "normalised" }];
      byId("compare-empty").replaceChildren(offerOf(`Show ${text} instead`, offer, place));
      drawings.started = true;
      return;
    }
    place.setAttribute("aria-label", `Chart. ${told} Arrow keys move between cells.`);
    key();
    table();
    await drawInto(place, compareSpec(points, state, data.runs), told);
    drawings.started = true;
  });
  prepareTables();
  prepareLinks();
  followWidth(() => [place]);
  const first = asked.optimizer.find(([name]) => name === "gradient-descent") ?? asked.optimizer[0];
  startState({ series: "0", axis: axes[0][0], phase: phases[0][0], optimizer: first[0], measure: "ratio", kind: "normalised", y: "log" });
}

startCompare();
