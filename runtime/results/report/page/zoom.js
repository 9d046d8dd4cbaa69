/** Zoom into a picture and move it, by wheel, pointer, two fingers and keys. */

const MOST = 24;
const STEP = 1.5;

export class Zoom {
  /**
   * @param {HTMLElement} stage what can be seen of it
   * @param {HTMLElement} picture in the middle of the stage
   */
  constructor(stage, picture) {
    this.stage = stage;
    this.picture = picture;
    this.factor = 1;
    this.x = 0;
    this.y = 0;
    /** @type {Map<number, {x: number, y: number}>} */
    this.fingers = new Map();
    stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    stage.addEventListener("pointerdown", (event) => this.#down(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of /** @type {const} */ (["pointerup", "pointercancel"])) {
      stage.addEventListener(end, (event) => this.fingers.delete(event.pointerId));
    }
    stage.addEventListener("dblclick", (event) => (this.factor > 1 ? this.reset() : this.by(4, event.clientX, event.clientY)));
  }

  reset() {
    this.factor = 1;
    this.x = 0;
    this.y = 0;
    this.#apply();
  }

  /** @param {number} steps in, if positive */
  step(steps) {
    this.by(STEP ** steps);
  }

  /**
   * Zoom by a factor about a point, by default the middle.
   * @param {number} factor
   * @param {number} [clientX]
   * @param {number} [clientY]
   */
  by(factor, clientX, clientY) {
    const box = this.stage.getBoundingClientRect();
    const px = clientX === undefined ? 0 : clientX - box.left - box.width / 2;
    const py = clientY === undefined ? 0 : clientY - box.top - box.height / 2;
    const next = Math.min(MOST, Math.max(1, this.factor * factor));
    const ratio = next / this.factor;
    this.x = px - (px - this.x) * ratio;
    this.y = py - (py - this.y) * ratio;
    this.factor = next;
    this.#apply();
  }

  #apply() {
    const box = this.picture;
    const room = (/** @type {number} */ size) => (size * this.factor) / 2;
    const [right, down] = [room(box.offsetWidth), room(box.offsetHeight)];
    this.x = this.factor === 1 ? 0 : Math.min(right, Math.max(-right, this.x));
    this.y = this.factor === 1 ? 0 : Math.min(down, Math.max(-down, this.y));
    this.picture.style.transform = this.factor === 1 ? "" : `translate(${this.x}px, ${this.y}px) scale(${this.factor})`;
    this.picture.classList.toggle("sharp", this.factor * box.offsetWidth > 4 * box.clientWidth);
    this.stage.classList.toggle("zoomed", this.factor > 1);
  }

  /** @param {WheelEvent} event */
  #wheel(event) {
    event.preventDefault();
    this.by(2 ** (-event.deltaY / (event.deltaMode ? 10 : 250)), event.clientX, event.clientY);
  }

  /** @param {PointerEvent} event */
  #down(event) {
    if (event.button !== 0) return;
    this.fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.stage.setPointerCapture(event.pointerId);
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return;
    const now = { x: event.clientX, y: event.clientY };
    const other = [...this.fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const apart = (/** @type {{x: number, y: number}} */ at) => Math.hypot(at.x - other.x, at.y - other.y) || 1;
      this.by(apart(now) / apart(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
    } else if (this.factor > 1) {
      this.x += now.x - before.x;
      this.y += now.y - before.y;
      this.#apply();
    }
    this.fingers.set(event.pointerId, now);
  }
}
