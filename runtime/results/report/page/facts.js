/** What is to be known of a lot besides its images: warnings, notes, copies, settings, bundle, timings. */

import { isolated, make } from "./dom.js";
import { counted, shownName } from "./text.js";

/** @typedef {import("./data.js").Lot} Lot */

const SHOWN = 3; // warnings that are in sight at once
const KEYS = [
  ["Arrows, Home, End, Page up and down", "move among the images, or move a limit that has the focus"],
  ["Enter", "large view"],
  ["Left and right arrow", "previous and next image, in the large view"],
  ["G, B", "mark as good, as bad; again: take the mark back"],
  ["H, O, R", "heatmap, outline, regions"],
  ["+, −, 0", "zoom in, out, back; wheel, two fingers and double click do too"],
  ["Escape", "back to all images"],
  ["/", "search"],
];
const HELP = [
  "Every image was compared with the others of the lot, patch by patch. Its score is a distance: how unlike the rest its most unusual spot is. It is no probability, and no score by itself means good or bad.",
  "A heatmap shows where. All share one scale: what is ordinary for this lot stays clear, what is as unusual as its worst image is brightest.",
  "An image whose score is at the reject limit or above is a reject, at the review limit or above one to look at. “Not flagged” does not mean good: only that nothing in it stands out from this lot. A defect that many images share does not stand out.",
  "Marks and remarks stay in this browser until they are saved as a file; musc-edge verdict OUT --marks FILE takes that file over into the results.",
];

/**
 * @param {HTMLElement} place
 * @param {Lot} lot
 */
export function showWarnings(place, lot) {
  const { warnings } = lot.part;
  place.hidden = !warnings.length;
  const items = warnings.map((text) => make("li", {}, shownName(text)));
  const rest = items.splice(SHOWN);
  place.replaceChildren(make("h2", {}, warnings.length === 1 ? "Warning" : "Warnings"), make("ul", {}, ...items));
  if (rest.length) place.append(make("details", {}, make("summary", {}, `${counted(rest.length, "more warning")}`), make("ul", {}, ...rest)));
}

/**
 * @param {HTMLElement} place
 * @param {Lot} lot
 * @param {string} version
 */
export function showFacts(place, lot, version) {
  const { notes, copies = [] } = lot.part;
  const parts = [section("How to read this page", ...HELP.map((text) => make("p", {}, text)))];
  if (notes.length) parts.push(section(counted(notes.length, "note"), make("ul", {}, ...notes.map((text) => make("li", {}, shownName(text))))));
  if (copies.length) parts.push(section(`Copies: ${counted(copies.length, "group")}`, ...copyList(copies)));
  parts.push(section("How the scores came about", ...origins(lot, version)), section("Keys", pairs(KEYS)));
  place.replaceChildren(...parts);
}

/**
 * @param {string} title
 * @param {Node[]} content
 */
function section(title, ...content) {
  return make("details", {}, make("summary", {}, title), make("div", { class: "facts-body" }, ...content));
}

/**
 * @param {{images: string[], same_bytes: string[]}[]} copies
 */
function copyList(copies) {
  const items = copies.map(({ images }) => make("li", {}, ...images.flatMap((name, i) => [i ? ", " : "", isolated(shownName(name))])));
  return [make("p", {}, "These show the same shot: they judge each other, and hide the defects that they share."), make("ul", {}, ...items)];
}

/**
 * @param {Lot} lot
 * @param {string} version
 */
function origins({ part }, version) {
  const { bundle, settings } = part;
  const seconds = Object.entries(part.timings_s ?? {}).filter(([, value]) => value >= 0.05);
  return [
    make("h3", {}, "Bundle"),
    pairs([["Folder of the lot", part.lot], ...entries(bundle)]),
    make("h3", {}, "Settings"),
    pairs(entries(settings)),
    make("h3", {}, "Run"),
    pairs([
      ["The ViT by", part.backend ?? ""],
      ["Compared by", part.scorer ?? ""],
      ["Judges of each image", String(part.judges_per_image ?? "")],
      ...seconds.map(([stage, value]) => [stage, `${value.toFixed(1)} s`]),
      ...entries(part.versions ?? {}),
      ["this page", `musc-edge ${version}; maps of single layers and degrees are not part of results`],
    ].filter(([, value]) => value)),
  ];
}

/**
 * @param {Record<string, unknown>} values
 * @returns {string[][]}
 */
function entries(values) {
  return Object.entries(values).map(([name, value]) => [name.replaceAll("_", " "), inWords(value)]);
}

/**
 * @param {unknown} value
 * @returns {string}
 */
function inWords(value) {
  if (value === null) return "none";
  if (Array.isArray(value)) return value.map(inWords).join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/**
 * @param {string[][]} rows
 */
function pairs(rows) {
  return make("dl", { class: "pairs" }, ...rows.flatMap(([name, value]) => [make("dt", {}, shownName(name)), make("dd", {}, isolated(shownName(value)))]));
}
