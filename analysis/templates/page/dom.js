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

/** A table from texts; the first column names the row. @param {{caption: string, columns: string[], rows: string[][], numbers?: number[]}} what */
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

/** A cell of CSV (RFC 4180). */
function csvCell(text) {
  return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

/** A table as CSV, as it reads. @param {HTMLTableElement} table */
function csvOf(table) {
  const text = (cell) => csvCell(cell.innerText.replace(/\s*\n\s*/g, "; ").replace(/\u00a0/g, " ").trim());
  return [...table.rows].map((row) => [...row.cells].map(text).join(",")).join("\r\n") + "\r\n";
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
  const caption = table.caption ? table.caption.innerText.trim() : "table";
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
    tellWidth(scroll, table.caption ? table.caption.innerText.trim().slice(0, 120) : "table");
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
