// Pixel values of any range -> 8-bit grey, as pixels_cxrfpn.py does it. A picture is {pixels, width, height}.
import { RadiographError, general, roundHalfEven } from "./errors.js";

// As the demo's: twice the largest chest detector.
export const MAX_PIXELS = 30_000_000;
export const MAX_SIDE = 65_535;
// The scale at which the range of grey levels is measured, in pixels of the shorter side.
const THUMBNAIL_SIDE = 128;
// The range of single precision.
const LEAST = 1.1754943508222875e-38;
const MOST = 3.4028234663852886e38;

/** Raise a RadiographError for an image that would take more memory, or time, than any radiograph. */
export function checkSize(width, height, name) {
  if (Math.max(width, height) > MAX_SIDE || width * height > MAX_PIXELS) {
    throw new RadiographError(
      `${name}: ${width} x ${height} pixels are more than ${MAX_PIXELS / 1e6} million, or a side is longer than ${MAX_SIDE}; shrink it`);
  }
}

/** Return the grey level of a colour, with the weights of ITU-R 601 as Pillow applies them. */
export const luma = (red, green, blue) => (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;

/**
 * Map the range that the radiograph takes at thumbnail scale, linearly, onto 0 to 255.
 *
 * @param values a typed array of height * width numbers.
 * @param padding null, or a mask of as many: 1 where a pixel is none of the picture.
 * @returns {Uint8Array} `values` itself where nothing has to change.
 */
export function stretchTo8Bits(values, width, height, name, padding = null) {
  if (!values.length) throw new RadiographError(`${name}: has no pixels`);
  let [low, high] = rangeOf(values, padding);
  if (!(Number.isFinite(low) && Number.isFinite(high))) throw new RadiographError(`${name}: has pixels that are not finite numbers`);
  if (low === high) throw new RadiographError(`${name}: every pixel has the value ${general(low)}, so there is nothing to see`);
  if (!(high - low >= LEAST && high - low <= MOST)) {
    throw new RadiographError(`${name}: pixels from ${general(low)} to ${general(high)} are no grey levels; rescale them`);
  }
  [low, high] = thumbnailRange(values, width, height, low, high, padding);
  if (values instanceof Uint8Array && low === 0 && high === 255) return values;
  const scale = 255 / (high - low);
  const level = (value) => Math.min(255, Math.max(0, roundHalfEven((value - low) * scale)));
  const stretched = new Uint8Array(values.length);
  if (values instanceof Uint8Array || values instanceof Uint16Array) {
    const table = Uint8Array.from({ length: values instanceof Uint8Array ? 256 : 65536 }, (_, value) => level(value));
    for (let index = 0; index < values.length; index++) stretched[index] = table[values[index]];
  } else {
    for (let index = 0; index < values.length; index++) stretched[index] = level(values[index]);
  }
  return stretched;
}

/** Return the lowest and the highest value that is no padding; NaN where one is not a number. */
export function rangeOf(values, padding = null) {
  let [low, high] = [Infinity, -Infinity];
  for (let index = 0; index < values.length; index++) {
    if (padding !== null && padding[index]) continue;
    const value = values[index];
    if (Number.isNaN(value)) return [NaN, NaN];
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

/** Return the lowest and highest mean over squares that leave 128 to 255 pixels a side, without those of padding. */
function thumbnailRange(values, width, height, low, high, padding) {
  const factor = Math.floor(Math.min(width, height) / THUMBNAIL_SIDE);
  if (factor < 2) return [low, high];
  const [rows, columns] = [Math.floor(height / factor), Math.floor(width / factor)];
  let [least, most] = [Infinity, -Infinity];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      let [sum, padded] = [0, 0];
      for (let y = row * factor; y < (row + 1) * factor; y++) {
        const start = y * width + column * factor;
        for (let index = start; index < start + factor; index++) {
          sum += values[index];
          if (padding !== null) padded += padding[index];
        }
      }
      if (padded) continue;
      if (sum < least) least = sum;
      if (sum > most) most = sum;
    }
  }
  [least, most] = [least / factor ** 2, most / factor ** 2];
  return most - least >= LEAST ? [least, most] : [low, high];
}
