// Windows and look-up tables of a DICOM header, as functions of a value (PS3.3 C.11.1 and C.11.2).
import { numbers } from "./dicom_tags.js";
import { roundHalfEven } from "./errors.js";
import { rangeOf } from "./pixels.js";

const MOST_LEVELS = 65536;
const clip = (value, low, high) => Math.min(high, Math.max(low, value));

/** Return a window as PS3.3 C.11.2.1.2 and C.11.2.1.3 define it, onto 0 to 1. */
export function windowOf(centre, width, kind) {
  if (kind === "SIGMOID") return (value) => 1 / (1 + Math.exp(clip((-4 * (value - centre)) / width, -700, 700)));
  if (kind === "LINEAR_EXACT" || width <= 1) return (value) => clip((value - centre) / width + 0.5, 0, 1);  // LINEAR is not defined below 1
  return (value) => clip((value - (centre - 0.5)) / (width - 1) + 0.5, 0, 1);
}

/**
 * Read the look-up table of a sequence's item; null where it has no entries.
 *
 * Descriptor and entries come as 16-bit words, signed or not as the writer pleased; entries of 8 bits also two in a word.
 *
 * @param low the least of the values that are looked up.
 * @param high the greatest.
 * @returns {?{look: function, level: function}} value -> entry, and value -> 0 to 1.
 */
export function lookUpTable(item, low, high) {
  const descriptor = numbers(item, "LUTDescriptor").filter(Number.isFinite).map(Math.trunc);
  if (descriptor.length !== 3) return null;
  const [count, bits] = [modulo(descriptor[0]) || MOST_LEVELS, descriptor[2]];
  let words = numbers(item, "LUTData").filter(Number.isFinite).map(modulo);
  if (bits <= 8 && words.length < count && words.length === Math.floor((count + 1) / 2)) {
    words = words.flatMap((word) => [word & 255, word >> 8]);  // the first of two entries is the lower byte
  }
  const entries = words.slice(0, count);
  if (entries.length < 2) return null;
  const unsigned = modulo(descriptor[1]);
  const signed = unsigned >= MOST_LEVELS / 2 ? unsigned - MOST_LEVELS : unsigned;
  const overlap = (first) => Math.min(high, first + count - 1) - Math.max(low, first);
  const first = overlap(signed) > overlap(unsigned) ? signed : unsigned;
  const look = (value) => entries[clip(roundHalfEven(value - first), 0, entries.length - 1)];
  const [least, most] = rangeOf(entries);
  return { look, level: (value) => (look(value) - least) / Math.max(most - least, 1) };
}

const modulo = (word) => ((Math.trunc(word) % MOST_LEVELS) + MOST_LEVELS) % MOST_LEVELS;
