"use strict";
// The cells of a run, as rows.

/** In the order of a step. */
const PHASES = ["step", "forward", "loss", "backward", "update"];

/** The one block of data that the page holds. */
function pageData() {
  return JSON.parse(byId("data").textContent);
}

/** One object for each cell, names in place of numbers. */
function cellsOf(data) {
  const { cells, lists, series } = data;
  return cells.series.map((place, id) => {
    const row = { id, place, series: series[place].name, impl: series[place].impl, device: series[place].device, dtype: series[place].dtype };
    for (const name of Object.keys(lists)) row[name] = lists[name][cells[name][id]];
    for (const name of Object.keys(cells)) if (!(name in lists) && name !== "series") row[name] = cells[name][id];
    row.axes = row.axis.split(",");
    return row;
  });
}

/** A cell in words. */
function cellName(row) {
  return `${row.series}, ${row.phase}, layers ${row.layers}, ${row.activation}, n = ${countText(row.n)}`;
}

/** A ratio of two times with the 95 % interval of both: half² = half_a² + half_b² on the log scale. */
function ratioOf(a, b) {
  const value = a.value / b.value;
  if (![a, b].every((t) => known(t.low) && known(t.high))) return { value, low: null, high: null };
  const half = Math.hypot(Math.log(a.high / a.low) / 2, Math.log(b.high / b.low) / 2);
  return { value, low: value * Math.exp(-half), high: value * Math.exp(half) };
}

/** The rounds of a cell in the order of the clock. @returns {{pass: string, minutes: number, x: number, y: number}[]} */
function roundsOf(data, row, kind) {
  const [passes, raw, normal] = data.rounds.cells[row.id];
  const [low, high] = data.log_ratio;
  const steps = decoded(kind === "raw" ? raw : normal, Uint16Array);
  const time = kind === "raw" ? row.raw_s : row.time_s;
  const found = [];
  for (const [pass, minutes, count, disturbed] of passes) {
    for (let i = 0; i < count; i++) {
      const log = low + ((high - low) * steps[found.length]) / 65535;
      found.push({ x: found.length + 1, y: time * Math.exp(log), pass: `${pass}${disturbed ? " (disturbed)" : ""}`, minutes });
    }
  }
  return found;
}
