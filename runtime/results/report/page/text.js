/** Names and numbers as text, and names as bytes. */

/** Characters that cannot be seen or reorder what is around them; joiners belong to some scripts. */
const UNSEEN = /(?![\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/**
 * A file's name as it can be shown anywhere: bytes that are not UTF-8, and what cannot be seen, as escapes.
 * @param {string} name
 */
export function shownName(name) {
  return name.replace(UNSEEN, (c) => {
    const code = /** @type {number} */ (c.codePointAt(0));
    return code >= 0xdc80 && code <= 0xdcff ? `\\x${(code - 0xdc00).toString(16)}` : `\\u{${code.toString(16)}}`;
  });
}

/**
 * The bytes of a file's name; those that are not UTF-8 come as the halves of characters that Python makes of them.
 * @param {string} name
 */
export function nameBytes(name) {
  /** @type {number[]} */
  const bytes = [];
  const encoder = new TextEncoder();
  for (const c of name) {
    const code = /** @type {number} */ (c.codePointAt(0));
    if (code >= 0xdc80 && code <= 0xdcff) bytes.push(code - 0xdc00);
    else bytes.push(...encoder.encode(c));
  }
  return Uint8Array.from(bytes);
}

/**
 * A name as part of an address.
 * @param {string} name
 */
export function percent(name) {
  const plain = /[A-Za-z0-9._~/-]/;
  return Array.from(nameBytes(name), (byte) => {
    const c = String.fromCharCode(byte);
    return plain.test(c) ? c : `%${byte.toString(16).padStart(2, "0").toUpperCase()}`;
  }).join("");
}

/**
 * The address of an image's large view.
 * @param {string} name
 */
export function addressOf(name) {
  return `#image=${percent(name)}`;
}

/**
 * A name that fits on one line: its middle left out, since series of images differ at the end.
 * @param {string} name
 * @param {number} most characters
 */
export function shortened(name, most) {
  const letters = Array.from(name);
  if (letters.length <= most) return name;
  const tail = Math.ceil((most - 1) * 0.6);
  return `${letters.slice(0, most - 1 - tail).join("")}…${letters.slice(-tail).join("")}`;
}

/**
 * A distance with three decimals, or as many as asked for.
 * @param {number} value
 */
export function distance(value, digits = 3) {
  return value.toFixed(digits);
}

/**
 * A number with its noun.
 * @param {number} count
 * @param {string} noun
 */
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}
