/** Verdicts from limits and marks. */

/** @typedef {import("./data.js").Lot} Lot */
/** @typedef {import("./data.js").Row} Row */
/** @typedef {"reject" | "review" | "not flagged" | "" | "not scored"} Verdict */

/** @type {Verdict[]} */
export const VERDICTS = ["reject", "review", "not flagged", "", "not scored"];

/** @type {Record<Verdict, string>} */
export const WORDS = {
  reject: "Reject",
  review: "Review",
  "not flagged": "Not flagged",
  "": "Not judged",
  "not scored": "Not scored",
};

/** @typedef {{reject: number | null, review: number | null}} Pair */

/**
 * The limits of a lot's verdicts; null for none. `moved` says that they are not those of the results. `asked` is where
 * each was put by itself: one that the other pushed goes back there with it.
 * @typedef {Pair & {moved: boolean, asked: Pair}} Limits
 */

export const FARTHEST = 2; // the largest distance between two unit vectors

/**
 * What images are judged by, in words.
 * @param {Lot} lot
 */
export function judgedWord({ judgedBy }) {
  return judgedBy === "score" ? "score" : "raw score";
}

/**
 * @param {Lot} lot
 * @returns {Limits}
 */
export function limitsOf(lot) {
  const asked = lot.part.verdicts;
  const pair = { reject: asked?.reject_from ?? null, review: asked?.review_from ?? null };
  return { ...pair, moved: false, asked: pair };
}

/**
 * @param {Limits} limits
 * @param {number | null} reject
 * @returns {Limits}
 */
export function withReject(limits, reject) {
  const { review } = limits.asked;
  return { reject, review: review !== null && reject !== null ? Math.min(review, reject) : review, moved: true, asked: { reject, review } };
}

/**
 * @param {Limits} limits
 * @param {number | null} review
 * @returns {Limits}
 */
export function withReview(limits, review) {
  const { reject } = limits.asked;
  return { reject: reject !== null && review !== null ? Math.max(reject, review) : reject, review, moved: true, asked: { reject, review } };
}

/**
 * Limits that a person set before.
 * @param {Pair} pair
 * @returns {Limits}
 */
export function ownLimits(pair) {
  return { ...pair, moved: true, asked: pair };
}

/**
 * What the verdict on an image is. A mark goes before the limits, as for `musc-edge verdict --marks`.
 * @param {Row} row
 * @param {Limits} limits
 * @param {string} mark
 * @returns {Verdict}
 */
export function verdictOf(row, limits, mark) {
  if (!row.scored) return "not scored";
  if (mark === "bad") return "reject";
  if (mark === "good") return "not flagged";
  return limits.moved ? verdictWithout(row, limits) : /** @type {Verdict} */ (row.entry.verdict);
}

/**
 * What the limits say of an image that has a score, whatever it is marked.
 * @param {Row} row
 * @param {Limits} limits
 * @returns {Verdict}
 */
export function verdictWithout(row, limits) {
  if (limits.reject === null && limits.review === null) return "";
  if (limits.reject !== null && row.value >= limits.reject) return "reject";
  return limits.review !== null && row.value >= limits.review ? "review" : "not flagged";
}

/**
 * The limit on the maps' values that belongs to the lower limit on images, as musc-edge verdict has it: judged by
 * raw scores it is that limit, else the raw score of the same rank.
 * @param {Lot} lot
 * @param {Limits} limits
 */
export function pixelLimit(lot, limits) {
  if (!limits.moved) return lot.part.verdicts?.pixel_limit ?? null;
  const flag = limits.review ?? limits.reject;
  if (flag === null || lot.judgedBy === "raw_score") return flag;
  const scored = lot.rows.filter((row) => row.scored);
  const flagged = scored.filter((row) => row.value >= flag).length;
  return flagged ? scored.map((row) => row.raw).sort((a, b) => b - a)[flagged - 1] : flag;
}

/**
 * @param {Verdict[]} verdicts
 * @returns {Map<Verdict, number>}
 */
export function countVerdicts(verdicts) {
  const counts = new Map(VERDICTS.map((verdict) => [verdict, 0]));
  for (const verdict of verdicts) counts.set(verdict, (counts.get(verdict) ?? 0) + 1);
  return counts;
}
