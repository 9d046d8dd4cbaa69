/** The list that is printed: every image that is chosen, with its thumbnail, score, verdict and remark. */

import { isolated, make } from "./dom.js";
import { distance } from "./text.js";

/** @typedef {import("./data.js").Row} Row */
/** @typedef {import("./judge.js").Verdict} Verdict */

/**
 * @typedef {object} Sheet
 * @property {string} title
 * @property {string} summary
 * @property {Row[]} rows
 * @property {(row: Row) => string} word of its verdict
 * @property {(row: Row) => {mark: string, remark: string}} mark
 */

/**
 * @param {HTMLElement} place
 * @param {Sheet} sheet
 */
export function layOut(place, sheet) {
  const head = make("tr", {}, ...["Rank", "Image", "Name", "Score", "Verdict", "Mark and remark"].map((text) => make("th", {}, text)));
  place.replaceChildren(
    make("h1", {}, sheet.title),
    make("p", {}, sheet.summary),
    make("table", {}, make("thead", {}, head), make("tbody", {}, ...sheet.rows.map((row) => line(row, sheet)))),
  );
  return Promise.all(Array.from(place.querySelectorAll("img"), (image) => image.decode().catch(() => undefined)));
}

/**
 * @param {Row} row
 * @param {Sheet} sheet
 */
function line(row, sheet) {
  const { mark, remark } = sheet.mark(row);
  const picture = row.entry.picture ? [make("img", { src: row.entry.picture, alt: "" })] : [];
  const name = [isolated(row.shown), ...(row.scored ? [] : [make("p", {}, row.entry.error)])];
  const cells = [[row.scored ? String(row.rank) : ""], picture, name, [row.scored ? distance(row.value) : ""], [sheet.word(row)], [[mark, remark].filter(Boolean).join(": ")]];
  return make("tr", {}, ...cells.map((cell) => make("td", {}, ...cell)));
}
