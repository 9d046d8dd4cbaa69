/** Make elements; text is only ever set as text. */

import { addressOf, shownName } from "./text.js";

/** @typedef {Node | string} Child */

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string>} attributes
 * @param {Child[]} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {Child[]} children
 * @returns {SVGElement}
 */
export function makeSvg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/**
 * The element of an id that the page has.
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
export function byId(id, kind) {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`the page has no ${kind.name} #${id}`);
  return element;
}

/**
 * A button with its text.
 * @param {string} text
 * @param {() => void} act
 * @param {Record<string, string>} attributes
 */
export function button(text, act, attributes = {}) {
  const element = make("button", { type: "button", ...attributes }, text);
  element.addEventListener("click", act);
  return element;
}

/**
 * A name that keeps its own direction of writing.
 * @param {string} text
 */
export function isolated(text) {
  return make("bdi", {}, text);
}

/**
 * A link to an image's large view.
 * @param {string} name
 */
export function imageLink(name) {
  return make("a", { href: addressOf(name) }, isolated(shownName(name)));
}

/**
 * Call a function at the next frame, once, however often it was asked for.
 * @param {() => void} act
 */
export function oncePerFrame(act) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      act();
    });
  };
}

const SAYING = 500; // milliseconds without a change before it is read out
let saying = 0;

/**
 * Let screen readers say what has changed.
 * @param {string} text
 */
export function say(text) {
  clearTimeout(saying);
  saying = setTimeout(() => {
    byId("said", HTMLElement).textContent = text;
  }, SAYING);
}
