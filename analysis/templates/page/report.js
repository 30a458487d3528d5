"use strict";
// The page of a run.

/** The picture that makes the point: the dial of the activation turned up, and what a step then costs, over its cost at the smallest p. */
function firstPicture(data, rows) {
  const dial = rows.filter((row) => row.phase === "step" && row.optimizer === data.optimizer && row.axes.includes("activation"));
  const points = data.series.flatMap((one, place) => {
    const own = dial.filter((row) => row.place === place).sort((a, b) => a.p - b.p);
    return own.length < 2 ? [] : own.map((row) => ({ series: one.name, x: row.p / own[0].p, y: row.time_s / own[0].time_s, low: row.ci_low_s ? row.ci_low_s / own[0].time_s : null, high: row.ci_high_s ? row.ci_high_s / own[0].time_s : null, row }));
  });
  return points;
}

/** Its caption, with its numbers. */
function firstTold(data, points) {
  const most = Math.max(...points.map((point) => point.x));
  const ends = data.series.map((one) => points.filter((point) => point.series === one.name).pop()).filter(Boolean);
  const told = ends.map((end) => `${end.series} ${short(end.y)} times (p times ${short(end.x)})`);
  return `What a step costs when only the activation's operations p grow, over its cost at the smallest p. If cost grew as n·m·p, points would lie on the dashed line: p times ${short(most)} would cost ${short(most)} times as much. Measured: ${listText(told)}.`;
}

function firstSpec(data, points) {
  const { color, shape } = looks(data.series);
  const most = Math.max(...points.map((point) => point.x));
  const x = { field: "x", ...axisOf(innerWidth < 600 ? "p, as a multiple of the smallest" : "operations per activation p, as a multiple of the smallest", true, { form: short, scale: { domain: [1, most * 1.02], padding: 0 } }) };
  const y = { field: "y", ...axisOf("time of a step, as a multiple", true, { form: short, scale: { domainMin: 0.9, padding: 0 } }) };
  const claim = [1, most].map((value) => ({ x: value, y: value }));
  const values = points.map(({ row, ...point }) => ({ ...point, name: `${point.series}: p times ${short(point.x)} costs ${short(point.y)} times` }));
  return {
    height: innerWidth < 600 ? 280 : 340,
    data: { name: "cells", values },
    layer: [
      { data: { values: claim }, mark: { type: "line", strokeDash: [6, 4], color: "var(--muted)", aria: false }, encoding: { x, y } },
      { data: { values: [{ x: most ** 0.6, y: most ** 0.6 }] }, mark: { type: "text", align: "right", dx: -10, dy: -6, fontSize: 13, color: "var(--ink)", text: "n·m·p says", aria: false }, encoding: { x, y } },
      { mark: { type: "line", strokeWidth: 1.6, aria: false }, encoding: { x, y, color } },
      ...intervalLayer(values, x, y, color),
      { mark: { type: "point", filled: true, size: 60 }, encoding: { x, y, color, shape, description: { field: "name" } } },
    ],
  };
}

async function showFirst(data, rows) {
  const points = firstPicture(data, rows);
  const figure = byId("first");
  if (!points.length) {
    figure.hidden = true;
    return;
  }
  const told = firstTold(data, points);
  byId("first-told").textContent = told;
  const names = new Set(points.map((point) => point.series));
  byId("first-key").replaceChildren(...data.series.filter((one) => names.has(one.name)).map((one) => make("span", { class: "check" }, signOf(one), make("span", { class: "name" }, one.name))));
  await drawInto(byId("first-chart"), firstSpec(data, points), told);
}

/** What a page shows before anybody chooses. */
function usualChoices(data, rows) {
  const usual = usualNetwork(data, rows) ?? { n: 64, width: 128, depth: 2, activation: "horner-4", inputs: 64, outputs: 10 };
  const axis = Object.keys(AXES).find((name) => rows.some((row) => row.axes.includes(name))) ?? "all";
  const phase = rows.some((row) => row.phase === "step") ? "step" : (rows[0] ?? { phase: "step" }).phase;
  const at = (name) => data.series.findIndex((one) => one.impl.startsWith(name));
  const b = Math.max(0, at("numpy"));
  const a = at("jax") >= 0 && at("jax") !== b ? at("jax") : data.series.findIndex((_, i) => i !== b);
  const grown = ["update", "step"].find((name) => data.verdicts.some((v) => v.phase === name)) ?? "step";
  return {
    axis, phase, measure: "time", kind: "normalised", device: "all", dtype: "all", optimizer: data.optimizer, hide: "", x: "log", y: "log", bands: "1", cell: "",
    n: String(usual.n), width: String(usual.width), depth: String(usual.depth), activation: usual.activation, a: String(Math.max(a, 0)), b: String(b), along: "n", grown, by: "n",
    layers: networkOf(usual, usual.width, usual.depth).join("-"), batch: String(usual.n), function: usual.activation, by_optimizer: data.optimizer, rows: "60000",
  };
}

function startReport() {
  const data = pageData();
  const rows = cellsOf(data);
  startExplore(data, rows);
  startAsk(data, rows);
  startCalculator(data, rows);
  prepareTables();
  prepareLinks();
  preparePrint();
  followWidth(() => [...document.querySelectorAll(".chart")]);
  showFirst(data, rows).then(() => {
    performance.mark("first chart");
    startState(usualChoices(data, rows));
    drawFigures(data.charts);
    drawings.started = true;
  });
}

startReport();
