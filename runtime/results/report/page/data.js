/** The data of the page: lots, and a row for each of their images. */

import { above, decoded, decodedGrid } from "./colour.js";
import { shownName } from "./text.js";

/** @typedef {import("./colour.js").Grid} Grid */
/** @typedef {import("./colour.js").Scale} Scale */

/**
 * An image as the page's data has it.
 * @typedef {object} Entry
 * @property {string} name
 * @property {string} status
 * @property {string} verdict
 * @property {string} error
 * @property {number} [raw]
 * @property {number} [score]
 * @property {number} [p]
 * @property {[number, number]} [grid]
 * @property {string} [map]
 * @property {string} [inside]
 * @property {number[][]} [regions]
 * @property {[number, number]} [size]
 * @property {{grid: [number, number], at: number[]}} [repeated]
 * @property {string} [picture]
 * @property {string} [file]
 * @property {boolean} [shown]
 * @property {string} [no_picture]
 */

/**
 * What lot.json says of verdicts.
 * @typedef {object} Verdicts
 * @property {string} rule
 * @property {"score" | "raw_score"} judged_by
 * @property {number | null} reject_from
 * @property {number | null} review_from
 * @property {number | null} pixel_limit
 * @property {string} promise
 * @property {string[]} [notes]
 * @property {string | null} [refused]
 * @property {Record<string, {mark: string, remark: string}>} [marks]
 */

/**
 * A lot as the page's data has it.
 * @typedef {object} Part
 * @property {string} name
 * @property {string} lot
 * @property {boolean} found
 * @property {Scale} scale
 * @property {Verdicts | null} [verdicts]
 * @property {string[]} warnings
 * @property {string[]} notes
 * @property {{images: string[], same_bytes: string[], apart?: boolean}[]} [copies]
 * @property {Record<string, unknown>} settings
 * @property {Record<string, unknown>} bundle
 * @property {Record<string, number>} [timings_s]
 * @property {Record<string, unknown>} [versions]
 * @property {string} [time]
 * @property {string} [backend]
 * @property {string} [scorer]
 * @property {number} [judges_per_image]
 * @property {{text: string}} [resolution]
 * @property {unknown} [left_out]
 * @property {{grid: [number, number], map: string}} [level]
 * @property {Entry[]} images
 */

/** @typedef {{version: string, colours: Record<string, string>, lots: Part[]}} Content */

/**
 * An image of the page. `value` is what it is judged by, `rank` 1 for the most suspicious; both are 0 where
 * there is no score.
 * @typedef {object} Row
 * @property {number} index
 * @property {Entry} entry
 * @property {boolean} scored
 * @property {string} shown
 * @property {string} base
 * @property {string} folder
 * @property {string} search
 * @property {number} value
 * @property {number} score
 * @property {number} raw
 * @property {number} rank
 * @property {number} width
 * @property {number} height
 */

/** @typedef {{part: Part, rows: Row[], judgedBy: "score" | "raw_score", label: string}} Lot */

/**
 * The data in the page.
 * @returns {Content}
 */
export function readContent() {
  return JSON.parse(document.getElementById("data")?.textContent ?? "");
}

/**
 * @param {Content} content
 * @returns {Record<string, Uint8Array>}
 */
export function readColours(content) {
  return Object.fromEntries(Object.entries(content.colours).map(([name, text]) => [name, decoded(text)]));
}

/**
 * @param {Part} part
 * @returns {Lot}
 */
export function readLot(part) {
  const sortedBy = part.settings.judge_by === "raw_score" ? "raw_score" : "score"; // results of earlier versions do not say it
  const judgedBy = part.verdicts?.judged_by ?? sortedBy;
  const rows = part.images.map((entry, index) => readRow(entry, index, judgedBy));
  const scored = rows.filter((row) => row.scored).sort((a, b) => b.value - a.value || a.index - b.index);
  scored.forEach((row, place) => {
    row.rank = place + 1;
  });
  return { part, rows, judgedBy, label: shownName(part.name || lastPart(part.lot)) };
}

/**
 * @param {Entry} entry
 * @param {number} index
 * @param {"score" | "raw_score"} judgedBy
 * @returns {Row}
 */
function readRow(entry, index, judgedBy) {
  const shown = shownName(entry.name);
  const score = entry.score ?? 0;
  const raw = entry.raw ?? 0;
  const [width, height] = entry.size ?? (entry.grid ? [entry.grid[1], entry.grid[0]] : [1, 1]);
  return {
    index,
    entry,
    scored: entry.status === "ok",
    shown,
    base: shownName(lastPart(entry.name)),
    folder: entry.name.includes("/") ? entry.name.slice(0, entry.name.lastIndexOf("/")) : "",
    search: shown.toLowerCase(),
    value: judgedBy === "score" ? score : raw,
    score,
    raw,
    rank: 0,
    width,
    height,
  };
}

/**
 * The map of an image on the grid, or null.
 * @param {Row} row
 * @returns {Grid | null}
 */
export function gridOf(row) {
  const { map, grid, inside } = row.entry;
  return map && grid ? decodedGrid(map, grid[0], grid[1], inside) : null;
}

/**
 * The map of an image on the grid as it is judged: without what each position has in all images.
 * @param {Row} row
 * @param {Lot} lot
 * @returns {Grid | null}
 */
export function judgedGridOf(row, { part }) {
  const grid = gridOf(row);
  return grid && part.level ? above(grid, decodedGrid(part.level.map, ...part.level.grid)) : grid;
}

/**
 * @param {string} path
 */
export function lastPart(path) {
  return path.replace(/\/+$/, "").split("/").pop() || path;
}

/**
 * Whether a lot was scored by what lies outside of what its images have in common, none compared with another.
 * @param {Part} part
 */
export function byResidual(part) {
  return part.settings.by === "residual";
}
