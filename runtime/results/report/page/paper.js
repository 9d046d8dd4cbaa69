/** The list that is printed: every image that is chosen, with its picture, heatmap, place, score, verdict and remark. */

import { isolated, make } from "./dom.js";
import { counted, distance } from "./text.js";

/** @typedef {import("./data.js").Row} Row */
/** @typedef {import("./judge.js").Verdict} Verdict */

/**
 * @typedef {object} Sheet
 * @property {string} title
 * @property {string[]} lines
 * @property {string} judged what images are judged by
 * @property {Row[]} rows
 * @property {(row: Row) => HTMLCanvasElement | null} heat
 * @property {(row: Row) => string} where its map reaches the limit
 * @property {(row: Row) => string} word of its verdict
 * @property {(row: Row) => {mark: string, remark: string}} mark
 */

const MOST_HEATMAPS = 300; // each is a canvas in memory

/**
 * @param {HTMLElement} place
 * @param {Sheet} sheet
 */
export function layOut(place, sheet) {
  const head = make("tr", {}, ...["Rank", "Image", "Heatmap", "Name", sheet.judged, "Verdict", "Place, px", "Mark and remark"].map((text) => make("th", {}, text)));
  place.replaceChildren(
    make("h1", {}, sheet.title),
    ...sheet.lines.map((text) => make("p", {}, text)),
    ...(sheet.rows.length > MOST_HEATMAPS ? [make("p", {}, `Heatmaps are there of the first ${counted(MOST_HEATMAPS, "image")} only.`)] : []),
    make("table", {}, make("thead", {}, head), make("tbody", {}, ...sheet.rows.map((row, place) => line(row, sheet, place < MOST_HEATMAPS)))),
  );
  return Promise.all(Array.from(place.querySelectorAll("img"), (image) => image.decode().catch(() => undefined)));
}

/**
 * @param {Row} row
 * @param {Sheet} sheet
 * @param {boolean} heated
 */
function line(row, sheet, heated) {
  const { mark, remark } = sheet.mark(row);
  const picture = row.entry.picture ? [make("img", { src: row.entry.picture, alt: "" })] : [];
  const heat = heated ? sheet.heat(row) : null;
  const name = [isolated(row.shown), ...(row.scored ? [] : [make("p", {}, row.entry.error)])];
  const cells = [[row.scored ? String(row.rank) : ""], picture, heat ? [make("div", { class: "heated" }, ...picture.map((each) => each.cloneNode()), heat)] : [], name, [row.scored ? distance(row.value) : ""], [sheet.word(row)], [sheet.where(row)], [[mark, remark].filter(Boolean).join(": ")]];
  return make("tr", {}, ...cells.map((cell) => make("td", {}, ...cell)));
}
