/** What a person said of the images: marks, remarks and limits, kept in the browser. */

import { FARTHEST, limitsOf, ownLimits } from "./judge.js";

/** @typedef {{mark: string, remark: string}} Mark */
/** @typedef {import("./data.js").Content} Content */
/** @typedef {import("./data.js").Lot} Lot */

const NONE = Object.freeze({ mark: "", remark: "" });

/**
 * Let the browser keep a value, null for none; false where it forbids that to files, or is full.
 * @param {string} key
 * @param {unknown} value
 */
function keep(key, value) {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

/**
 * What the browser kept, or null.
 * @param {string} key
 * @returns {any}
 */
function kept(key) {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "null");
  } catch {
    return null;
  }
}

/**
 * Where the limits of a lot are kept. Other limits of the results make another place: those that were set over limits
 * that are gone do not come back.
 * @param {Lot} lot
 */
function limitsKey({ part, judgedBy }) {
  const of = [part.bundle.sha256, judgedBy, part.verdicts?.reject_from ?? null, part.verdicts?.review_from ?? null];
  return `musc-edge limits 1 ${of.join(" ")} ${part.name} ${part.lot}`;
}

/**
 * Keep the limits that a person set, or that there are none.
 * @param {Lot} lot
 * @param {import("./judge.js").Limits} limits
 */
export function keepLimits(lot, { moved, reject, review }) {
  return keep(limitsKey(lot), moved ? { reject, review } : null);
}

/**
 * The limits that a person set, else those of the results.
 * @param {Lot} lot
 */
export function keptLimits(lot) {
  const pair = kept(limitsKey(lot));
  const isLimit = (/** @type {unknown} */ value) => value === null || (typeof value === "number" && value >= 0 && value <= FARTHEST);
  return pair && isLimit(pair.reject) && isLimit(pair.review) ? ownLimits(pair) : limitsOf(lot);
}

/** The marks of a lot with one bundle; those of the results are there from the beginning. */
export class Marks {
  /** @param {Content} content */
  constructor(content) {
    const [first] = content.lots;
    /** Images of the results that have a score: others cannot be marked. */
    this.names = new Set(content.lots.flatMap((part) => part.images.filter(({ status }) => status === "ok").map(({ name }) => name)));
    this.key = `musc-edge marks 1 ${String(first.bundle.sha256)} ${first.lot}`;
    /** @type {Map<string, Mark>} */
    this.known = new Map();
    for (const part of content.lots) {
      for (const [name, mark] of Object.entries(part.verdicts?.marks ?? {})) this.known.set(name, mark);
    }
    this.kept = this.#restore();
    /** @type {unknown} */
    this.saved = kept(`${this.key} saved`); // text of the latest file
  }

  /** @param {string} name */
  get(name) {
    return this.known.get(name) ?? NONE;
  }

  /**
   * @param {string} name
   * @param {Partial<Mark>} change
   */
  set(name, change) {
    this.known.set(name, { ...this.get(name), ...change });
    this.kept = this.#keep();
  }

  /** Marks and remarks that say something, and those that were taken back. */
  entries() {
    return [...this.known].sort(([a], [b]) => (a < b ? -1 : 1));
  }

  /** How many images have a mark, and how many have a remark. */
  get sizes() {
    const all = [...this.known.values()];
    return { marks: all.filter(({ mark }) => mark).length, remarks: all.filter(({ remark }) => remark).length };
  }

  /**
   * Note that a file with this text was saved.
   * @param {string} text
   */
  noteSaved(text) {
    this.saved = text;
    keep(`${this.key} saved`, text);
  }

  /** Whether the browser keeps them. */
  #keep() {
    return keep(this.key, [...this.known]);
  }

  #restore() {
    try {
      const text = localStorage.getItem(this.key);
      for (const [name, { mark, remark }] of text ? JSON.parse(text) : []) {
        if (this.names.has(name)) this.known.set(name, { mark: String(mark), remark: String(remark) });
      }
      localStorage.setItem(`${this.key} try`, "");
      localStorage.removeItem(`${this.key} try`);
      return true;
    } catch {
      return false;
    }
  }
}
