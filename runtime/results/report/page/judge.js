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

/**
 * The limits of a lot's verdicts; null for none. `moved` says that they are not those of the results.
 * @typedef {{reject: number | null, review: number | null, moved: boolean}} Limits
 */

/**
 * @param {Lot} lot
 * @returns {Limits}
 */
export function limitsOf(lot) {
  const asked = lot.part.verdicts;
  return { reject: asked?.reject_from ?? null, review: asked?.review_from ?? null, moved: false };
}

/**
 * @param {Limits} limits
 * @param {number | null} reject
 * @returns {Limits}
 */
export function withReject(limits, reject) {
  const review = limits.review !== null && reject !== null ? Math.min(limits.review, reject) : limits.review;
  return { reject, review, moved: true };
}

/**
 * @param {Limits} limits
 * @param {number | null} review
 * @returns {Limits}
 */
export function withReview(limits, review) {
  const reject = limits.reject !== null && review !== null ? Math.max(limits.reject, review) : limits.reject;
  return { reject, review, moved: true };
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
  if (!limits.moved) return /** @type {Verdict} */ (row.entry.verdict);
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
