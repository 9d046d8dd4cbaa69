/** Where a map reaches a limit: its outline, and the regions that hang together. */

import { upsampled } from "./colour.js";

/** @typedef {import("./colour.js").Grid} Grid */
/** @typedef {{values: Float32Array, width: number, height: number}} Field */

/**
 * A region in pixels of the image, both ends included.
 * @typedef {object} Region
 * @property {number} x
 * @property {number} y
 * @property {number} width
 * @property {number} height
 * @property {number} area
 * @property {number} peak
 * @property {number} peakX
 * @property {number} peakY
 */

const LEAST = 16; // pixels of a region that has a size: fewer are a point

/**
 * Whether a region is a point rather than an area: the map's highest spot just reaches the limit.
 * @param {Region} region
 */
export function isPoint({ area }) {
  return area < LEAST;
}

/**
 * The place of a region in words, in pixels.
 * @param {Region} region
 */
export function placeOf(region) {
  const { x, y, width, height, peakX, peakY } = region;
  return isPoint(region) ? `a point at ${peakX}, ${peakY}` : `${width} × ${height} at ${x}, ${y}`;
}

const POINTS = 8; // of the field between two cells of the grid
const MOST = 512; // points a side

/**
 * A map at points close enough for outlines.
 * @param {Grid} grid
 * @returns {Field}
 */
export function fieldOf(grid) {
  const height = Math.min(MOST, (grid.height - 1) * POINTS + 1);
  const width = Math.min(MOST, (grid.width - 1) * POINTS + 1);
  return { values: upsampled(grid, height, width), width, height };
}

/**
 * The outline of where a field reaches a limit (marching squares), as the path of an SVG over an image of
 * `width` x `height` pixels.
 * @param {Field} field
 * @param {number} limit
 * @param {number} width
 * @param {number} height
 */
export function outline(field, limit, width, height) {
  const { values, width: columns } = field;
  const right = (width - 1) / Math.max(1, columns - 1);
  const down = (height - 1) / Math.max(1, field.height - 1);
  const part = (/** @type {number} */ a, /** @type {number} */ b) => (limit - values[a]) / (values[b] - values[a]);
  const text = (/** @type {number} */ x, /** @type {number} */ y) => `${(x * right).toFixed(1)} ${(y * down).toFixed(1)}`;
  const path = [];
  for (let y = 0; y + 1 < field.height; y++) {
    for (let x = 0; x + 1 < columns; x++) {
      const a = y * columns + x;
      const [b, c, d] = [a + 1, a + columns + 1, a + columns];
      const inside = [a, b, c, d].map((at) => values[at] >= limit);
      const cuts = [];
      if (inside[0] !== inside[1]) cuts.push(text(x + part(a, b), y));
      if (inside[1] !== inside[2]) cuts.push(text(x + 1, y + part(b, c)));
      if (inside[2] !== inside[3]) cuts.push(text(x + part(d, c), y + 1));
      if (inside[3] !== inside[0]) cuts.push(text(x, y + part(a, d)));
      for (let k = 0; k + 1 < cuts.length; k += 2) path.push(`M${cuts[k]}L${cuts[k + 1]}`);
    }
  }
  return path.join("");
}

/**
 * The regions of a field at or above a limit, from the highest peak down, in pixels of an image.
 * @param {Field} field
 * @param {number} limit
 * @param {number} width
 * @param {number} height
 * @returns {Region[]}
 */
export function regionsOf(field, limit, width, height) {
  const seen = new Uint8Array(field.values.length);
  const found = [];
  for (let start = 0; start < seen.length; start++) {
    if (!seen[start] && field.values[start] >= limit) found.push(measured(flooded(field, limit, start, seen), field, width, height));
  }
  return found.sort((a, b) => b.peak - a.peak);
}

/**
 * The points that hang together with `start`, by sides and corners; marks them as seen.
 * @param {Field} field
 * @param {number} limit
 * @param {number} start
 * @param {Uint8Array} seen
 */
function flooded(field, limit, start, seen) {
  const points = [start];
  seen[start] = 1;
  for (let k = 0; k < points.length; k++) {
    const x = points[k] % field.width;
    const y = Math.floor(points[k] / field.width);
    for (let v = Math.max(0, y - 1); v <= Math.min(field.height - 1, y + 1); v++) {
      for (let u = Math.max(0, x - 1); u <= Math.min(field.width - 1, x + 1); u++) {
        const at = v * field.width + u;
        if (seen[at] || field.values[at] < limit) continue;
        seen[at] = 1;
        points.push(at);
      }
    }
  }
  return points;
}

/**
 * @param {number[]} points
 * @param {Field} field
 * @param {number} width
 * @param {number} height
 * @returns {Region}
 */
function measured(points, field, width, height) {
  const right = (width - 1) / Math.max(1, field.width - 1);
  const down = (height - 1) / Math.max(1, field.height - 1);
  let [left, top, last, bottom, peak, cells] = [Infinity, Infinity, 0, 0, points[0], 0];
  for (const at of points) {
    const x = at % field.width;
    const y = Math.floor(at / field.width);
    [left, last] = [Math.min(left, x), Math.max(last, x)];
    [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
    if (field.values[at] > field.values[peak]) peak = at;
    // A point stands for what is around it, which ends with the image.
    cells += (x % (field.width - 1) ? 1 : 0.5) * (y % (field.height - 1) ? 1 : 0.5);
  }
  return {
    x: Math.round(left * right),
    y: Math.round(top * down),
    width: Math.max(1, Math.round((last - left) * right)),
    height: Math.max(1, Math.round((bottom - top) * down)),
    area: Math.max(1, Math.round((cells * width * height) / (Math.max(1, field.width - 1) * Math.max(1, field.height - 1)))),
    peak: field.values[peak],
    peakX: Math.round((peak % field.width) * right),
    peakY: Math.round(Math.floor(peak / field.width) * down),
  };
}

/**
 * Regions as regions.csv has them, in the order of its columns.
 * @param {number[][]} rows
 * @returns {Region[]}
 */
export function regionsFrom(rows) {
  return rows.map(([x, y, width, height, area, peak, peakX, peakY]) => ({ x, y, width, height, area, peak, peakX, peakY }));
}
