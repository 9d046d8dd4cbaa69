/** Files that the page saves: marks as JSON and CSV. */

import { nameBytes } from "./text.js";

/** @typedef {import("./data.js").Lot} Lot */
/** @typedef {import("./marks.js").Marks} Marks */

/**
 * The file that `musc-edge verdict OUT --marks` reads.
 * @param {Lot} lot
 * @param {Marks} marks
 * @param {import("./judge.js").Pair} limits
 */
export function marksJson(lot, marks, { reject, review }) {
  return `${JSON.stringify(
    {
      format: "musc-edge marks",
      schema: 1,
      lot: lot.part.lot,
      bundle: lot.part.bundle.sha256,
      threshold: reject,
      review_from: reject !== null && review !== null && review < reject ? review : null,
      judged_by: lot.judgedBy,
      marks: marks.entries().map(([image, { mark, remark }]) => ({ image, mark, remark })),
    },
    null,
    1,
  )}\n`;
}

/**
 * The same as a table, as bytes: names keep theirs. With a byte order mark, for spreadsheets.
 * @param {Marks} marks
 */
export function marksCsv(marks) {
  const rows = [["image", "mark", "remark"], ...marks.entries().map(([image, { mark, remark }]) => [image, mark, remark])];
  return nameBytes(`\ufeff${rows.map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`);
}

/**
 * @param {string} text
 */
function cell(text) {
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/**
 * Let the browser save a file.
 * @param {string} name
 * @param {string | Uint8Array<ArrayBuffer>} content
 * @param {string} type
 */
export function save(name, content, type) {
  const link = document.createElement("a");
  const address = URL.createObjectURL(new Blob([content], { type }));
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
