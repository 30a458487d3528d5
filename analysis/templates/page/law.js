"use strict";
// The laws of cost and what they predict: the formulas of analysis/sizes.py, expressions.py and predict.py, to the last
// digit (a test compares them).  Laws come as trees of plain lists; nothing is evaluated as code.

const OPERATORS = {
  "+": (a, b) => a + b,
  "-": (a, b) => a - b,
  "*": (a, b) => a * b,
  "/": (a, b) => a / b,
  "**": (a, b) => a ** b,
  log: Math.log,
  log2: Math.log2,
  sqrt: Math.sqrt,
  ceil: Math.ceil,
  min: Math.min,
  max: Math.max,
  mod: floorMod,
  beyond: (size, limit) => Math.max(1 - limit / Math.max(size, 1e-300), 0),
  reaches: (size, least) => (size >= least ? 1 : 0),
  loose: looseTurns,
};

/** The remainder that has the divisor's sign. */
function floorMod(a, b) {
  const rest = a % b;
  return rest !== 0 && rest < 0 !== b < 0 ? rest + b : rest;
}

/** Turns of a loop that fill no vector of so many lanes. */
function looseTurns(size, lanes) {
  const rest = floorMod(size, lanes);
  if (size < 2 * lanes) return rest > 0 && size >= 0.75 * lanes ? size : 0;
  return size <= 4 * lanes ? rest : 0;
}

/** @param {number|string|Array} tree @param {Record<string, number>} sizes */
function evaluate(tree, sizes) {
  if (typeof tree === "number") return tree;
  if (typeof tree === "string") return sizes[tree];
  const [name, ...parts] = tree;
  return OPERATORS[name](...parts.map((part) => evaluate(part, sizes)));
}

/** Every variable that laws may name, of a fully connected network. @param {number[]} layers */
function sizesOf(layers, n, p, model) {
  let weights = 0;
  for (let i = 1; i < layers.length; i++) weights += layers[i - 1] * layers[i];
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const hidden = layers.slice(1, -1);
  // once forward, once for the gradient of the weights, once for that of the inputs but in the first layer
  const products = 3 * weights - layers[0] * layers[1];
  return {
    n, p, products,
    m: weights + sum(layers.slice(1)),
    u: sum(hidden),
    width: hidden.length ? Math.max(...hidden) : 0,
    depth: layers.length - 1,
    hidden: layers.length - 2,
    inputs: layers[0],
    outputs: layers[layers.length - 1],
    units: sum(layers),
    itemsize: model.itemsize ?? NaN,
    operations_product: 2 * n * products,
    L1: model.caches.L1 ?? NaN,
    L2: model.caches.L2 ?? NaN,
    L3: model.caches.L3 ?? NaN,
  };
}

/** Little-endian numbers from base64. */
function decoded(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Kind(bytes.buffer);
}

/** The drawn coefficients of a law, decoded once. */
function drawsOf(law) {
  if (law.draws !== null && law.drawn === undefined) law.drawn = decoded(law.draws, Float64Array);
  return law.drawn ?? null;
}

/** What each term of a law comes to, before its coefficient. */
function termsOf(law, sizes) {
  return law.terms.map((term) => evaluate(term.tree, sizes));
}

/** Seconds or bytes by a law, with the interval for one new cell. */
function byLaw(law, sizes) {
  const terms = termsOf(law, sizes);
  const sum = (at, from) => {
    let total = 0;
    for (let i = 0; i < terms.length; i++) total += terms[i] * at[from + i];
    return total;
  };
  const value = Math.max(sum(law.coefficients, 0), law.floor);
  if (!(value > 0)) return { value, low: NaN, high: NaN };
  const off = law.off[sizes.operations_product > law.largest ? 1 : 0];
  const spread = drawnSpread(drawsOf(law), terms.length, value, sum);
  // half² = off² + t²·(drawn² + noise²), on the log scale
  const half = Math.sqrt(off ** 2 + law.t ** 2 * (spread ** 2 + law.noise ** 2));
  return { value, low: value * Math.exp(-half), high: value * Math.exp(half) };
}

/** Standard deviation of log times over the draws. */
function drawnSpread(draws, count, value, sum) {
  if (draws === null) return 0;
  const logs = [];
  for (let at = 0; at < draws.length; at += count) logs.push(Math.log(Math.max(sum(draws, at), 1e-3 * value)));
  const mean = logs.reduce((a, b) => a + b, 0) / logs.length;
  return Math.sqrt(logs.reduce((a, b) => a + (b - mean) ** 2, 0) / logs.length);
}

/** p of an activation: of horner-K by count, of others what the run says; null where it does not. */
function activationOf(model, name) {
  const dial = /^horner-([1-9]\d?)$/.exec(name);
  if (dial && Number(dial[1]) <= 64) return [4 * Number(dial[1]), "counted"];
  return Object.hasOwn(model.activations, name) ? model.activations[name] : null;
}

/** One step that was never measured; a text says why not. */
function predictStep(data, model, layers, n, activation, optimizer) {
  const found = activationOf(model, activation);
  if (!found) return `activation ${activation} was not measured`;
  const sizes = sizesOf(layers, n, found[0], model);
  let time = byLaw(model.step, sizes);
  let memory = model.memory ? byLaw(model.memory, sizes) : { value: NaN, low: NaN, high: NaN };
  if (optimizer && optimizer !== model.optimizer) {
    const missing = [model.optimizer, optimizer].find((name) => !Object.hasOwn(model.updates, name));
    if (missing) return `no law of the update by ${missing}`;
    [time, memory] = byOptimizer(model, sizes, optimizer, time, memory);
  }
  const floors = floorsOf(data, model, sizes);
  const binding = Object.keys(floors).reduce((a, b) => (floors[b] > floors[a] ? b : a));
  return { time, memory, floors, binding, p: found[0], p_from: found[1], beyond: beyondOf(model, sizes), law: model.step.name };
}

/** The update's law exchanged, and what the optimizer keeps of every parameter, by count. */
function byOptimizer(model, sizes, optimizer, time, memory) {
  const taken = byLaw(model.updates[model.optimizer], sizes);
  const given = byLaw(model.updates[optimizer], sizes);
  const value = Math.max(time.value - taken.value + given.value, given.value);
  const parts = [time, taken, given].map((part) => (part.value > 0 ? (part.value / value) * Math.log(part.high / part.value) : 0));
  const half = Math.sqrt(parts.reduce((a, b) => a + b ** 2, 0));
  const more = ((model.kept[optimizer] ?? NaN) - (model.kept[model.optimizer] ?? NaN)) * sizes.m * model.parameter_bytes;
  return [
    { value, low: value * Math.exp(-half), high: value * Math.exp(half) },
    { value: memory.value + more, low: memory.low + more, high: memory.high + more },
  ];
}

/** Seconds that a step cannot go below, by ceiling; for calls what the law says they take. */
function floorsOf(data, model, sizes) {
  const moved = model.itemsize * (data.moves.parameter * sizes.m + data.moves.unit * sizes.n * sizes.units);
  const terms = termsOf(model.step, sizes);
  let calls = 0;
  model.step.terms.forEach((term, i) => { if (term.call) calls += terms[i] * model.step.coefficients[i]; });
  const floors = { "calls and fixed overhead": calls };
  if (model.ceiling_flops) floors["matrix products"] = sizes.operations_product / model.ceiling_flops;
  if (model.bandwidth_bytes_per_s) floors["memory bandwidth"] = moved / model.bandwidth_bytes_per_s;
  return floors;
}

/** 24,414.1, as Python's ,.1f */
function timesBeyond(ratio) {
  return ratio.toFixed(1).replace(/\B(?=(\d{3})+\.)/g, ",");
}

/** In which of n, m, p and n·m a cell lies outside what was measured, and how far. */
function beyondOf(model, sizes) {
  const told = [];
  for (const [name, [least, most]] of Object.entries(model.seen)) {
    const value = name === "n·m" ? sizes.n * sizes.m : sizes[name];
    if (value > most) told.push(`${name} = ${countText(value)} is ${timesBeyond(value / most)} times the largest measured`);
    else if (value < least) told.push(`${name} = ${countText(value)} is below the smallest measured, ${countText(least)}`);
  }
  return told;
}

/** One pass over so many rows in batches of n; a text says why not. */
function predictEpoch(data, model, layers, n, activation, optimizer, rows) {
  const rest = rows % n;
  const parts = [[(rows - rest) / n, n], [rest > 0 ? 1 : 0, rest]].filter(([count]) => count > 0);
  const total = { value: 0, low: 0, high: 0 };
  for (const [count, size] of parts) {
    const step = predictStep(data, model, layers, size, activation, optimizer);
    if (typeof step === "string") return step;
    for (const end of Object.keys(total)) total[end] += count * step.time[end];
  }
  return total;
}
