"use strict";
// What is chosen stands in the address after #, so that a view can be sent to someone; what is usual is left out.

/** @type {Record<string, string>} */
let usualState = {};
/** @type {Record<string, string>} */
let state = {};
/** @type {Array<(changed: Set<string>) => void>} */
const watchers = [];

/** By name, whether a control takes a value: an address may say anything. @type {Record<string, (value: string) => boolean>} */
const takes = {};

/** What the address says. @returns {Record<string, string>} */
function stateOfAddress() {
  const found = { ...usualState };
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    if (Object.hasOwn(usualState, name) && (!Object.hasOwn(takes, name) || takes[name](value))) found[name] = value.slice(0, 200);
  }
  return found;
}

/** The address of a state. */
function addressOf(wanted) {
  const told = Object.entries(wanted).filter(([name, value]) => value !== usualState[name]);
  return told.length ? `#${new URLSearchParams(told)}` : "#";
}

/** Take a state on, and tell who watches. */
function takeState(wanted) {
  const changed = new Set(Object.keys(wanted).filter((name) => wanted[name] !== state[name]));
  state = wanted;
  if (changed.size) watchers.forEach((watcher) => watcher(changed));
}

/** Choose something: into the address, a step that the back button undoes. */
function choose(changes) {
  const wanted = { ...state, ...changes };
  if (addressOf(wanted) !== addressOf(state)) history.pushState(null, "", addressOf(wanted));
  takeState(wanted);
}

/** The same in place of what was chosen last, as while somebody types. */
function amend(changes) {
  const wanted = { ...state, ...changes };
  if (addressOf(wanted) !== addressOf(state)) history.replaceState(null, "", addressOf(wanted));
  takeState(wanted);
}

/** Start from the address, and follow it. */
function startState(usual) {
  usualState = usual;
  state = {};
  takeState(stateOfAddress());
  addEventListener("popstate", () => takeState(stateOfAddress()));
}

/** An answer to what was typed before would look like one to what stands there: the first key is a step, further ones amend it. */
function answerWhileTyping(control, name) {
  let fresh = true;
  control.addEventListener("focus", () => { fresh = true; });
  control.addEventListener("input", () => {
    if (control.value === "" || !control.checkValidity()) return;
    (fresh ? choose : amend)({ [name]: control.value });
    fresh = false;
  });
}

/** A control that shows and sets one thing chosen. */
function bind(control, name) {
  const box = control.type === "checkbox";
  if (box) takes[name] = (value) => value === "0" || value === "1";
  else if (control.options) takes[name] = (value) => [...control.options].some((option) => option.value === value);
  else if (control.type === "number") takes[name] = (value) => /^\d+$/.test(value) && Number(value) >= Number(control.min) && Number(value) <= Number(control.max);
  control.addEventListener("change", () => {
    if (control.checkValidity && !control.checkValidity()) return control.reportValidity();
    return choose({ [name]: box ? (control.checked ? "1" : "0") : control.value });
  });
  if (control.type === "search") control.addEventListener("input", () => choose({ [name]: control.value }));
  if (control.type === "number") answerWhileTyping(control, name);
  watchers.push((changed) => {
    if (!changed.has(name) || control === document.activeElement && control.value === state[name]) return;
    if (box) control.checked = state[name] === "1";
    else control.value = state[name];
  });
}
