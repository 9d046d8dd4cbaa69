/** Anomaly maps as colours: bilinear interpolation from the grid, and one scale for the lot. */

/** @typedef {{low: number, high: number}} Scale */
/**
 * A map on the grid; `inside` has 1 for each patch with a score, and is null where all have one.
 * @typedef {{codes: Uint16Array | Int32Array, height: number, width: number, inside: Uint8Array | null}} Grid
 */

const MOST_DISTANCE = 2; // what the highest code of a map stands for
const TOP = 65535;
const WEIGHT = 0.6; // of the brightest colour over the gray image
const DIMMED = 0.65; // how much darker an image is outside of a region of interest
const OUTSIDE = -1; // the value there, below all distances

/**
 * @param {string} text base64
 */
export function decoded(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

/**
 * @param {string} text base64 of 16-bit codes
 * @param {number} height
 * @param {number} width
 * @param {string} [inside] base64 of a byte for each patch
 * @returns {Grid}
 */
export function decodedGrid(text, height, width, inside) {
  return { codes: new Uint16Array(decoded(text).buffer), height, width, inside: inside ? decoded(inside) : null };
}

/**
 * A map without another of the same size.
 * @param {Grid} grid
 * @param {Grid} level
 * @returns {Grid}
 */
export function above(grid, level) {
  return { ...grid, codes: Int32Array.from(grid.codes, (code, i) => code - level.codes[i]) };
}

/**
 * The values of a map at `height` x `width` points, its corners on theirs; outside of a region of interest
 * they are negative.
 * @param {Grid} grid
 * @param {number} height
 * @param {number} width
 */
export function upsampled(grid, height, width) {
  if (!grid.inside) return interpolated(grid, height, width);
  const { inside } = grid;
  const known = { ...grid, codes: grid.codes.map((code, i) => (inside[i] ? code : 0)) };
  const shares = interpolated({ ...grid, codes: Uint16Array.from(inside, (each) => each * TOP) }, height, width);
  return interpolated(known, height, width).map((value, i) => {
    const share = shares[i] / MOST_DISTANCE;
    return share < 0.5 ? OUTSIDE : value / share;
  });
}

/**
 * @param {Grid} grid
 * @param {number} height
 * @param {number} width
 */
function interpolated(grid, height, width) {
  const values = new Float32Array(height * width);
  const unit = MOST_DISTANCE / TOP;
  const columns = steps(grid.width, width);
  const rows = steps(grid.height, height);
  for (let y = 0; y < height; y++) {
    const [top, down] = rows[y];
    const below = grid.height > 1 ? grid.width : 0;
    for (let x = 0; x < width; x++) {
      const [left, right] = columns[x];
      const at = top * grid.width + left;
      const beside = grid.width > 1 ? 1 : 0;
      const upper = grid.codes[at] * (1 - right) + grid.codes[at + beside] * right;
      const lower = grid.codes[at + below] * (1 - right) + grid.codes[at + below + beside] * right;
      values[y * width + x] = (upper * (1 - down) + lower * down) * unit;
    }
  }
  return values;
}

/**
 * For each of `points` the cell before it and how far it is to the next.
 * @param {number} cells
 * @param {number} points
 * @returns {[number, number][]}
 */
function steps(cells, points) {
  return Array.from({ length: points }, (_, i) => {
    const position = points > 1 ? (i * (cells - 1)) / (points - 1) : 0;
    const cell = Math.min(Math.floor(position), Math.max(cells - 2, 0));
    return [cell, position - cell];
  });
}

/**
 * Size of a drawing of an image whose longer side has `longest` points.
 * @param {number} width
 * @param {number} height
 * @param {number} longest
 */
export function fitted(width, height, longest) {
  const factor = longest / Math.max(width, height);
  return { width: Math.max(2, Math.round(width * factor)), height: Math.max(2, Math.round(height * factor)) };
}

/**
 * Draw a map onto a canvas, to lie over the gray image: what is ordinary stays clear.
 * @param {HTMLCanvasElement} canvas of the size in which it is drawn
 * @param {Grid} grid
 * @param {Scale} scale
 * @param {Uint8Array} colours 256 RGB values
 * @param {boolean} solid without an image below
 */
export function drawMap(canvas, grid, scale, colours, solid = false) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  if (!context) return;
  const values = upsampled(grid, height, width);
  const picture = context.createImageData(width, height);
  const span = scale.high - scale.low;
  for (let i = 0; i < values.length; i++) {
    const unit = Math.min(1, Math.max(0, (values[i] - scale.low) / span));
    const colour = 3 * Math.round(unit * 255);
    picture.data[4 * i] = colours[colour];
    picture.data[4 * i + 1] = colours[colour + 1];
    picture.data[4 * i + 2] = colours[colour + 2];
    picture.data[4 * i + 3] = solid ? 255 : Math.round(255 * WEIGHT * Math.sqrt(unit));
    if (values[i] < 0) picture.data.set([0, 0, 0, Math.round(255 * DIMMED)], 4 * i);
  }
  context.putImageData(picture, 0, 0);
}

/**
 * Draw the colours of the scale, from its lowest to its highest value.
 * @param {HTMLCanvasElement} canvas 256 pixels wide
 * @param {Uint8Array} colours
 */
export function drawRamp(canvas, colours) {
  const context = canvas.getContext("2d");
  if (!context) return;
  const picture = context.createImageData(256, 1);
  for (let i = 0; i < 256; i++) picture.data.set([...colours.subarray(3 * i, 3 * i + 3), 255], 4 * i);
  context.putImageData(picture, 0, 0);
}
