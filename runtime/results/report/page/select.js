/** Which images are shown, and in which order. */

import { WORDS } from "./judge.js";
import { shownName } from "./text.js";

/** @typedef {import("./data.js").Row} Row */
/** @typedef {import("./judge.js").Verdict} Verdict */

/**
 * @typedef {object} Choice
 * @property {string} text part of the name
 * @property {Set<Verdict>} verdicts none for all
 * @property {string | null} folder null for all
 * @property {string} marked "", "good", "bad", "any" or "none"
 * @property {string} sort "worst", "best", "limit" or "name"
 */

/**
 * The filters of a choice, in words.
 * @param {Choice} choice
 */
export function filtersOf({ text, verdicts, folder, marked }) {
  const words = { good: "marked good", bad: "marked bad", any: "marked", none: "not marked" };
  const filters = [text.trim() && `“${text.trim()}”`, ...[...verdicts].map((verdict) => WORDS[verdict])];
  return [...filters, folder !== null && (shownName(folder) || "in no folder"), words[/** @type {keyof typeof words} */ (marked)]].filter((each) => typeof each === "string" && each !== "");
}

const names = new Intl.Collator("en", { numeric: true });

/**
 * The rows that are chosen, in the order given.
 * @param {Row[]} rows
 * @param {Verdict[]} verdicts by the rows' index
 * @param {(row: Row) => string} markOf
 * @param {Choice} choice
 */
export function selected(rows, verdicts, markOf, choice) {
  const text = choice.text.trim().toLowerCase();
  return rows.filter(
    (row) =>
      (!text || row.search.includes(text)) &&
      (!choice.verdicts.size || choice.verdicts.has(verdicts[row.index])) &&
      (choice.folder === null || isIn(row.folder, choice.folder)) &&
      (!choice.marked || isMarked(markOf(row), choice.marked)),
  );
}

/**
 * @param {Row[]} rows
 * @param {string} sort
 * @param {number[]} limits
 */
export function ordered(rows, sort, limits) {
  return [...rows].sort(ordering(sort, limits));
}

/**
 * @param {string} folder
 * @param {string} around
 */
function isIn(folder, around) {
  return folder === around || (around !== "" && folder.startsWith(`${around}/`));
}

/**
 * @param {string} mark
 * @param {string} wanted
 */
function isMarked(mark, wanted) {
  if (wanted === "any") return mark !== "";
  return wanted === "none" ? mark === "" : mark === wanted;
}

/**
 * What was not scored comes last, except by name.
 * @param {string} sort
 * @param {number[]} limits
 * @returns {(a: Row, b: Row) => number}
 */
function ordering(sort, limits) {
  if (sort === "name") return (a, b) => names.compare(a.shown, b.shown) || a.index - b.index;
  const key =
    sort === "best"
      ? (/** @type {Row} */ row) => row.value
      : sort === "limit" && limits.length
        ? (/** @type {Row} */ row) => Math.min(...limits.map((limit) => Math.abs(row.value - limit)))
        : (/** @type {Row} */ row) => -row.value;
  return (a, b) => Number(b.scored) - Number(a.scored) || key(a) - key(b) || a.index - b.index;
}

/**
 * The folders that images lie in.
 * @param {Row[]} rows
 */
export function foldersOf(rows) {
  return [...new Set(rows.map((row) => row.folder))].sort(names.compare);
}
