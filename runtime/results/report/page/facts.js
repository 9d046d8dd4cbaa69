/** What is to be known of a lot besides its images: warnings, notes, copies, settings, bundle, timings. */

import { byResidual } from "./data.js";
import { imageLink, isolated, make } from "./dom.js";
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
  ["Escape", "back to all images; on a limit, back to where it was"],
  ["/", "search"],
];
const WORDS = [
  ["raw score", "how unlike the rest the most unusual spot of an image is: the largest value of its map"],
  ["score", "the raw score after rescoring: evened out among images of the lot that look alike"],
  ["p", "the share of good images that is expected to score this high: small is suspicious"],
  ["Gumbel distribution", "a curve for the largest of many values; verdicts by “auto” take good images to lie on it, and do not know whether they do"],
  ["aims at", "what a rule tries, no guarantee: whether it is met can only be seen on images of which somebody knows what they are"],
  ["ViT", "the neural network (vision transformer) that turns patches of an image into numbers"],
  ["degrees", "how large the neighbourhoods are, in patches, over which those numbers are averaged"],
  ["interval", "which of an image's distances to the others count: 0 to 0.3 is the lowest 30 %"],
  ["judges", "the other images that an image is compared with"],
  ["repeated", "with burn-out: a patch that looks like some other images, which lie apart from all the rest; often the same defect again"],
];
const BY_PAIRS = "Every image was compared with the others of the lot, patch by patch. Its scores are distances: how unlike the rest its most unusual spot is. They are no probabilities, and none by itself means good or bad.";
const BY_RESIDUAL = "It was found what the patches of all images have in common, and measured how far each patch lies outside of it. An image's scores are such lengths: how far outside its most unusual spot is. They are no probabilities, and none by itself means good or bad.";
const HELP = [
  "A heatmap shows where. All share one scale: what is ordinary for this lot stays clear, what is as unusual as its worst image is brightest.",
  "An image whose score is at the reject limit or above is a reject, at the review limit or above one to look at. “Not flagged” does not mean good: only that nothing in it stands out from this lot. A defect that many images share does not stand out.",
  "Marks, remarks and limits stay in this browser until they are saved. Save them for the results (JSON); musc-edge verdict OUT --marks FILE takes that file over into the results, OUT being their folder, and with --threshold-of-marks the limits too. The table (CSV) has marks and remarks alone.",
];

/**
 * @param {HTMLElement} place
 * @param {Lot} lot
 */
export function showWarnings(place, lot) {
  const { warnings, notes } = lot.part;
  const unscored = lot.rows.filter((row) => !row.scored);
  place.hidden = !warnings.length && !notes.length;
  const items = warnings.map((text) => make("li", {}, shownName(text)));
  const narrow = matchMedia("(max-width: 46rem)").matches;
  const rest = items.splice(narrow ? 0 : SHOWN);
  const body = make("div", {}, make("ul", { class: "warnings" }, ...items));
  place.replaceChildren(...(items.length ? [make("h2", {}, warnings.length === 1 ? "Warning" : "Warnings")] : []), body);
  if (rest.length) body.append(folded(counted(rest.length, narrow ? "warning" : "more warning"), rest));
  if (warnings.length && unscored.length) body.append(folded(`Not scored: ${counted(unscored.length, "file")}, and why`, unscored.map(({ entry }) => make("li", {}, imageLink(entry.name), `: ${shownName(entry.error || entry.status)}`))));
  if (notes.length) body.append(folded(`${counted(notes.length, "note")}: ${shownName(notes[0])}`, notes.slice(1).map((text) => make("li", {}, shownName(text)))));
}

/**
 * A list under its title; the title alone where it is empty.
 * @param {string} title
 * @param {Node[]} items
 */
function folded(title, items) {
  if (!items.length) return make("p", {}, title);
  return make("details", {}, make("summary", {}, title), make("ul", {}, ...items));
}

/**
 * @param {HTMLElement} place
 * @param {Lot} lot
 * @param {string} version
 */
export function showFacts(place, lot, version) {
  const { copies = [] } = lot.part;
  const help = section("How to read this page", ...[byResidual(lot.part) ? BY_RESIDUAL : BY_PAIRS, ...HELP].map((text) => make("p", {}, text)), make("h3", {}, "Words"), pairs(WORDS));
  const origin = section("How the scores came about", ...origins(lot, version));
  [help.id, origin.id] = ["facts-help", "facts-origins"];
  const parts = [help, origin];
  if (copies.length) parts.push(section(`Copies: ${counted(copies.length, "group")}`, ...copyList(copies)));
  parts.push(section("Keys", pairs(KEYS)));
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
 * @param {{images: string[], same_bytes: string[], apart?: boolean}[]} copies
 */
export function copyList(copies) {
  const apart = copies.filter((group) => group.apart).length;
  const mixed = apart > 0 && apart < copies.length;
  const items = copies.map((group) => make("li", {}, ...group.images.flatMap((name, i) => [i ? ", " : "", imageLink(name)]), mixed && !group.apart ? " (judge each other)" : ""));
  let text = "These show the same shot: they judge each other, and hide the defects that they share.";
  if (mixed) text = "These show the same shot. They did not judge each other, but for those of which it is said: too few others were left to judge them by, and they hide the defects that they share.";
  else if (apart) text = "These show the same shot. They did not judge each other.";
  return [make("p", {}, `${text} A copy is the same shot saved again; two photographs of one part are none, and are not listed here.`), make("ul", {}, ...items)];
}

/**
 * @param {Lot} lot
 * @param {string} version
 */
function origins({ part }, version) {
  const { bundle, settings } = part;
  const seconds = Object.entries(part.timings_s ?? {}).filter(([, value]) => value >= 0.05);
  return [
    make("h3", {}, "Lot"),
    pairs([["folder", part.lot], ...(part.resolution ? [["resolution", part.resolution.text]] : [])]),
    make("h3", {}, "Bundle"),
    pairs(entries(bundle)),
    make("h3", {}, "Settings"),
    pairs(entries(settings)),
    make("h3", {}, "Run"),
    pairs([
      ["Scored", when(part.time ?? "")],
      ["The ViT by", part.backend ?? ""],
      [byResidual(part) ? "Scored by" : "Compared by", part.scorer ?? ""],
      ["Judges of each image", byResidual(part) ? "" : String(part.judges_per_image ?? "")],
      ...seconds.map(([stage, value]) => [stage, `${value.toFixed(1)} s`]),
      ...entries(part.versions ?? {}),
      ["this page", `musc-edge ${version}; maps of single layers and degrees are not part of results`],
    ].filter(([, value]) => value)),
  ];
}

/**
 * A time of the results, as it is written where the page is read; "" if there is none.
 * @param {string} time
 */
export function when(time) {
  const found = new Date(time);
  return Number.isNaN(found.getTime()) ? "" : found.toLocaleString();
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
