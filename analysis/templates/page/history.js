"use strict";
// The history of a benchmark: every series over its commits, with steps, intervals, and links to the commits.

const CARDS = 60;
const HISTORY_KINDS = { "time+exponents": "times with their exponents", time: "time", exponents: "exponents", memory: "memory", costs: "overhead and costs", law: "winning law", machine: "machine" };

/** @param {number|null} value @param {string} unit */
function valueText(value, unit) {
  if (!known(value)) return "–";
  if (unit === "s") return secondsText(value);
  if (unit === "bytes") return bytesText(value);
  return `${Number(value.toPrecision(4))} ${unit}`.trim();
}

/** A change: +3.0 % where changes are factors, else +0.030. */
function changeText(share, log) {
  const sign = share < 0 ? "−" : "+";
  return log ? `${sign}${Math.abs(100 * share).toFixed(1)}\u00a0%` : `${sign}${Math.abs(share).toFixed(3)}`;
}

/** better, worse or neutral, as a word and as a colour of the style sheet. */
function sideOf(series, size) {
  return series.neutral ? "neutral" : size > 0 ? "worse" : "better";
}

/** Where the i-th value of a series stands among its machine's commits. */
function placeOf(series, i) {
  return Array.isArray(series.x) ? series.x[i] : series.x + i;
}

/** Where a commit can be seen; empty where nowhere. */
function addressOfCommit(data, id) {
  return data.url ? data.url.replaceAll("{id}", encodeURIComponent(id)) : "";
}

/** A commit's short name, as a link where it can be seen. */
function commitLink(data, found) {
  const name = make("code", {}, found.short);
  const url = addressOfCommit(data, found.commit);
  return url ? make("a", { href: url, rel: "noreferrer", title: `${found.commit}, ${found.time}` }, name) : name;
}

/** The range of a chart: values and their intervals, without spikes and the wildest four in a thousand. */
function rangeOf(series) {
  const spikes = new Set(series.spikes);
  const spread = series.line.flatMap((run) => run.map(([, v]) => v));
  series.v.forEach((v, i) => { if (v !== null && !spikes.has(i)) spread.push(...endsAt(series, i)); });
  if (!spread.length) return [0, 1];
  spread.sort((a, b) => a - b);
  const cut = Math.floor(spread.length * 0.004);
  let [low, high] = [spread[cut], spread[spread.length - 1 - cut]];
  const least = series.log ? 0.02 * Math.abs(high) || 1 : 0.02;
  if (high - low < least) [low, high] = [(low + high - least) / 2, (low + high + least) / 2];
  const pad = 0.08 * (high - low);
  return [low > 0 ? Math.max(low - pad, low / 2) : low - pad, high + pad];
}

/** A value's 95 % interval. */
function endsAt(series, i) {
  const [v, e] = [series.v[i], series.e[i] || 0];
  return series.log ? [v * Math.exp(-e), v * Math.exp(e)] : [v - e, v + e];
}

/** The values of a series as points within a range; what lies outside stands on its edge. */
function historyPoints(data, series, [low, high]) {
  const kept = (v) => Math.min(high, Math.max(low, v));
  const spikes = new Set(series.spikes);
  const since = series.watched ? series.watched.since : series.n;
  return series.v.flatMap((v, i) => {
    if (v === null) return [];
    const kind = spikes.has(i) ? (v > high ? "above" : v < low ? "below" : "spike") : i >= since ? "watched" : "commit";
    const [from, to] = series.e[i] ? endsAt(series, i).map(kept) : [null, null];
    return [{ id: i, x: placeOf(series, i), y: kept(v), low: from, high: to, kind, series: series.name, line: 0, name: `${data.machines[series.m].commits[placeOf(series, i)][0].slice(0, 10)}: ${valueText(v, series.unit)}` }];
  });
}

/** Those of a row of texts that do not stand on one before. */
function apart(texts, pixel) {
  let free = -Infinity;
  return texts.filter((one) => {
    const half = one.text.length * 3.6;
    if (pixel(one) - half < free) return false;
    free = pixel(one) + half + 6;
    return true;
  });
}

/** The chart of a series, for Vega-Lite. */
function historySpec(data, series, points, [low, high], width) {
  const machine = data.machines[series.m];
  const [first, last] = [placeOf(series, 0), placeOf(series, series.n - 1)];
  const count = Math.max(2, Math.floor(width / 130));
  const ticks = [...new Set(Array.from({ length: count }, (_, k) => Math.round(first + (k / (count - 1)) * (last - first))))];
  const dates = Object.fromEntries(ticks.map((place) => [place, machine.commits[place][1].slice(0, 10)]));
  const edge = first === last ? 1 : 0.4;
  const x = { field: "x", type: "quantitative", title: null, scale: { domain: [first - edge, last + edge], nice: false, zero: false }, axis: { values: ticks, labelExpr: "dates[datum.value]", labelOverlap: true, grid: false, labelFlush: true } };
  const y = { field: "y", type: "quantitative", title: null, scale: { domain: [low, high], nice: false, zero: false }, axis: { ...ticksOf({ s: secondsText, bytes: bytesText }[series.unit] ?? short), tickCount: 4 } };
  const top = { value: -8 };
  const steps = series.steps.map((step) => ({ x: placeOf(series, step.before), x2: placeOf(series, step.after), middle: (placeOf(series, step.before) + placeOf(series, step.after)) / 2, colour: `var(--${sideOf(series, step.value)})`, text: changeText(step.value, series.log) }));
  const named = apart(steps, (step) => ((step.middle - first) / Math.max(last - first, 1)) * (width - 50));
  const levels = series.line.flatMap((run, line) => run.map(([i, v]) => ({ x: placeOf(series, i), y: Math.min(high, Math.max(low, v)), line })));
  const versions = machine.versions.filter(([place]) => place >= first && place <= last).map(([place, changed]) => ({ x: place, name: changed.join(", ") }));
  const own = { scale: null, type: "nominal", legend: null };
  const lit = (then, otherwise) => ({ condition: { test: "datum.id === lit", value: then }, ...otherwise });
  const kinds = ["commit", "watched", "spike", "above", "below"];
  const byKind = (range) => ({ field: "kind", type: "nominal", legend: null, scale: { domain: kinds, range } });
  const size = series.n > 120 ? 12 : 26;
  const layer = [
    ...(steps.length ? [{ data: { values: steps }, mark: { type: "rect", opacity: 0.28, aria: false }, encoding: { x, x2: { field: "x2" }, color: { field: "colour", ...own } } },
      { data: { values: steps }, mark: { type: "rule", opacity: 0.6, strokeWidth: 2, aria: false }, encoding: { x: { ...x, field: "middle" }, color: { field: "colour", ...own } } }] : []),
    ...(points.some((point) => point.low !== null) ? [{ transform: [{ filter: "datum.low != null" }], mark: { type: "rule", opacity: 0.3, strokeWidth: 1.4, color: "var(--point)", aria: false }, encoding: { x, y: { ...y, field: "low" }, y2: { field: "high" } } }] : []),
    { mark: { type: "point", filled: true }, encoding: { x, y, color: byKind(["var(--point)", "var(--watch)", "var(--paper)", "var(--paper)", "var(--paper)"]), shape: byKind(["circle", "circle", "circle", "triangle-up", "triangle-down"]), stroke: lit("var(--ink)", byKind(["transparent", "transparent", "var(--muted)", "var(--muted)", "var(--muted)"])), strokeWidth: lit(2.5, { value: 1.3 }), size: lit(120, { value: size }), description: { field: "name" } } },
    ...(levels.length ? [{ data: { values: levels }, mark: { type: "line", strokeWidth: 2, color: "var(--level)", aria: false }, encoding: { x, y, detail: { field: "line" } } }] : []),
    ...(steps.length ? [{ data: { values: named }, mark: { type: "text", fontSize: 12, fontWeight: 600, aria: false }, encoding: { x: { ...x, field: "middle" }, y: top, text: { field: "text" }, color: { field: "colour", ...own } } }] : []),
    ...(versions.length ? [{ data: { values: versions }, mark: { type: "point", shape: "triangle-up", filled: true, size: 40, color: "var(--muted)", aria: false }, encoding: { x, y: { value: { expr: "height - 5" } } } }] : []),
  ];
  return { height: 160, params: [{ name: "lit", value: -1 }, { name: "dates", value: dates }], data: { name: "cells", values: points }, layer };
}

/** A point in words. */
function pointTold(data, series, i) {
  const machine = data.machines[series.m];
  const [id, time, branch, dirty, runs] = machine.commits[placeOf(series, i)];
  const e = series.e[i] || 0;
  const interval = !e ? "" : series.log ? ` ± ${(100 * e).toFixed(1)} %` : ` ± ${e.toFixed(3)}`;
  const version = machine.versions.find(([place]) => place === placeOf(series, i));
  return [
    ["", valueText(series.v[i], series.unit) + interval],
    ["commit", `${id.slice(0, 10)}${dirty ? ", tree not clean" : ""}`],
    ["when", `${time.replace("T", " ").replace("Z", "")}${branch ? `, ${branch}` : ""}${runs > 1 ? `, ${runs} runs` : ""}`],
    ...(series.spikes.includes(i) ? [["a spike", "not counted as a step"]] : []),
    ...(series.watched && i >= series.watched.since ? [["watched", "too few commits to call it a step"]] : []),
    ...(version ? [["with", version[1].join(", ")]] : []),
    [data.url ? "click or Enter" : "click or Enter copies", data.url ? "opens the commit" : "the commit's id"],
  ];
}

/** Steps, what is watched, and drift, as a list. */
function whatHappened(data, series) {
  const change = (found) => `${changeText(found.value, series.log)}`;
  const between = (found) => ` [${changeText(found.low, series.log)}, ${changeText(found.high, series.log)}]`;
  const lines = series.steps.slice(-3).reverse().map((step) => {
    const item = make("li", {}, make("span", { class: sideOf(series, step.value) }, change(step)), `${between(step)} after `, commitLink(data, step.last), " until ", commitLink(data, step.first));
    if (step.unmeasured) item.append(`, ${step.unmeasured} not measured`);
    if (step.versions.length) item.append(`, with ${step.versions.join(", ")}`);
    return item;
  });
  if (series.steps.length > 3) lines.push(make("li", { class: "muted" }, `and ${series.steps.length - 3} earlier`));
  if (series.watched) lines.push(make("li", { class: "watched" }, `watching: ${change(series.watched)} since `, commitLink(data, series.watched.first)));
  if (series.drift) lines.push(make("li", { class: "muted" }, `drift: ${change(series.drift)}${between(series.drift)} from first to last`));
  return lines;
}

/** The card of a law's name: when it changed. */
function lawHappened(data, series) {
  const items = series.switches.slice(-4).reverse().map((s) => make("li", {}, `from “${s.from}” to “${s.to}” at `, commitLink(data, s.first)));
  const count = series.switches.length;
  items.push(make("li", { class: "muted" }, count ? `changed ${count} time${count > 1 ? "s" : ""} in ${series.n} commits` : `the same in all ${series.n} commits`));
  return items;
}

/** One series: its name, its latest value, its chart, and what happened. */
function cardOf(data, series, waiting) {
  const textual = series.text !== undefined;
  const several = data.machines.length > 1 ? `, ${data.machines[series.m].name}` : "";
  const latest = textual ? series.text : valueText(series.v[series.n - 1], series.unit);
  const title = make("h3", {}, series.name, make("small", {}, series.q + several));
  const card = make("article", { class: textual ? "card law" : "card", id: `series-${series.id}` }, make("div", { class: "head" }, title, make("span", { class: "latest" }, latest)));
  if (textual) {
    card.append(make("ul", { class: "what" }, ...lawHappened(data, series)));
    return card;
  }
  const steps = series.steps.length ? series.steps.map((s) => `step of ${changeText(s.value, series.log)} until ${s.first.short}`).join(", ") : "no step";
  const told = `${series.name}, ${series.q}: ${series.n} commits, latest ${latest}; ${steps}.`;
  const place = make("div", { class: "chart", tabindex: "0", role: "application", "aria-label": `${told} Arrow keys move along the commits, Enter opens one.` });
  place.series = series;
  place.described = told;
  place.byX = true;
  readable(place, (i) => openCommit(data, series, i));
  card.append(place, make("ul", { class: "what" }, ...whatHappened(data, series)));
  waiting.observe(place);
  return card;
}

/** See a commit; where there is nowhere to see it, copy its id. */
async function openCommit(data, series, i) {
  const id = data.machines[series.m].commits[placeOf(series, i)][0];
  const url = addressOfCommit(data, id);
  if (url) window.open(url, "_blank", "noopener,noreferrer");
  else say(`Commit ${id} ${await copyText(id, "commit.txt")}`);
}

/** Draw a card's chart. */
function drawCard(data, place) {
  const range = rangeOf(place.series);
  const points = historyPoints(data, place.series, range);
  place.points = points.map((point) => ({ ...point, told: () => pointTold(data, place.series, point.id) }));
  return points.length ? drawInto(place, historySpec(data, place.series, points, range, place.clientWidth), place.described) : null;
}

/** Whether a series fits what is chosen. */
function fitsChoice(series, chosen) {
  const kind = chosen.kind === "time+exponents" ? ["time", "exponents"].includes(series.kind) : !chosen.kind || series.kind === chosen.kind;
  return kind && (!chosen.impl || series.impl === chosen.impl) && (!chosen.phase || series.phase === chosen.phase)
    && (!chosen.axis || series.axis.split(",").includes(chosen.axis)) && (!chosen.m || series.m === Number(chosen.m))
    && series.cell.toLowerCase().includes(chosen.cell.trim().toLowerCase()) && (chosen.steps !== "1" || series.steps.length > 0);
}

/** The series of a choice, in the order of the page; times and exponents of one implementation stand together. */
function chosenSeries(data, chosen) {
  const found = data.series.filter((series) => fitsChoice(series, chosen));
  if (chosen.kind !== "time+exponents") return found;
  const group = (series) => `${series.m} ${series.impl} ${series.phase}`;
  const groups = [...new Set(found.map(group))];
  const rank = (series) => groups.indexOf(group(series)) * 2 + (series.kind === "exponents" ? 0 : 1);
  return found.map((series, i) => [rank(series), i, series]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map(([, , series]) => series);
}

function startHistory() {
  const data = pageData();
  const cards = byId("cards");
  let limit = CARDS;
  const waiting = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      waiting.unobserve(target);
      drawCard(data, target);
    }
  }, { rootMargin: "400px" });
  const distinct = (of) => [...new Set(data.series.flatMap(of))].filter(Boolean).sort();
  const all = (values, text = (value) => value) => [["", "all"], ...values.map((value) => [value, text(value)])];
  const kinds = Object.keys(HISTORY_KINDS).filter((kind) => data.series.some((s) => s.kind === kind) || (kind === "time+exponents" && data.series.some((s) => s.kind === "exponents")));
  const asked = { kind: all(kinds, (kind) => HISTORY_KINDS[kind]), impl: all(distinct((s) => s.impl)), phase: all(distinct((s) => s.phase)), axis: all(distinct((s) => s.axis.split(","))), m: all(data.machines.map((_, i) => String(i)), (i) => `${data.machines[i].name} (${data.machines[i].id})`) };
  for (const [name, choices] of Object.entries(asked)) {
    fillSelect(byId(`filter-${name}`), choices);
    byId(`filter-${name}`).closest("label").hidden = choices.length < 3;
  }
  for (const name of [...Object.keys(asked), "cell", "steps"]) bind(byId(`filter-${name}`), name);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  const show = () => {
    waiting.disconnect();
    cards.querySelectorAll(".chart").forEach((place) => { if (place.chart) place.chart.finalize(); });
    const chosen = chosenSeries(data, state);
    const steps = chosen.filter((s) => s.steps.length).length;
    const machines = new Set(chosen.map((s) => s.m)).size;
    byId("shown").textContent = `${chosen.length} of ${data.series.length} series, ${steps} with steps${machines > 1 ? `; of ${machines} machine classes, each with series of its own` : ""}.`;
    cards.replaceChildren(...chosen.slice(0, limit).map((series) => cardOf(data, series, waiting)));
    if (chosen.length > limit) {
      const more = make("button", { id: "more", type: "button" }, `Show ${Math.min(CARDS, chosen.length - limit)} more of ${chosen.length - limit}`);
      more.addEventListener("click", () => { limit += CARDS; show(); });
      cards.append(more);
    }
    drawings.started = true;
  };
  const go = (id) => {
    const series = data.series.find((s) => s.id === id);
    if (!series) return;
    limit = Math.max(limit, chosenSeries(data, state).indexOf(series) + 1);
    show();
    const card = byId(`series-${id}`);
    if (!card) return;
    document.querySelectorAll(".lit").forEach((lit) => lit.classList.remove("lit"));
    card.classList.add("lit");
    card.scrollIntoView({ block: "start" });
    card.tabIndex = -1;
    card.focus({ preventScroll: true });
  };
  watchers.push((changed) => {
    if ([...changed].some((name) => name !== "series")) {
      limit = CARDS;
      show();
    }
    if (changed.has("series") && state.series) go(Number(state.series));
  });
  for (const link of document.querySelectorAll("a[data-series]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const series = data.series.find((s) => s.id === Number(link.dataset.series));
      const wanted = { ...state, series: "" };
      takeState(wanted);
      choose(series && fitsChoice(series, state) ? { series: link.dataset.series } : { ...usualState, series: link.dataset.series });
    });
  }
  prepareTables();
  followWidth(() => [...cards.querySelectorAll(".chart")]);
  startState({ kind: "", impl: "", phase: "", axis: "", m: "", cell: "", steps: "0", series: "" });
  const old = /^#series-(\d+)$/.exec(location.hash);
  if (old) go(Number(old[1]));
}

startHistory();
