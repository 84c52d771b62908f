// The bits of a DICOM frame -> the values that they really hold, and which pixels are padding, as dicom_bits_cxrfpn.py does it.
import { whole } from "./dicom_tags.js";
import { rangeOf } from "./pixels.js";

const SIGNED = { 1: Int8Array, 2: Int16Array, 4: Int32Array };
// Rows that are compared to tell which reading of the bits is right.
const PROBE_ROWS = 64;
// How much smaller the jumps from pixel to pixel must be for the header's sign to be taken for wrong.
const MUCH_SMOOTHER = 0.8;

const asSigned = (raw) => new SIGNED[raw.BYTES_PER_ELEMENT](raw.buffer, raw.byteOffset, raw.length);
const unchanged = (raw) => raw;

/**
 * Interpret integers, unused bits included, by the header or, where it cannot be right, by the pixels.
 *
 * @param raw a Uint8Array, Uint16Array or Uint32Array of height rows.
 * @param notes is added to.
 * @returns {{values, padding}} values of an integer type; padding is null, or a Uint8Array of 0 and 1.
 */
export function trueValues(raw, width, dataset, notes) {
  const allocated = 8 * raw.BYTES_PER_ELEMENT;
  const isSigned = whole(dataset, "PixelRepresentation") === 1;
  const said = whole(dataset, "BitsStored", allocated);
  const stored = said >= 1 && said <= allocated ? said : allocated;
  const shift = Math.min(Math.max(whole(dataset, "HighBit", stored - 1) - (stored - 1), 0), allocated - stored);
  const limits = paddingLimits(dataset, allocated);
  let padding = within(isSigned ? asSigned(raw) : raw, limits, isSigned, allocated);
  const seen = padding === null ? raw : raw.filter((_, index) => !padding[index]);
  if (!seen.length) return { values: raw, padding };
  const liesLow = shift > 0 && (seen.reduce((bits, value) => bits | value, 0) & (2 ** shift - 1)) !== 0;
  const [header, others, factor] = readings(seen, stored, liesLow ? 0 : shift, isSigned);
  const read = smoothest(raw, width, padding, header, others, factor);
  if (read !== header || liesLow) {
    notes.push("The header is wrong about the pixels' bits (BitsStored, HighBit or sign); read as they are.");
  }
  const values = read(raw);
  if (limits !== null && values.buffer !== raw.buffer) {  // padding as the stored bits spell it
    const more = within(values, limits, isSigned, allocated);
    padding = padding === null ? more : more === null ? padding : padding.map((one, index) => one | more[index]);
  }
  return { values, padding };
}

/** Return the header's reading; others, where the bits allow of them; and how much smoother than the header's they must be. */
function readings(seen, stored, shift, isSigned) {
  const unused = 8 * seen.BYTES_PER_ELEMENT - stored;
  const masked = (raw) => (stored === 32 ? raw : raw.map((value) => value & (2 ** stored - 1)));
  const extended = (raw) => asSigned(raw.map((value) => value << unused)).map((value) => value >> unused);
  const byHeader = isSigned ? extended : masked;
  if (shift) return [(raw) => byHeader(raw.map((value) => value >>> shift)), [], MUCH_SMOOTHER];
  const [half, [least, most]] = [2 ** (stored - 1), rangeOf(seen)];
  if (most < 2 ** stored) {  // the unused bits are zero
    const header = isSigned && most >= half ? extended : unchanged;
    const hasBothSigns = least < half && half <= most;
    return [header, hasBothSigns ? [isSigned ? unchanged : extended] : [], MUCH_SMOOTHER];
  }
  const [lowest, highest] = rangeOf(asSigned(seen));
  if (isSigned && -half <= lowest && highest < half) {  // they repeat the sign, as is usual
    return [asSigned, lowest < 0 && highest >= 0 ? [masked] : [], MUCH_SMOOTHER];
  }
  // They are used: the values have more bits than the header says, or the bits are an overlay's.
  return [byHeader, [asSigned, unchanged], 1];
}

/** Return the header's reading, unless another is smoother by this factor: a wrong one is torn where its values wrap. */
function smoothest(raw, width, padding, header, others, factor) {
  if (!others.length) return header;
  const height = raw.length / width;
  const step = Math.max(1, Math.floor(height / PROBE_ROWS));
  const rows = Array.from({ length: Math.ceil(height / step) }, (_, index) => index * step * width);
  const roughness = (read) => {
    let [sum, count] = [0, 0];
    for (const start of rows) {
      const row = read(raw.slice(start, start + width));
      for (let x = 1; x < width; x++) {
        if (padding !== null && (padding[start + x] || padding[start + x - 1])) continue;
        sum += Math.abs(row[x] - row[x - 1]);
        count++;
      }
    }
    return count ? sum / count : 0;
  };
  const [best] = others.map((read) => [roughness(read), read]).sort((one, other) => one[0] - other[0]);
  return best[0] < factor * roughness(header) ? best[1] : header;
}

function paddingLimits(dataset, allocated) {
  const value = whole(dataset, "PixelPaddingValue");
  if (value === null) return null;
  const [limit, all] = [whole(dataset, "PixelPaddingRangeLimit", value), 2 ** allocated];
  return [value, limit].map((each) => ((each % all) + all) % all);
}

/** Return where values lie between the limits of padding, which are bits as the pixels' are; null where nowhere. */
function within(values, limits, isSigned, allocated) {
  if (limits === null) return null;
  const half = 2 ** (allocated - 1);
  const [low, high] = limits.map((limit) => (isSigned && limit >= half ? limit - 2 * half : limit)).sort((one, other) => one - other);
  const inside = Uint8Array.from(values, (value) => (value >= low && value <= high ? 1 : 0));
  return inside.includes(1) ? inside : null;
}
