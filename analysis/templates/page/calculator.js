"use strict";
// The calculator: what backprop-bench predict says, in the page.

/** The largest network that is calculated. */
const MOST = { layers: 100, units: 1e6, weights: 1e12 };

/** "64-128-10" or with commas. */
function layersOf(text) {
  return text.split(/[-,\s]+/).filter(Boolean).map(Number);
}

/** What is wrong with layers; empty where nothing is. */
function wrongLayers(text) {
  const found = layersOf(text);
  const whole = /^[\d\s,-]+$/.test(text) && found.every((units) => units >= 1);
  if (!whole || found.length < 2 || found.length > MOST.layers) return `Layers: 2 to ${countText(MOST.layers)} positive whole numbers, inputs first, as in 64-128-128-10.`;
  const large = found.find((units) => units > MOST.units);
  if (large) return `Layers: at most ${countText(MOST.units)} units each, not ${countText(large)}.`;
  const weights = found.slice(1).reduce((sum, units, i) => sum + units * found[i], 0);
  return weights <= MOST.weights ? "" : `Layers: at most ${countText(MOST.weights)} weights in all, not ${countText(weights)}.`;
}

/** Activations to choose from: those that the run measured, and every other horner-k, whose p a law prices. */
function fillActivations(select, measured) {
  const others = Array.from({ length: 64 }, (_, k) => `horner-${k + 1}`).filter((name) => !measured.includes(name));
  const group = (label, names) => make("optgroup", { label }, ...names.map((name) => make("option", { value: name }, name)));
  select.replaceChildren(group("measured in this run", measured), group("not measured, p = 4k by the laws", others));
}

/** What to know of an activation that the run did not measure; empty where it did. */
function unmeasuredTold(name, measured) {
  if (measured.includes(name)) return "";
  const known_ = measured.filter((one) => one.startsWith("horner-")).map((one) => 4 * Number(one.slice(7)));
  const seen = known_.length ? `; p from ${Math.min(...known_)} to ${Math.max(...known_)} was` : "";
  return `${name} was not measured: its p = ${4 * Number(name.slice(7))} is priced by the laws${seen}.`;
}

/** Every series' prediction, or why there is none. */
function calculated(data, layers, n, activation, optimizer, rows) {
  return data.series.map((one, place) => {
    const model = data.models[place];
    const step = model ? predictStep(data, model, layers, n, activation, optimizer) : "no law of its step could be chosen";
    if (typeof step === "string") return { one, reason: step };
    return { one, step, epoch: predictEpoch(data, model, layers, n, activation, optimizer, rows) };
  });
}

/** The section and its controls. */
function startCalculator(data, rows) {
  const models = data.models.filter(Boolean);
  const measured = [...new Set(rows.filter((row) => row.phase === "step").map((row) => row.activation))].sort(byNumber);
  fillActivations(byId("calculate-activation"), measured);
  const optimizers = [...new Set(models.flatMap((model) => [model.optimizer, ...Object.keys(model.updates)]))];
  fillSelect(byId("calculate-optimizer"), optimizers.map((name) => [name, name]));
  const names = { layers: "layers", batch: "batch", activation: "function", optimizer: "by_optimizer", rows: "rows" };
  for (const [id, name] of Object.entries(names)) bind(byId(`calculate-${id}`), name, id === "layers" ? wrongLayers : undefined);
  const mine = Object.values(names);
  watchers.push((changed) => { if (mine.some((name) => changed.has(name))) showCalculated(data, measured); });
}

function showCalculated(data, measured) {
  const layers = layersOf(state.layers);
  const [n, rows] = [Number(state.batch), Number(state.rows)];
  const warnings = byId("calculate-warnings");
  const found = calculated(data, layers, n, state.function, state.by_optimizer, rows);
  const told = found.filter((one) => one.step).sort((a, b) => a.step.time.value - b.step.time.value);
  showTable(byId("calculate-rows-told"), {
    caption: `Layers ${layers.join("-")}, n = ${countText(n)}, ${state.function}, ${state.by_optimizer}; an epoch of ${countText(rows)} rows in batches of ${countText(n)}, steps alone. 95 % intervals for one new measurement.`,
    columns: ["implementation", "time of a step", "time of an epoch", "peak memory of a step", "binds", "law"],
    rows: told.map(({ one, step, epoch }) => [one.name, intervalOf(step.time, secondsText), typeof epoch === "string" ? epoch : intervalOf(epoch, secondsText), intervalOf(step.memory, bytesText), make("span", {}, `${step.binding} (`, numberOf(step.floors[step.binding] / step.time.value, percentText), ")"), step.law]),
    numbers: [1, 2, 3],
  });
  const notes = [
    ...beyondTold(told.map(({ one, step }) => ({ name: one.name, beyond: step.beyond }))),
    unmeasuredTold(state.function, measured),
    ...found.filter((one) => one.reason).map(({ one, reason }) => `${one.name}: ${reason}.`),
  ].filter(Boolean);
  warnings.hidden = !notes.length;
  warnings.replaceChildren(...notes.map((text) => make("li", {}, text)));
}
