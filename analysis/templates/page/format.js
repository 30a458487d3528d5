"use strict";
// Numbers in words, as analysis/words.py has them.

/** @param {number|null|undefined} value @returns {boolean} */
function known(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** Three significant digits without powers of ten where none are needed. @param {number} value */
function short(value, digits = 3) {
  const text = Number(value.toPrecision(digits));
  return Math.abs(text) >= 1e5 || (text !== 0 && Math.abs(text) < 1e-4) ? text.toExponential() : String(text);
}

/** @param {number|null} value seconds */
function secondsText(value, digits = 3) {
  if (!known(value)) return "–";
  for (const [size, unit] of [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]]) {
    if (value >= size) return `${short(value / size, digits)}\u00a0${unit}`;
  }
  return `${short(value * 1e12, digits)}\u00a0ps`;
}

/** @param {number|null} value bytes */
function bytesText(value, digits = 3) {
  if (!known(value)) return "–";
  for (const [size, unit] of [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) {
    if (value >= size) return `${short(value / size, digits)}\u00a0${unit}`;
  }
  return `${short(value, digits)}\u00a0B`;
}

/** @param {number|null} value a share of 1 */
function percentText(value, digits = 3) {
  return known(value) ? `${short(100 * value, digits)}\u00a0%` : "–";
}

/** Units of what is formed so, as CSV names them; those of words.Number. @type {Map<(value: number) => string, string>} */
const UNITS = new Map([[secondsText, "s"], [bytesText, "bytes"], [percentText, "share of 1"]]);

/** 12,345 @param {number} value */
function countText(value) {
  return Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, ",");
}

/** "1.2 ms [1.1 ms, 1.3 ms]" @param {{value: number, low: number, high: number}} found @param {(v: number) => string} form */
function intervalText(found, form) {
  if (!known(found.value)) return "–";
  return known(found.low) && known(found.high) ? `${form(found.value)} [${form(found.low)},\u00a0${form(found.high)}]` : form(found.value);
}

/** "a, b and c" @param {string[]} names */
function listText(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names[names.length - 1]}`;
}
