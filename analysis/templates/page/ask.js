"use strict";
// Questions that people have, answered in words from the cells measured and, between them, from the laws.

/** A network of the run's shape: layers of one width. @param {{inputs: number, outputs: number}} ends */
function networkOf(ends, width, depth) {
  return [ends.inputs, ...Array(depth - 1).fill(width), ends.outputs];
}

/** The network that most cells of steps lie on: what a question leaves open. */
function usualNetwork(data, rows) {
  const steps = rows.filter((row) => row.phase === "step" && row.optimizer === data.optimizer && row.depth > 1);
  const count = (name) => {
    const seen = new Map();
    for (const row of steps) seen.set(row[name], (seen.get(row[name]) ?? 0) + 1);
    return [...seen].reduce((a, b) => (b[1] > a[1] ? b : a), [null, 0])[0];
  };
  if (!steps.length) return null;
  const layers = count("layers").split("-").map(Number);
  return { inputs: layers[0], outputs: layers[layers.length - 1], width: Math.max(...layers.slice(1, -1)), depth: layers.length - 1, n: count("n"), activation: count("activation") };
}

/** Every series' step of one network: measured where the run has the cell, else by its law. */
function stepsAt(data, rows, layers, n, activation) {
  return data.series.flatMap((one, place) => {
    const row = rows.find((r) => r.place === place && r.phase === "step" && r.optimizer === data.optimizer && r.layers === layers.join("-") && r.n === n && r.activation === activation);
    if (row) return [{ one, place, time: { value: row.time_s, low: row.ci_low_s, high: row.ci_high_s }, from: "measured", beyond: [] }];
    const model = data.models[place];
    const found = model ? predictStep(data, model, layers, n, activation, "") : "no law";
    return typeof found === "string" ? [] : [{ one, place, time: found.time, from: `by its law “${found.law}”`, beyond: found.beyond }];
  }).sort((a, b) => a.time.value - b.time.value);
}

/** Whether two intervals have something in common, or one is not known. */
function overlap(a, b) {
  return !(a.low > b.high || b.low > a.high);
}

/** Who is fastest, in one sentence. @param {ReturnType<typeof stepsAt>} found */
function fastestTold(found, what) {
  if (!found.length) return `This run tells nothing of ${what}: measure it, or choose an activation that it measured.`;
  const [first, ...others] = found;
  const told = `Fastest for ${what}: ${first.one.name}, ${intervalText(first.time, secondsText)} a step (${first.from})`;
  const near = others.filter((other) => overlap(first.time, other.time)).map((other) => other.one.name);
  const rest = others.filter((other) => !near.includes(other.one.name)).map((other) => `${other.one.name} takes ${short(other.time.value / first.time.value)} times as long`);
  const parts = [told];
  if (near.length) parts.push(`${listText(near)} cannot be told from it: the intervals overlap`);
  if (rest.length) parts.push(listText(rest));
  return `${parts.join("; ")}.`;
}

/** Numbers from low to high in equal factors, whole ones. */
function wholeSteps(low, high, count) {
  const found = new Set();
  for (let i = 0; i <= count; i++) found.add(Math.round(low * (high / low) ** (i / count)));
  return [...found];
}

/** Where A overtakes B along n or width, by their laws: places where the order turns, each with the interval over which the two cannot be told apart. */
function crossings(data, a, b, base, axis) {
  const [first, second] = [data.models[a], data.models[b]];
  const ends = [first, second].map((model) => axis === "n" ? model.seen.n : null);
  const low = axis === "n" ? Math.max(...ends.map((e) => e[0])) : base.widths[0];
  const high = axis === "n" ? Math.min(...ends.map((e) => e[1])) : base.widths[1];
  const at = (x) => {
    const layers = networkOf(base, axis === "n" ? base.width : x, base.depth);
    const n = axis === "n" ? x : base.n;
    const [ta, tb] = [first, second].map((model) => predictStep(data, model, layers, n, base.activation, ""));
    return typeof ta === "string" || typeof tb === "string" ? null : { x, log: Math.log(ta.time.value / tb.time.value), apart: !overlap(ta.time, tb.time) };
  };
  const line = wholeSteps(low, high, 48).map(at);
  if (line.includes(null)) return { low, high, line: [], turns: [] };
  const turns = [];
  for (let i = 1; i < line.length; i++) {
    if (line[i - 1].log === 0 || line[i - 1].log * line[i].log >= 0) continue;
    const [p, q] = [line[i - 1], line[i]];
    const x = p.x * (q.x / p.x) ** (p.log / (p.log - q.log));
    const before = line.slice(0, i).filter((point) => point.apart).pop();
    const after = line.slice(i).find((point) => point.apart);
    turns.push({ x, from: before ? before.x : null, to: after ? after.x : null, faster: q.log < 0 });
  }
  return { low, high, line, turns };
}

/** The answer in words, what was measured first. */
function overtakeTold(data, rows, a, b, base, axis) {
  if (a === b) return ["Choose two different implementations."];
  const names = [data.series[a].name, data.series[b].name];
  const what = axis === "n" ? "n" : "width";
  const pairs = measuredPairs(rows, a, b, base, axis, data.optimizer);
  return [...measuredTold(pairs, names, what), ...(data.models[a] && data.models[b] ? lawsTold(crossings(data, a, b, base, axis), names, what, base.activation) : [])];
}

/** Cells that both have on the line that a question is about, in its order: log of A's time over B's, and whether their intervals part. */
function measuredPairs(rows, a, b, base, axis, optimizer) {
  const fits = (row) => row.phase === "step" && row.optimizer === optimizer && row.activation === base.activation && row.depth === base.depth
    && (axis === "n" ? row.layers === networkOf(base, base.width, base.depth).join("-") : row.n === base.n && row.layers === networkOf(base, row.width, base.depth).join("-"));
  const key = (row) => (axis === "n" ? row.n : row.width);
  const other = new Map(rows.filter((row) => row.place === b && fits(row)).map((row) => [key(row), row]));
  const ends = (row) => ({ low: row.ci_low_s, high: row.ci_high_s });
  return rows.filter((row) => row.place === a && fits(row) && other.has(key(row))).map((row) => {
    const against = other.get(key(row));
    return { x: key(row), log: Math.log(row.time_s / against.time_s), apart: known(row.ci_low_s) && known(against.ci_low_s) && !overlap(ends(row), ends(against)) };
  }).sort((p, q) => p.x - q.x);
}

/** Where the order turns among points that part. @param {{x: number, log: number, apart: boolean}[]} points */
function turnsOf(points) {
  const sure = points.filter((point) => point.apart && point.log !== 0);
  const found = [];
  for (let i = 1; i < sure.length; i++) {
    const [p, q] = [sure[i - 1], sure[i]];
    if (p.log * q.log < 0) found.push({ from: p.x, to: q.x, first: q.log < 0 });
  }
  return found;
}

/** The range of an axis, one value if it has no more. */
function rangeText(what, low, high) {
  return low === high ? `at ${what} = ${countText(low)}` : `for ${what} from ${countText(low)} to ${countText(high)}`;
}

function measuredTold(pairs, names, what) {
  if (!pairs.length) return ["No two cells of these networks were measured on both; what follows is by their laws."];
  const turns = turnsOf(pairs);
  const told = turns.map(({ from, to, first }) => {
    const [winner, loser] = first ? names : [...names].reverse();
    return `Measured: ${winner} overtakes ${loser} between ${what} = ${countText(from)} and ${what} = ${countText(to)}.`;
  });
  if (!turns.length) {
    const sure = pairs.filter((pair) => pair.apart);
    const range = rangeText(what, pairs[0].x, pairs[pairs.length - 1].x);
    const where = sure.length < pairs.length ? " wherever the two can be told apart" : "";
    told.push(sure.length ? `Measured, ${range}: ${names[sure[0].log < 0 ? 0 : 1]} is the faster${where}.` : `Measured, ${range}: the two cannot be told apart.`);
  }
  const each = pairs.map(({ x, log, apart }) => `${countText(x)}: ${names[log < 0 ? 0 : 1]} ${short(Math.exp(Math.abs(log)))} times as fast${apart ? "" : " (intervals overlap)"}`);
  return [...told, `At ${what} = ${each.join("; ")}.`];
}

function lawsTold({ low, high, line, turns }, names, what, activation) {
  const range = rangeText(what, low, high);
  if (!line.length) return [`The run has no law of ${activation} for both.`];
  if (!turns.length) return [`By their laws, ${range}: ${names[line[0].log < 0 ? 0 : 1]} is the faster throughout, there is no crossing.`];
  return turns.map((turn) => {
    const [winner, loser] = turn.faster ? names : [...names].reverse();
    const sides = [turn.from ? `not before ${countText(turn.from)}` : "", turn.to ? `surely from ${countText(turn.to)} on` : ""].filter(Boolean);
    if (!sides.length) return `By their laws the order turns near ${what} = ${countText(turn.x)}, but their 95 % intervals overlap throughout, ${range}: they cannot tell who is faster.`;
    return `By their laws ${winner} overtakes ${loser} near ${what} = ${countText(turn.x)} (${sides.join(", ")}).`;
  });
}

/** Whether a phase grows, by series. */
function growthRows(data, phase, variable) {
  return data.verdicts.filter((v) => v.phase === phase && v.optimizer === data.optimizer).map((v) => ({ name: data.series[v.series].name, ...v.exponents[variable] }));
}

/** The axis along which only one of n, m and p is moved, and what stays as it is there. */
const MOVED_ALONE = { n: ["examples", (row) => `${row.layers} ${row.activation}`], m: ["width", (row) => `${row.n} ${row.depth} ${row.activation}`], p: ["activation", (row) => `${row.n} ${row.layers}`] };

/** What is asked of a cell: its time, or its memory, which is that of a whole step, exact and without an interval. */
const OF_TIME = { phase: (name) => name, value: "time_s", low: "ci_low_s", high: "ci_high_s", text: secondsText, verb: " takes", much: "as long", more: "longer" };
const OF_MEMORY = { phase: () => "step", value: "peak_bytes", low: "peak_bytes", high: "peak_bytes", text: bytesText, verb: " grows,", much: "as much", more: "more" };

/** What was measured of a series' phase at both ends of an axis: how many times as long, with its interval, and from where on it takes longer. */
function measuredGrowth(data, rows, name, phase, variable) {
  const of = phase === "memory" ? OF_MEMORY : OF_TIME;
  const [axis, rest] = MOVED_ALONE[variable];
  const groups = new Map();
  for (const row of rows) {
    if (row.series !== name || row.phase !== of.phase(phase) || row.optimizer !== data.optimizer || !row.axes.includes(axis)) continue;
    groups.set(rest(row), [...(groups.get(rest(row)) ?? []), row]);
  }
  const line = [...groups.values()].reduce((a, b) => (b.length > a.length ? b : a), []).sort((a, b) => a[variable] - b[variable]);
  const [first, last] = [line[0], line[line.length - 1]];
  if (line.length < 2 || first[variable] === last[variable] || ![first, last].every((row) => row[of.low] > 0 && row[of.high] > 0)) return null;
  const longer = line.find((row) => known(row[of.low]) && row[of.low] > first[of.high]);
  return { of, first, last, times: last[variable] / first[variable], ratio: ratioOf(...[last, first].map((row) => ({ value: row[of.value], low: row[of.low], high: row[of.high] }))), from: longer ? longer[variable] : null };
}

/** A multiple. @param {number} value */
function timesText(value) {
  return value >= 100 ? countText(value) : short(value);
}

/** The same in words. @param {NonNullable<ReturnType<typeof measuredGrowth>>} found */
function measuredGrowthTold(found, variable) {
  const { of, first, last, ratio } = found;
  const at = (row) => `${of.text(row[of.value])} at ${variable} = ${countText(row[variable])}`;
  const range = ratio.low > 1.005 ? (known(found.from) && found.from < last[variable] ? `, ${of.more} than at first from ${variable} = ${countText(found.from)} on` : "") : ratio.high >= 1 ? (of === OF_MEMORY ? "" : ", the same within its interval") : "";
  return `measured: ${at(first)}, ${at(last)}, ${intervalText(ratio.low < ratio.high ? ratio : { value: ratio.value }, short)} times ${of.much} for ${timesText(found.times)} times the ${variable}${range}`;
}

/** Of one series; what was measured comes first where it says more than the power does. */
function listed({ told, grows, measured }, variable) {
  if (!measured) return told;
  const seen = measuredGrowthTold(measured, variable);
  return grows === "cannot tell" && measured.ratio.low > 1 ? `${seen}; as a power of ${variable} the run ${told}` : `${told}; ${seen}`;
}

/** The same in one sentence, and one for each series. */
function growthTold(data, rows, phase, variable) {
  const found = growthRows(data, phase, variable).map((one) => ({ ...one, measured: measuredGrowth(data, rows, one.name, phase, variable) }));
  if (!found.length) return { head: `This run has no cells of ${phase}.`, list: [] };
  const by = (word) => found.filter((one) => one.grows === word).map((one) => one.name);
  const what = phase === "memory" ? "memory" : phase === "step" ? "the whole step" : `the ${phase} phase`;
  const parts = [];
  if (by("grows").length) parts.push(`Yes for ${listText(by("grows"))}: ${what} grows with ${variable}`);
  if (by("does not grow").length) parts.push(`No for ${listText(by("does not grow"))}: ${what} does not grow with ${variable}`);
  const open = found.filter((one) => one.grows === "cannot tell");
  const longer = open.filter((one) => one.measured && one.measured.ratio.low > 1);
  const rest = open.filter((one) => !longer.includes(one)).map((one) => one.name);
  if (longer.length) {
    const each = longer.map((one) => `${one.name} ${short(one.measured.ratio.value)} times ${one.measured.of.much} for ${timesText(one.measured.times)} times the ${variable}`);
    parts.push(`Yes, as measured, though as no one power of ${variable}: ${what}${longer[0].measured.of.verb} ${listText(each)}`);
  }
  if (rest.length) parts.push(`Whether ${what} grows with ${variable} cannot be told for ${listText(rest)}`);
  if (variable === "n" && phase === "update") parts.push("Each phase finds the caches as the one before left them, so that what touches no example may take longer after a larger batch");
  return { head: `${parts.join(". ")}.`, list: found.map((one) => `${one.name}: ${listed(one, variable)}`) };
}

/** The section and its controls. */
function startAsk(data, rows) {
  const usual = usualNetwork(data, rows);
  byId("ask").hidden = !usual;
  if (!usual) return;
  const widths = rows.filter((row) => row.phase === "step" && row.width).map((row) => row.width);
  const ends = { ...usual, widths: [Math.min(...widths), Math.max(...widths)] };
  const base = () => ({ ...ends, n: Number(state.n), width: Number(state.width), depth: Number(state.depth), activation: state.activation });
  const activations = [...new Set(rows.filter((row) => row.phase === "step").map((row) => row.activation))].sort(byNumber);
  fillSelect(byId("ask-activation"), activations.map((name) => [name, name]));
  for (const name of ["a", "b"]) fillSelect(byId(`ask-${name}`), data.series.map((one, i) => [String(i), one.name]));
  const phases = [...PHASES, "memory"].filter((name) => data.verdicts.some((v) => v.phase === name));
  fillSelect(byId("ask-phase"), phases.map((name) => [name, name === "step" ? "whole step" : name]));
  for (const name of ["n", "width", "depth", "activation", "a", "b", "along", "phase", "by"]) bind(byId(`ask-${name}`), name === "phase" ? "grown" : name);
  watchers.push((changed) => {
    const moved = (...names) => names.some((name) => changed.has(name));
    if (moved("n", "width", "depth", "activation")) showFastest(data, rows, base());
    if (moved("n", "width", "depth", "activation", "a", "b", "along")) {
      byId("overtake-told").replaceChildren(...overtakeTold(data, rows, Number(state.a), Number(state.b), base(), state.along).map((text, i) => make("p", i ? {} : { class: "answer" }, text)));
    }
    if (moved("grown", "by")) {
      const { head, list } = growthTold(data, rows, state.grown, state.by);
      byId("growth-told").replaceChildren(make("p", { class: "answer" }, head), make("ul", {}, ...list.map((text) => make("li", {}, text))));
    }
  });
}

/** horner-2 before horner-16. */
function byNumber(a, b) {
  return a.localeCompare(b, "en", { numeric: true });
}

/** What lies outside of what was measured, and how far: one sentence for all of which the same is true. */
function beyondTold(found) {
  const groups = new Map();
  for (const { name, beyond } of found) {
    const told = listText(beyond);
    if (told) groups.set(told, [...(groups.get(told) ?? []), name]);
  }
  return [...groups].map(([told, names]) => `${listText(names)} ${names.length > 1 ? "are" : "is"} extrapolated: ${told}.`);
}

function showFastest(data, rows, base) {
  const layers = networkOf(base, base.width, base.depth);
  const found = stepsAt(data, rows, layers, base.n, base.activation);
  byId("fastest-told").textContent = fastestTold(found, `n = ${countText(base.n)}, layers ${layers.join("-")}, ${base.activation}`);
  const beyond = beyondTold(found.map(({ one, beyond: far }) => ({ name: one.name, beyond: far })));
  byId("fastest-warnings").replaceChildren(...beyond.map((text) => make("li", {}, text)));
  byId("fastest-warnings").hidden = !beyond.length;
  showTable(byId("fastest-rows"), {
    caption: `One step, n = ${countText(base.n)}, layers ${layers.join("-")}, ${base.activation}; 95 % intervals`,
    columns: ["implementation", "time of a step", "times the fastest", "from"],
    rows: found.map((one) => [one.one.name, intervalOf(one.time, secondsText), numberOf(one.time.value / found[0].time.value, short), one.from]),
    numbers: [1, 2],
  });
}
