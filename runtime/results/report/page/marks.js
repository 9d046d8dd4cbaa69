/** What a person said of the images: marks and remarks, kept in the browser. */

/** @typedef {{mark: string, remark: string}} Mark */
/** @typedef {import("./data.js").Content} Content */

const NONE = Object.freeze({ mark: "", remark: "" });

/** The marks of a lot with one bundle; those of the results are there from the beginning. */
export class Marks {
  /** @param {Content} content */
  constructor(content) {
    const [first] = content.lots;
    /** Images of the results that have a score: others cannot be marked. */
    this.names = new Set(content.lots.flatMap((part) => part.images.filter(({ status }) => status === "ok").map(({ name }) => name)));
    this.key = `musc-edge marks 1 ${String(first.bundle.sha256)} ${first.lot}`;
    /** @type {Map<string, Mark>} */
    this.known = new Map();
    for (const part of content.lots) {
      for (const [name, mark] of Object.entries(part.verdicts?.marks ?? {})) this.known.set(name, mark);
    }
    this.kept = this.#restore();
  }

  /** @param {string} name */
  get(name) {
    return this.known.get(name) ?? NONE;
  }

  /**
   * @param {string} name
   * @param {Partial<Mark>} change
   */
  set(name, change) {
    this.known.set(name, { ...this.get(name), ...change });
    this.kept = this.#keep();
  }

  /** Marks and remarks that say something, and those that were taken back. */
  entries() {
    return [...this.known].sort(([a], [b]) => (a < b ? -1 : 1));
  }

  /** How many images have a mark or a remark. */
  get size() {
    return this.entries().filter(([, { mark, remark }]) => mark || remark).length;
  }

  /** Whether the browser keeps them. */
  #keep() {
    try {
      localStorage.setItem(this.key, JSON.stringify([...this.known]));
      return true;
    } catch {
      return false; // it forbids that to files, or is full
    }
  }

  #restore() {
    try {
      const text = localStorage.getItem(this.key);
      for (const [name, { mark, remark }] of text ? JSON.parse(text) : []) {
        if (this.names.has(name)) this.known.set(name, { mark: String(mark), remark: String(remark) });
      }
      localStorage.setItem(`${this.key} try`, "");
      localStorage.removeItem(`${this.key} try`);
      return true;
    } catch {
      return false;
    }
  }
}
