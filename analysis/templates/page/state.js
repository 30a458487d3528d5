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
/** By name, the control: an address leads to the part of the page that it stands in. @type {Record<string, HTMLElement>} */
const homes = {};

/** What the address says. @returns {Record<string, string>} */
function stateOfAddress() {
  let found = { ...usualState };
  for (const [name, text] of new URLSearchParams(location.hash.slice(1))) {
    const value = text.slice(0, 200);
    if (Object.hasOwn(usualState, name) && (!Object.hasOwn(takes, name) || takes[name](value))) found = movedTo(found, { [name]: value });
  }
  return found;
}

/** What is chosen last stands last. */
function movedTo(before, changes) {
  const found = { ...before };
  for (const name of Object.keys(changes)) if (changes[name] !== before[name]) delete found[name];
  return { ...found, ...changes };
}

/** Go to the part of the page whose choice stands last in the address; the focus goes along where it is nowhere yet. */
function arrive() {
  const last = Object.keys(state).filter((name) => state[name] !== usualState[name]).pop();
  if (last && homes[last]) meet(homes[last].closest("section, [role=region]"), document.activeElement === document.body);
}

/** Bring a part of the page into view, its head with the focus. */
function meet(part, focus = true) {
  const head = part.querySelector("h2, h3");
  head.tabIndex = -1;
  if (focus) head.focus({ preventScroll: true });
  part.scrollIntoView({ block: part.tagName === "SECTION" || part.offsetHeight > innerHeight ? "start" : "nearest" });
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
  const wanted = movedTo(state, changes);
  if (addressOf(wanted) !== addressOf(state)) history.pushState({ ours: true }, "", addressOf(wanted));
  takeState(wanted);
}

/** The same in place of what was chosen last, as while somebody types. */
function amend(changes) {
  const wanted = movedTo(state, changes);
  if (addressOf(wanted) !== addressOf(state)) history.replaceState({ ours: true }, "", addressOf(wanted));
  takeState(wanted);
}

/** Start from the address, and follow it: back and forth among what was chosen here, and to a view that somebody pastes. */
function startState(usual) {
  usualState = usual;
  state = {};
  takeState(stateOfAddress());
  history.replaceState({ ours: true }, "");
  if (scrollY === 0) arrive();
  addEventListener("popstate", (event) => {
    takeState(stateOfAddress());
    if (!event.state) arrive();
  });
}

/** What is wrong with a value of a number's control; empty where nothing is. */
function wrongNumber(control, value) {
  const fits = /^\d{1,15}$/.test(value) && Number(value) >= Number(control.min) && Number(value) <= Number(control.max);
  const name = nameOf(control);
  return fits ? "" : `${name[0].toUpperCase()}${name.slice(1)}: a whole number from ${countText(Number(control.min))} to ${countText(Number(control.max))}.`;
}

/** What a control is called. */
function nameOf(control) {
  return control.closest("label").firstChild.textContent.trim();
}

/** Say beside the controls what is wrong with them, if anything. @returns {boolean} whether this one is right */
function judged(control, judge) {
  control.setCustomValidity(judge(control.value));
  control.setAttribute("aria-invalid", String(!control.checkValidity()));
  const group = control.closest(".controls");
  const told = group.querySelector(".wrong") ?? make("p", { class: "wrong", role: "alert" });
  if (!told.isConnected) group.append(told);
  const wrong = [...group.querySelectorAll("input")].filter((one) => !one.checkValidity()).map((one) => one.validationMessage);
  told.textContent = wrong.length ? `${wrong.join(" ")} What stands below is still told of the last numbers that were right.` : "";
  told.hidden = !wrong.length;
  return control.checkValidity();
}

/** An answer to what was typed before would look like one to what stands there: the first key is a step, further ones amend it. */
function answerWhileTyping(control, name, judge) {
  let fresh = true;
  control.addEventListener("focus", () => { fresh = true; });
  control.addEventListener("input", () => {
    if (!judged(control, judge)) return;
    (fresh ? choose : amend)({ [name]: control.value });
    fresh = false;
  });
}

/** A control that shows and sets one thing chosen. @param {(value: string) => string} [judge] what is wrong with a value, empty for nothing */
function bind(control, name, judge = control.type === "number" ? (value) => wrongNumber(control, value) : undefined) {
  const box = control.type === "checkbox";
  homes[name] = control;
  if (box) takes[name] = (value) => value === "0" || value === "1";
  else if (control.options) takes[name] = (value) => [...control.options].some((option) => option.value === value);
  else if (judge) takes[name] = (value) => !judge(value);
  control.addEventListener("change", () => {
    if (!judge || judged(control, judge)) choose({ [name]: box ? (control.checked ? "1" : "0") : control.value });
  });
  if (control.type === "search") control.addEventListener("input", () => choose({ [name]: control.value }));
  if (control.type === "number") answerWhileTyping(control, name, judge);
  watchers.push((changed) => {
    if (!changed.has(name) || control === document.activeElement && control.value === state[name]) return;
    if (box) control.checked = state[name] === "1";
    else control.value = state[name];
    if (judge) judged(control, judge);
  });
}
