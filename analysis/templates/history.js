"use strict";
// Everything shown is put in as text or as attributes of elements made here: nothing in the data can become markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const cards = document.getElementById("cards"), tip = document.getElementById("tip"), form = document.getElementById("filters");
  const SVG = "http://www.w3.org/2000/svg", PAGE = 60, LEFT = 52, RIGHT = 12, TOP = 28, BOTTOM = 22;
  const KINDS = { time: "time", exponents: "exponents", memory: "memory", costs: "overhead and costs", law: "winning law", machine: "machine" };

  const make = (tag, attributes = {}, ...children) => {
    const found = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) found.setAttribute(key, value);
    found.append(...children);
    return found;
  };
  const draw = (tag, attributes = {}, text) => {
    const found = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) found.setAttribute(key, value);
    if (text !== undefined) found.textContent = text;
    return found;
  };

  // --- words for numbers -------------------------------------------------------------------------------------------
  const plain = (value, digits = 4) => {
    const size = Math.abs(value);
    if (size && (size < 1e-3 || size >= 1e6)) return value.toExponential(digits - 2).replace("e+", "e");
    return String(Number(value.toPrecision(digits)));
  };
  const told = (value, unit, digits = 4) => {
    if (value === null) return "–";
    const scales = { s: [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]], bytes: [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [1024, "KiB"], [1, "bytes"]] }[unit];
    if (!scales) return (plain(value, digits) + " " + unit).trim();
    const [size, name] = scales.find(([size]) => value >= size) || scales[scales.length - 1];
    return plain(value / size, digits) + " " + name;
  };
  const signed = (share, log, digits = 1) => {
    const sign = share < 0 ? "−" : "+";
    return log ? sign + Math.abs(100 * share).toFixed(digits) + " %" : sign + Math.abs(share).toFixed(3);
  };
  const short = (commit) => commit[0].slice(0, 10) + (commit[3] ? "+" : "");
  const commitOf = (series, i) => data.machines[series.m].commits[placeOf(series, i)];
  const placeOf = (series, i) => (Array.isArray(series.x) ? series.x[i] : series.x + i);
  const address = (id) => (data.url ? data.url.replaceAll("{id}", encodeURIComponent(id)) : "");
  const colour = (series, size) => (series.neutral ? "neutral" : size > 0 ? "worse" : "better");

  // --- filters -----------------------------------------------------------------------------------------------------
  const choices = (name, values, labels = {}) => {
    const select = form.elements[name];
    select.append(make("option", { value: "" }, "all"));
    for (const value of values) select.append(make("option", { value }, labels[value] || value));
  };
  const distinct = (key) => [...new Set(data.series.flatMap(key))].filter(Boolean).sort();
  choices("kind", Object.keys(KINDS).filter((kind) => data.series.some((s) => s.kind === kind)), KINDS);
  choices("impl", distinct((s) => s.impl));
  choices("phase", distinct((s) => s.phase));
  choices("axis", distinct((s) => s.axis.split(",")));
  choices("m", data.machines.map((m, i) => String(i)), Object.fromEntries(data.machines.map((m, i) => [String(i), m.name + " (" + m.id + ")"])));
  form.elements.m.parentElement.hidden = data.machines.length < 2;
  if (data.machines.length < 2) form.elements.m.parentElement.style.display = "none";

  const matches = (s) => {
    const wanted = (name) => form.elements[name].value;
    return (!wanted("kind") || s.kind === wanted("kind")) && (!wanted("impl") || s.impl === wanted("impl")) &&
      (!wanted("phase") || s.phase === wanted("phase")) && (!wanted("axis") || s.axis.split(",").includes(wanted("axis"))) &&
      (!wanted("m") || s.m === Number(wanted("m"))) && s.cell.toLowerCase().includes(wanted("cell").trim().toLowerCase()) &&
      (!form.elements.steps.checked || s.steps.length > 0);
  };
  let chosen = [], limit = PAGE;
  const resized = new ResizeObserver((entries) => {
    for (const entry of entries) if (entry.target.drawn && Math.abs(entry.target.drawn - entry.contentRect.width) > 1) chart(entry.target);
  });

  const show = () => {
    resized.disconnect();
    hide();
    chosen = data.series.filter(matches);
    const steps = chosen.filter((s) => s.steps.length).length;
    const machines = new Set(chosen.map((s) => s.m)).size;
    document.getElementById("shown").textContent = chosen.length + " of " + data.series.length + " series, " + steps + " with steps" +
      (machines > 1 ? "; of " + machines + " machine classes, each with series of its own" : "") + ".";
    cards.replaceChildren(...chosen.slice(0, limit).map(card));
    if (chosen.length > limit) {
      const more = make("button", { id: "more", type: "button" }, "Show " + Math.min(PAGE, chosen.length - limit) + " more of " + (chosen.length - limit));
      more.addEventListener("click", () => { limit += PAGE; show(); });
      cards.append(more);
    }
    cards.querySelectorAll(".chart").forEach(chart);
  };
  form.addEventListener("input", () => { limit = PAGE; show(); });
  form.addEventListener("submit", (event) => event.preventDefault());

  // --- a card ------------------------------------------------------------------------------------------------------
  const lineOf = (series) => {
    const lines = [];
    for (const step of series.steps.slice(-3).reverse()) {
      const item = make("li", {}, make("span", { class: colour(series, step.value) }, signed(step.value, series.log)),
        " [" + signed(step.low, series.log) + ", " + signed(step.high, series.log) + "] after ", place(step.last), " until ", place(step.first));
      if (step.unmeasured) item.append(", " + step.unmeasured + " not measured");
      if (step.versions.length) item.append(", with " + step.versions.join(", "));
      lines.push(item);
    }
    if (series.steps.length > 3) lines.push(make("li", { class: "muted" }, "and " + (series.steps.length - 3) + " earlier"));
    if (series.watched) lines.push(make("li", { class: "watched" }, "watching: " + signed(series.watched.value, series.log) + " since ", place(series.watched.first)));
    if (series.drift) lines.push(make("li", { class: "muted" }, "drift: " + signed(series.drift.value, series.log) + " [" + signed(series.drift.low, series.log) + ", " + signed(series.drift.high, series.log) + "] from first to last"));
    return lines;
  };
  const place = (found) => {
    const name = make("code", {}, found.short), url = address(found.commit);
    return url ? make("a", { href: url, rel: "noreferrer", title: found.commit + ", " + found.time }, name) : name;
  };
  const card = (series) => {
    const several = data.machines.length > 1 ? ", " + data.machines[series.m].name : "";
    const title = make("h3", {}, series.name, make("small", {}, series.q + several));
    const latest = series.text !== undefined ? series.text : told(series.v[series.n - 1], series.unit);
    const head = make("div", { class: "head" }, title, make("span", { class: "latest" }, latest));
    const found = make("article", { class: "card", id: "series-" + series.id }, head);
    if (series.text !== undefined) return lawCard(series, found);
    const svg = draw("svg", { class: "chart", tabindex: "0", role: "img", "aria-label": summary(series, latest) });
    svg.series = series;
    found.append(svg, make("ul", { class: "what" }, ...lineOf(series)));
    resized.observe(svg);
    return found;
  };
  const lawCard = (series, found) => {
    const items = series.switches.slice(-4).reverse().map((s) => make("li", {}, "from “" + s.from + "” to “" + s.to + "” at ", place(s.first)));
    const count = series.switches.length;
    items.push(make("li", { class: "muted" }, count ? "changed " + count + " time" + (count > 1 ? "s" : "") + " in " + series.n + " commits" : "the same in all " + series.n + " commits"));
    found.append(make("ul", { class: "what" }, ...items));
    found.classList.add("law");
    return found;
  };
  const summary = (series, latest) => series.name + ", " + series.q + ": " + series.n + " commits, latest " + latest + "; " +
    (series.steps.length ? series.steps.map((s) => "step of " + signed(s.value, series.log) + " until " + s.first.short).join(", ") : "no step") +
    ". Arrow keys move along the commits, Enter opens one.";

  // --- a chart -----------------------------------------------------------------------------------------------------
  const ends = (series) => {
    const spikes = new Set(series.spikes), spread = [];
    const reach = (v, e) => (series.log ? [v * Math.exp(-e), v * Math.exp(e)] : [v - e, v + e]);
    series.v.forEach((v, i) => { if (v !== null && !spikes.has(i)) spread.push(...reach(v, series.e[i] || 0)); });
    for (const run of series.line) for (const [, v] of run) spread.push(v);
    spread.sort((a, b) => a - b);
    if (!spread.length) return [0, 1];
    const cut = Math.floor(spread.length * 0.004);
    let low = spread[cut], high = spread[spread.length - 1 - cut];
    const least = series.log ? 0.02 * Math.abs(high) : 0.02;
    if (high - low < least) { const middle = (low + high) / 2; low = middle - least / 2; high = middle + least / 2; }
    const pad = 0.08 * (high - low);
    return [low > 0 ? Math.max(low - pad, low * 0.5) : low - pad, high + pad];
  };
  const ticks = (low, high, count) => {
    const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 2.5, 5, 10].find((m) => m * power >= raw);
    const found = [];
    for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-9; t += step) found.push(Number(t.toPrecision(12)));
    return found;
  };
  const scaled = (low, high, unit) => {  // one unit for the whole axis
    const scales = { s: [1, 1e-3, 1e-6, 1e-9], bytes: [2 ** 30, 2 ** 20, 1024, 1] }[unit];
    const names = { s: ["s", "ms", "µs", "ns"], bytes: ["GiB", "MiB", "KiB", "bytes"] }[unit];
    if (!scales) return [1, unit];
    let i = scales.findIndex((size) => high >= size);
    if (i < 0) i = scales.length - 1;
    return [scales[i], names[i]];
  };

  function chart(svg) {
    const series = svg.series, box = svg.getBoundingClientRect(), width = box.width, height = box.height;
    if (!width) return;
    svg.drawn = width;
    svg.setAttribute("viewBox", "0 0 " + width + " " + height);
    const commits = data.machines[series.m].commits;
    const first = placeOf(series, 0), last = placeOf(series, series.n - 1);
    const [low, high] = ends(series);
    const x = (place) => LEFT + (last > first ? (place - first) / (last - first) : 0.5) * (width - LEFT - RIGHT);
    const y = (v) => TOP + (1 - (v - low) / (high - low)) * (height - TOP - BOTTOM);
    const kept = (v) => Math.max(TOP - 2, Math.min(height - BOTTOM + 2, y(v)));
    const parts = [];
    const [size, name] = scaled(low, high, series.unit);
    for (const t of ticks(low / size, high / size, 3)) {
      parts.push(draw("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(t * size), y2: y(t * size) }));
      parts.push(draw("text", { x: LEFT - 6, y: y(t * size) + 4, "text-anchor": "end" }, plain(t, 5)));
    }
    if (name) parts.push(draw("text", { x: 2, y: 14 }, name));
    dates(parts, commits, first, last, x, width, height);
    for (const step of series.steps) {
      const left = x(placeOf(series, step.before)), right = x(placeOf(series, step.after));
      const middle = (left + right) / 2, span = Math.max(right - left, 4);
      parts.push(draw("rect", { class: "band " + colour(series, step.value), x: middle - span / 2, y: TOP - 8, width: span, height: height - TOP - BOTTOM + 10 }));
    }
    const spikes = new Set(series.spikes), since = series.watched ? series.watched.since : series.n;
    let bars = "", dots = "";
    const late = [];
    series.v.forEach((v, i) => {
      if (v === null) return;
      const at = x(placeOf(series, i)).toFixed(1), e = series.e[i] || 0;
      if (e) bars += "M" + at + " " + kept(series.log ? v * Math.exp(-e) : v - e).toFixed(1) + "V" + kept(series.log ? v * Math.exp(e) : v + e).toFixed(1);
      if (spikes.has(i)) late.push(spike(Number(at), v, kept(v), v > high ? -1 : v < low ? 1 : 0));
      else if (i >= since) late.push(draw("circle", { class: "waiting", cx: at, cy: kept(v), r: 3.2 }));
      else dots += "M" + at + " " + kept(v).toFixed(1) + "h0";
    });
    parts.push(draw("path", { class: "bars", d: bars }), draw("path", { class: "dots" + (series.n > 120 ? " dense" : ""), d: dots }));
    const line = series.line.map((run) => run.map(([i, v], k) => (k ? "L" : "M") + x(placeOf(series, i)).toFixed(1) + " " + kept(v).toFixed(1)).join("") + (run.length > 1 && run[0][0] === run[run.length - 1][0] ? "h0" : "")).join("");
    parts.push(draw("path", { class: "line", d: line }), ...late);
    let free = -Infinity;
    for (const step of series.steps) {
      const text = signed(step.value, series.log), half = text.length * 3.4;
      const middle = (x(placeOf(series, step.before)) + x(placeOf(series, step.after))) / 2;
      const at = Math.min(Math.max(middle, LEFT + half), width - RIGHT - half);
      if (at - half < free) continue;
      parts.push(draw("text", { class: "halo " + colour(series, step.value), x: at, y: 14, "text-anchor": "middle" }, text));
      free = at + half + 6;
    }
    for (const [i, changed] of data.machines[series.m].versions) {
      if (i < first || i > last) continue;
      const mark = draw("path", { class: "version", d: "M" + x(i) + " " + (height - BOTTOM - 4) + "l4 7h-8z" });
      mark.append(draw("title", {}, changed.join(", ")));
      parts.push(mark);
    }
    svg.replaceChildren(...parts);
    svg.at = { x, kept, height };
    if (!svg.ready) listen(svg);
  }
  const spike = (x, v, y, beyond) => beyond  // an arrow where it lies outside the drawing
    ? draw("path", { class: "hollow", d: "M" + (x - 4) + " " + (y - 2 * beyond) + "h8l-4 " + 6 * beyond + "z" })
    : draw("circle", { class: "hollow", cx: x, cy: y, r: 3 });
  const dates = (parts, commits, first, last, x, width, height) => {
    const count = Math.max(2, Math.floor((width - LEFT) / 130));
    let free = -Infinity;
    for (let k = 0; k < count; k++) {
      const place = Math.round(first + (k / (count - 1)) * (last - first)), at = x(place);
      const anchor = last === first ? "middle" : k === 0 ? "start" : k === count - 1 ? "end" : "middle";
      const start = anchor === "start" ? at : anchor === "end" ? at - 66 : at - 33;
      if (start < free) continue;
      parts.push(draw("text", { x: at, y: height - 5, "text-anchor": anchor }, commits[place][1].slice(0, 10)));
      free = start + 74;
    }
  };

  // --- pointing and keys -------------------------------------------------------------------------------------------
  const listen = (svg) => {
    svg.ready = true;
    const nearest = (event) => {
      const series = svg.series, at = event.clientX - svg.getBoundingClientRect().left;
      let best = 0, distance = Infinity;
      for (let i = 0; i < series.n; i++) {
        const away = Math.abs(svg.at.x(placeOf(series, i)) - at);
        if (away < distance) { best = i; distance = away; }
      }
      return best;
    };
    svg.addEventListener("pointermove", (event) => point(svg, nearest(event)));
    svg.addEventListener("pointerleave", () => { if (document.activeElement !== svg) hide(); });
    svg.addEventListener("click", (event) => open(svg, nearest(event)));
    svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) point(svg, svg.series.n - 1); });
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const i = svg.cursor === undefined ? svg.series.n - 1 : svg.cursor;
      const moves = { ArrowLeft: i - 1, ArrowRight: i + 1, Home: 0, End: svg.series.n - 1, PageUp: i - 10, PageDown: i + 10 };
      if (event.key in moves) point(svg, Math.max(0, Math.min(svg.series.n - 1, moves[event.key])));
      else if (event.key === "Enter" || event.key === " ") open(svg, i);
      else if (event.key === "Escape") hide();
      else return;
      event.preventDefault();
    });
  };
  let marked = null;
  const point = (svg, i, extra) => {
    hide();
    const series = svg.series, commit = commitOf(series, i), v = series.v[i], at = svg.at.x(placeOf(series, i)), down = svg.at.kept(v === null ? 0 : v);
    svg.cursor = i;
    marked = [draw("line", { class: "cursor", x1: at, x2: at, y1: TOP - 4, y2: svg.at.height - BOTTOM + 2 }), draw("circle", { class: "at", cx: at, cy: down, r: 5 })];
    svg.append(...marked);
    const e = series.e[i] || 0;
    const interval = !e ? "" : series.log ? " ± " + (100 * e).toFixed(1) + " %" : " ± " + e.toFixed(3);
    const lines = [make("b", {}, told(v, series.unit, 5) + interval), make("br"), make("code", {}, short(commit)), " " + commit[1].replace("T", " ").replace("Z", "") + (commit[2] ? ", " + commit[2] : "")];
    if (commit[3]) lines.push(", tree not clean");
    if (commit[4] > 1) lines.push(", " + commit[4] + " runs");
    if (series.spikes.includes(i)) lines.push(make("br"), "a spike, not counted as a step");
    if (series.watched && i >= series.watched.since) lines.push(make("br"), "watched: too few commits to call it a step");
    const version = data.machines[series.m].versions.find(([p]) => p === placeOf(series, i));
    if (version) lines.push(make("br"), version[1].join(", "));
    lines.push(make("br"), make("span", { class: "muted" }, extra || (data.url ? "click or Enter opens the commit" : "click or Enter copies the commit's id")));
    tip.replaceChildren(...lines);
    tip.hidden = false;
    const box = svg.getBoundingClientRect(), own = tip.getBoundingClientRect();
    tip.style.left = Math.max(8, Math.min(box.left + at + 14, innerWidth - own.width - 8)) + "px";
    const above = box.top + down - own.height - 14;
    tip.style.top = (above > 8 ? above : box.top + down + 18) + "px";
  };
  const hide = () => {
    tip.hidden = true;
    if (marked) for (const part of marked) part.remove();
    marked = null;
  };
  const open = (svg, i) => {
    const id = commitOf(svg.series, i)[0], url = address(id);
    if (url) { window.open(url, "_blank", "noopener,noreferrer"); return; }
    const told = (done) => point(svg, i, done ? "copied: " + id : id);
    if (navigator.clipboard) navigator.clipboard.writeText(id).then(() => told(true), () => told(false));
    else told(false);
  };
  addEventListener("scroll", () => { if (document.activeElement === null || !document.activeElement.series) hide(); }, { passive: true });

  // --- from the table of steps to a card ---------------------------------------------------------------------------
  const go = (id) => {
    const series = data.series.find((s) => s.id === id);
    if (!series) return;
    if (!matches(series)) form.reset();
    chosen = data.series.filter(matches);
    limit = Math.max(limit, chosen.indexOf(series) + 1);
    show();
    const found = document.getElementById("series-" + id);
    document.querySelectorAll(".lit").forEach((lit) => lit.classList.remove("lit"));
    found.classList.add("lit");
    found.scrollIntoView({ block: "start" });
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-series]");
    if (!link) return;
    event.preventDefault();
    history.replaceState(null, "", link.getAttribute("href"));
    go(Number(link.dataset.series));
  });
  show();
  const wanted = /^#series-(\d+)$/.exec(location.hash);
  if (wanted) go(Number(wanted[1]));
})();
