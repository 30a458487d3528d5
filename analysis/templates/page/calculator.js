"use strict";
// The calculator: what backprop-bench predict says, in the page.

/** "64-128-10" or with commas; null for what is no network. */
function layersOf(text) {
  const found = text.split(/[-,\s]+/).filter(Boolean).map(Number);
  return found.length >= 2 && found.every((units) => Number.isSafeInteger(units) && units > 0) ? found : null;
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
function startCalculator(data) {
  const models = data.models.filter(Boolean);
  const activations = new Set(models.flatMap((model) => Object.keys(model.activations)));
  byId("calculate-activations").replaceChildren(...[...activations, "horner-1", "horner-4", "horner-16"].sort(byNumber).map((name) => make("option", { value: name })));
  const optimizers = [...new Set(models.flatMap((model) => [model.optimizer, ...Object.keys(model.updates)]))];
  fillSelect(byId("calculate-optimizer"), optimizers.map((name) => [name, name]));
  const names = { layers: "layers", batch: "batch", activation: "function", optimizer: "by_optimizer", rows: "rows" };
  for (const [id, name] of Object.entries(names)) bind(byId(`calculate-${id}`), name);
  const mine = Object.values(names);
  watchers.push((changed) => { if (mine.some((name) => changed.has(name))) showCalculated(data); });
}

function showCalculated(data) {
  const layers = layersOf(state.layers);
  const [n, rows] = [Number(state.batch), Number(state.rows)];
  const warnings = byId("calculate-warnings");
  const wrong = !layers ? "Layers are two or more positive whole numbers, inputs first: 64-128-128-10." : !(n >= 1 && rows >= 1) ? "n and rows are positive whole numbers." : "";
  if (wrong) {
    byId("calculate-rows-told").replaceChildren(make("p", { class: "wrong", role: "alert" }, wrong));
    warnings.hidden = true;
    return;
  }
  const found = calculated(data, layers, n, state.function, state.by_optimizer, rows);
  const told = found.filter((one) => one.step).sort((a, b) => a.step.time.value - b.step.time.value);
  showTable(byId("calculate-rows-told"), {
    caption: `Layers ${layers.join("-")}, n = ${countText(n)}, ${state.function}, ${state.by_optimizer}; an epoch of ${countText(rows)} rows in batches of ${countText(n)}, steps alone. 95 % intervals for one new measurement.`,
    columns: ["implementation", "time of a step", "time of an epoch", "peak memory of a step", "binds", "law"],
    rows: told.map(({ one, step, epoch }) => [one.name, intervalOf(step.time, secondsText), typeof epoch === "string" ? epoch : intervalOf(epoch, secondsText), intervalOf(step.memory, bytesText), make("span", {}, `${step.binding} (`, numberOf(step.floors[step.binding] / step.time.value, percentText), ")"), step.law]),
    numbers: [1, 2, 3],
  });
  const notes = [
    ...told.filter(({ step }) => step.beyond.length).map(({ one, step }) => `${one.name} is extrapolated: ${listText(step.beyond)}.`),
    ...found.filter((one) => one.reason).map(({ one, reason }) => `${one.name}: ${reason}.`),
  ];
  warnings.hidden = !notes.length;
  warnings.replaceChildren(...notes.map((text) => make("li", {}, text)));
}
