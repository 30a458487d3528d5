"use strict";
// The few things done to the document.  Text from files is only ever set as text.

/** @param {string} id @returns {HTMLElement} */
function byId(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

/** An element with attributes and children (texts or elements). */
function make(tag, attributes = {}, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, String(value));
  found.append(...children);
  return found;
}

/** Fill a <select>; what was chosen stays chosen. @param {[string, string][]} choices value and text */
function fillSelect(select, choices) {
  const before = select.value;
  select.replaceChildren(...choices.map(([value, text]) => {
    const option = make("option", {}, text);
    option.value = value;
    return option;
  }));
  if (choices.some(([value]) => value === before)) select.value = before;
}

/** A table from texts and numbers; the first column names the row. @param {{caption: string, columns: string[], rows: (string|Node)[][], numbers?: number[]}} what */
function tableOf({ caption, columns, rows, numbers = [] }) {
  const kind = (i) => (numbers.includes(i) ? { class: "number" } : {});
  const head = make("tr", {}, ...columns.map((text, i) => make("th", { scope: "col", ...kind(i) }, text)));
  const body = rows.map((row) => make("tr", {}, ...row.map((text, i) =>
    (i ? make("td", kind(i), text) : make("th", { scope: "row" }, text)))));
  return make("table", {}, make("caption", {}, caption), make("thead", {}, head), make("tbody", {}, ...body));
}

/** Show a table in its place, with its button. */
function showTable(place, what) {
  const scroll = make("div", { class: "scroll" }, tableOf(what));
  place.replaceChildren(scroll);
  tellWidth(scroll, what.caption);
  addCsv(scroll);
}

/** A number in words that keeps the number for the table's CSV: what words.Number is in Python. @param {(value: number) => string} form */
function numberOf(value, form, low, high) {
  if (!known(value)) return "–";
  const interval = known(low) && known(high);
  const ends = interval ? [" ", make("span", { class: "interval" }, `[${form(low)},\u00a0${form(high)}]`)] : [];
  const unit = UNITS.get(form);
  return make("data", { value, ...(interval ? { "data-low": low, "data-high": high } : {}), ...(unit ? { "data-unit": unit } : {}) }, form(value), ...ends);
}

/** The same of {value, low, high}. */
function intervalOf(found, form) {
  return numberOf(found.value, form, found.low, found.high);
}

/** "1.1 ms – 1.3 ms", a table cell of its own. */
function endsOf(low, high, form) {
  if (!known(low)) return "–";
  const ends = { low: numberOf(low, form), high: numberOf(high, form) };
  for (const [name, end] of Object.entries(ends)) end.dataset.name = name;
  return make("span", {}, ends.low, " – ", ends.high);
}

/** A cell of CSV (RFC 4180). */
function csvCell(text) {
  return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

/** What an element says, shown or folded. */
function textOf(element) {
  return element.textContent.replace(/[\s\u00a0]+/g, " ").trim();
}

/** What a table cell says, on one line; 12,345 as 12345. */
function cellText(cell) {
  const copy = cell ? cell.cloneNode(true) : make("td");
  copy.querySelectorAll("br").forEach((one) => one.replaceWith("; "));
  const text = textOf(copy);
  return /^\d{1,3}(,\d{3})+$/.test(text) ? text.replace(/,/g, "") : text;
}

/** Whether a cell holds words besides its numbers. */
function hasWords(cell) {
  const copy = cell.cloneNode(true);
  copy.querySelectorAll("data").forEach((one) => one.remove());
  return /[\p{L}\p{N}]/u.test(copy.textContent);
}

/** The columns of numbers that a column of a table holds: the k-th <data> of every cell, and the ends of its interval. */
function numberColumns(cells, header, alone) {
  const numbers = cells.map((cell) => (cell ? [...cell.querySelectorAll("data[value]")] : []));
  const count = Math.max(0, ...numbers.map((own) => own.length));
  return Array.from({ length: count }, (_, k) => k).flatMap((k) => {
    const own = numbers.map((each) => each[k]);
    const told = (name) => own.find((one) => one && one.dataset[name])?.dataset[name] ?? "";
    const name = told("name") || (count > 1 ? String(k + 1) : alone ? "" : "value");
    const unit = told("unit");
    const column = (end, of) => [[header, name, end].filter(Boolean).join(", ") + (unit ? ` (${unit})` : ""), ...own.map((one) => (one && of(one)) ?? "")];
    const ends = own.some((one) => one && one.dataset.low) ? [column("low", (one) => one.dataset.low), column("high", (one) => one.dataset.high)] : [];
    return [column("", (one) => one.getAttribute("value")), ...ends];
  });
}

/** A table as CSV: numbers in columns of their own, in the units that headers name; other cells as they read. @param {HTMLTableElement} table */
function csvOf(table) {
  const body = [...table.rows].filter((row) => row.parentElement !== table.tHead);
  const width = Math.max(...[...table.rows].map((row) => row.cells.length));
  const columns = Array.from({ length: width }, (_, i) => i).flatMap((i) => {
    const cells = body.map((row) => row.cells[i]);
    const header = table.tHead ? cellText(table.tHead.rows[0].cells[i]) : "";
    const words = !cells.some((cell) => cell && cell.querySelector("data[value]")) || cells.some((cell) => cell && hasWords(cell));
    return [...(words ? [[header, ...cells.map(cellText)]] : []), ...numberColumns(cells, header, !words)];
  });
  const lines = [...body.keys()].map((i) => columns.map((column) => csvCell(column[i + 1])).join(","));
  return [...(table.tHead ? [columns.map((column) => csvCell(column[0])).join(",")] : []), ...lines].join("\r\n") + "\r\n";
}

/** Copy text; where the clipboard is closed to us, as a file. */
async function copyText(text, name) {
  try {
    await navigator.clipboard.writeText(text);
    return "copied";
  } catch {
    const link = make("a", { download: name });
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.click();
    return "saved";
  }
}

/** A button that copies the table in a place as CSV. */
function addCsv(scroll) {
  const table = scroll.querySelector("table");
  const caption = table.caption ? textOf(table.caption) : "table";
  const button = make("button", { type: "button", class: "csv", "aria-label": `Copy as CSV: ${caption.slice(0, 80)}` }, "Copy as CSV");
  button.addEventListener("click", async () => {
    const how = await copyText(csvOf(table), "table.csv");
    say(`Table ${how} as CSV, ${table.rows.length - 1} rows`);
    button.textContent = how === "copied" ? "Copied" : "Saved";
    setTimeout(() => { button.textContent = "Copy as CSV"; }, 2000);
  });
  scroll.after(button);
}

/** Tell those who listen. */
function say(text) {
  byId("said").textContent = text;
}

/** What is wider than its place, or higher, says so, and can be scrolled by keyboard under its name. */
function tellWidth(scroll, label) {
  const tell = () => {
    const wide = scroll.scrollWidth > scroll.clientWidth + 1;
    const more = wide || scroll.scrollHeight > scroll.clientHeight + 1;
    scroll.classList.toggle("wide", wide);
    for (const [name, value] of Object.entries({ tabindex: "0", role: "region", "aria-label": label })) {
      if (more) scroll.setAttribute(name, value);
      else scroll.removeAttribute(name);
    }
  };
  new ResizeObserver(tell).observe(scroll);
  tell();
}

/** Every table that the page was written with has its button, and whatever is too wide says so. */
function prepareTables() {
  for (const table of document.querySelectorAll("main table")) {
    let scroll = table.closest(".scroll");
    if (!scroll) {
      scroll = make("div", { class: "scroll" });
      table.replaceWith(scroll);
      scroll.append(table);
    }
    tellWidth(scroll, table.caption ? textOf(table.caption).slice(0, 120) : "table");
    addCsv(scroll);
  }
  for (const scroll of document.querySelectorAll("figure .scroll")) tellWidth(scroll, `Figure: ${scroll.closest("figure").querySelector("h3").textContent}`);
}

/** Links within the page go to their place and leave the address, which holds what is chosen, alone. */
function prepareLinks() {
  for (const link of document.querySelectorAll('a[href^="#"]')) {
    link.addEventListener("click", (event) => {
      const target = document.getElementById(link.getAttribute("href").slice(1));
      if (!target) return;
      event.preventDefault();
      if (!target.hasAttribute("tabindex")) target.tabIndex = -1;
      target.focus({ preventScroll: true });
      target.scrollIntoView();
    });
  }
}

/** Whatever is folded is shown on paper, and folded again after. */
function preparePrint() {
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")].filter((one) => !one.matches("#explore-table, .points"));
    opened.forEach((one) => { one.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((one) => { one.open = false; }));
}
