/** The scores as a histogram in the colours of the verdicts, with limits that can be moved. */

import { make, makeSvg } from "./dom.js";
import { distance } from "./text.js";

/** @typedef {import("./data.js").Row} Row */
/** @typedef {import("./judge.js").Verdict} Verdict */
/** @typedef {{low: number, high: number}} Span */

const KINDS = /** @type {const} */ (["not flagged", "", "review", "reject"]); // from the bottom up
const STEP = 0.001; // of a limit moved by the arrow keys, to the next multiple
const TEXT_REM = 7; // room for what is written at a limit
const LARGE_STEP = 0.01;

/**
 * The values that the axis shows: the images', and a limit that is not far from them.
 * @param {number[]} values
 * @param {(number | null)[]} limits
 * @returns {Span}
 */
export function spanOf(values, limits = []) {
  const low = values.reduce((a, b) => Math.min(a, b), Infinity);
  const most = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const near = limits.filter((limit) => limit !== null && limit < most + (most - low) / 2);
  const high = near.reduce((a, b) => Math.max(/** @type {number} */ (a), /** @type {number} */ (b)), most) ?? most;
  const margin = Math.max((high - low) * 0.04, 0.005);
  return { low: Math.max(0, low - margin), high: high + margin };
}

/**
 * Round values for an axis.
 * @param {Span} span
 * @param {number} most
 */
export function ticksOf(span, most) {
  const rough = (span.high - span.low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = /** @type {number} */ ([1, 2, 5, 10].map((k) => k * power).find((each) => each >= rough));
  const first = Math.ceil(span.low / step);
  const last = Math.floor(span.high / step);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return Array.from({ length: last - first + 1 }, (_, i) => ({ value: (first + i) * step, text: ((first + i) * step).toFixed(digits) }));
}

/**
 * How many images of each kind of verdict are in each of `bins`.
 * @param {Row[]} rows with a score
 * @param {Verdict[]} verdicts
 * @param {Span} span
 * @param {number} bins
 */
export function countsOf(rows, verdicts, span, bins) {
  const counts = KINDS.map(() => new Uint32Array(bins));
  const each = (span.high - span.low) / bins;
  for (const row of rows) {
    const bin = Math.min(bins - 1, Math.max(0, Math.floor((row.value - span.low) / each)));
    const kind = KINDS.indexOf(/** @type {typeof KINDS[number]} */ (verdicts[row.index]));
    if (kind >= 0) counts[kind][bin]++;
  }
  return counts;
}

/**
 * The next multiple of a step, up or down.
 * @param {number} value
 * @param {number} step below zero: down
 */
export function stepped(value, step) {
  const size = Math.abs(step);
  const near = value / size;
  return (step > 0 ? Math.floor(near + 1e-6) + 1 : Math.ceil(near - 1e-6) - 1) * size;
}

/**
 * What handles tell: a limit was moved, is about to be, or is to go back to where it was then.
 * @typedef {object} Moves
 * @property {(value: number | null) => void} reject
 * @property {(value: number | null) => void} review
 * @property {() => void} began
 * @property {() => void} undone
 */

/** A limit that is moved by pointer, touch or keys: null at its right end. */
class Handle {
  /**
   * @param {"reject" | "review"} name
   * @param {Moves} moves
   */
  constructor(name, moves) {
    this.name = name;
    this.moves = moves;
    /** @type {number | null} */
    this.value = null;
    /** @type {Span} */
    this.span = { low: 0, high: 1 };
    this.text = make("span", { class: "handle-text" });
    this.element = make(
      "div",
      { class: `handle ${name}`, role: "slider", tabindex: "0", "aria-label": `${name === "reject" ? "Reject" : "Review"} from`, "aria-orientation": "horizontal" },
      this.text,
    );
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.element.addEventListener("focus", () => moves.began());
    this.element.addEventListener("pointerdown", (event) => {
      event.stopPropagation();
      this.grab(event);
    });
    this.element.addEventListener("pointermove", (event) => {
      if (this.element.hasPointerCapture(event.pointerId)) this.#follow(event.clientX);
    });
  }

  /** @param {PointerEvent} event */
  grab(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.element.setPointerCapture(event.pointerId);
    this.element.focus();
    this.moves.began();
    this.#follow(event.clientX);
  }

  /**
   * @param {number | null} value
   * @param {Span} span
   * @param {string} effect what the limit does, in words
   */
  show(value, span, effect) {
    this.value = value;
    this.span = span;
    const place = value === null ? 1 : Math.min(1, Math.max(0, (value - span.low) / (span.high - span.low)));
    this.element.style.left = `${place * 100}%`;
    this.element.classList.toggle("at-end", place > 0.8);
    this.element.classList.toggle("none", value === null);
    this.text.textContent = value === null ? `no ${this.name} limit` : `${this.name} ${distance(value)}`;
    this.element.setAttribute("aria-valuemin", distance(span.low));
    this.element.setAttribute("aria-valuemax", distance(span.high));
    this.element.setAttribute("aria-valuenow", distance(value ?? span.high));
    this.element.setAttribute("aria-valuetext", value === null ? "no limit" : `${distance(value)}: ${effect}`);
  }

  /**
   * Write what this limit is to the left of its line, if another limit's line is close on its right.
   * @param {Handle} other
   * @param {number} width of the track
   */
  keepClearOf(other, width) {
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const [here, there] = [this, other].map(({ value, span }) => (((value ?? span.high) - span.low) / (span.high - span.low)) * width);
    if (there - here < TEXT_REM * rem && here > TEXT_REM * rem) this.element.classList.add("at-end");
  }

  /** @param {number} clientX */
  #follow(clientX) {
    const box = /** @type {HTMLElement} */ (this.element.parentElement).getBoundingClientRect();
    this.#set(this.span.low + ((clientX - box.left) / box.width) * (this.span.high - this.span.low));
  }

  /** @param {number} value */
  #set(value) {
    const { low, high } = this.span;
    this.moves[this.name](value >= high - 1e-9 ? null : Math.round(Math.max(low, value) * 1e4) / 1e4);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const { low, high } = this.span;
    const now = this.value ?? high;
    const [down, up] = [stepped(now, -STEP), stepped(now, STEP)];
    /** @type {Record<string, number>} */
    const to = {
      ArrowLeft: down, ArrowDown: down, ArrowRight: up, ArrowUp: up,
      PageDown: stepped(now, -LARGE_STEP), PageUp: stepped(now, LARGE_STEP), Home: low, End: high,
    };
    if (event.key === "Escape") this.moves.undone();
    if (!(event.key in to) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.#set(to[event.key]);
  }
}

/** The histogram of a lot. */
export class Histogram {
  /**
   * @param {HTMLElement} place
   * @param {Moves} moves
   */
  constructor(place, moves) {
    this.plot = makeSvg("svg", { class: "bars", "aria-hidden": "true" });
    this.axis = makeSvg("svg", { class: "axis", "aria-hidden": "true" });
    this.reject = new Handle("reject", moves);
    this.review = new Handle("review", moves);
    this.track = make("div", { class: "track" }, this.plot, this.review.element, this.reject.element);
    place.replaceChildren(this.track, this.axis);
    this.track.addEventListener("pointerdown", (event) => this.reject.grab(event));
    /** @type {SVGElement[][]} */
    this.bars = [];
    /** @type {Row[]} */
    this.rows = [];
    /** @type {Span} */
    this.span = { low: 0, high: 1 };
    this.size = { width: 0, height: 0 };
    this.reviewed = false; // whether there was a limit for review
    this.drawn = new Float64Array(); // where each bar begins and how tall it is
  }

  /**
   * @param {Row[]} rows of a lot, those without a score left out
   * @param {(number | null)[]} limits of the results
   */
  open(rows, limits) {
    this.rows = rows;
    this.reviewed = false;
    this.span = spanOf(rows.map((row) => row.value), limits);
    this.size = { width: 0, height: 0 };
  }

  /** Take the size that the page gives anew, the next time. */
  resized() {
    this.size = { width: 0, height: 0 };
  }

  #fit() {
    const { width, height } = this.track.getBoundingClientRect();
    this.size = { width, height };
    const bins = Math.max(12, Math.min(80, Math.floor(width / 9), 3 * Math.ceil(Math.sqrt(this.rows.length))));
    this.plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.bars = KINDS.map((kind) => Array.from({ length: bins }, () => makeSvg("rect", { class: kind ? kind.replace(" ", "-") : "unjudged" })));
    this.bars.flat().forEach((bar, i) => {
      bar.setAttribute("x", ((i % bins) * (width / bins) + 0.75).toFixed(2));
      bar.setAttribute("width", Math.max(1, width / bins - 1.5).toFixed(2));
    });
    this.drawn = new Float64Array(2 * this.bars.length * bins).fill(-1);
    this.plot.replaceChildren(...this.bars.flat());
    this.#drawAxis(width);
  }

  /** @param {number} width */
  #drawAxis(width) {
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    this.axis.setAttribute("viewBox", `0 0 ${width} ${2 * rem}`);
    const marks = ticksOf(this.span, Math.max(3, width / (7 * rem))).map(({ value, text }) => {
      const x = ((value - this.span.low) / (this.span.high - this.span.low)) * width;
      return makeSvg("g", { transform: `translate(${x.toFixed(1)} 0)` }, makeSvg("line", { y2: 5 }), makeSvg("text", { y: 1.75 * rem, "text-anchor": x < 15 ? "start" : x > width - 15 ? "end" : "middle" }, text));
    });
    this.axis.replaceChildren(...marks);
  }

  /**
   * Draw a bar, if it changed: most do not while a limit moves.
   * @param {number} kind
   * @param {number} bin
   * @param {number} bottom
   * @param {number} tall
   */
  #draw(kind, bin, bottom, tall) {
    const at = 2 * (kind * this.bars[0].length + bin);
    if (this.drawn[at] === bottom && this.drawn[at + 1] === tall) return;
    this.drawn.set([bottom, tall], at);
    this.bars[kind][bin].setAttribute("y", bottom.toFixed(2));
    this.bars[kind][bin].setAttribute("height", tall.toFixed(2));
  }

  /**
   * @param {Verdict[]} verdicts
   * @param {{reject: number | null, review: number | null}} limits
   * @param {{reject: string, review: string}} effects
   */
  show(verdicts, limits, effects) {
    if (!this.size.width) this.#fit();
    const bins = this.bars[0].length;
    const counts = countsOf(this.rows, verdicts, this.span, bins);
    const most = Math.max(1, ...counts[0].map((_, bin) => counts.reduce((sum, kind) => sum + kind[bin], 0)));
    const { height } = this.size;
    for (let bin = 0; bin < bins; bin++) {
      let bottom = height;
      counts.forEach((kind, k) => {
        const tall = kind[bin] && Math.max(2, (kind[bin] / most) * (height - 24));
        bottom -= tall;
        this.#draw(k, bin, bottom, tall);
      });
    }
    this.reject.show(limits.reject, this.span, effects.reject);
    this.review.show(limits.review, this.span, effects.review);
    this.review.keepClearOf(this.reject, this.size.width);
    this.reviewed ||= limits.review !== null;
    this.review.element.hidden = !this.reviewed;
  }
}
