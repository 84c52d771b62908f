// Lossless JPEG of one component, 2 to 16 bits (ITU-T T.81, annex H).
import { Bits, JpegError } from "./jpeg_entropy.js";

/** Return what a pixel is predicted to be, by the number of the predictor: of its left, upper and upper left neighbour. */
const PREDICTORS = {
  1: (left) => left,
  2: (left, upper) => upper,
  3: (left, upper, corner) => corner,
  4: (left, upper, corner) => left + upper - corner,
  5: (left, upper, corner) => left + ((upper - corner) >> 1),
  6: (left, upper, corner) => upper + ((left - corner) >> 1),
  7: (left, upper) => (left + upper) >> 1,
};

/**
 * Decode the only scan of a lossless JPEG.
 *
 * @returns {{pixels: Uint16Array, end: number}} and where the scan ends.
 * @throws {JpegError}
 */
export function decodeLossless(bytes, place, { components, start, low }, { frame, interval }) {
  const { width, height, precision } = frame;
  const predict = PREDICTORS[start];
  if (frame.components.length !== 1 || predict === undefined || precision < 2 || precision > 16) throw new JpegError("a kind that is not read");
  const bits = new Bits(bytes, place);
  const pixels = new Uint16Array(width * height);
  const first = 1 << (precision - low - 1);
  let isFirstRow = true;
  for (let row = 0, index = 0; row < height; row++) {
    if (interval && row && (row * width) % interval === 0) {
      bits.nextInterval();
      isFirstRow = true;
    }
    for (let column = 0; column < width; column++, index++) {
      let guess;
      if (column === 0) guess = isFirstRow ? first : pixels[index - width];
      else if (isFirstRow) guess = pixels[index - 1];
      else guess = predict(pixels[index - 1], pixels[index - width], pixels[index - width - 1]);
      const length = bits.symbol(components[0].dc);
      if (length > 16) throw new JpegError("a difference");
      pixels[index] = guess + (length === 16 ? 32768 : bits.signed(length));
    }
    isFirstRow = false;
  }
  if (low) pixels.forEach((value, index) => { pixels[index] = value << low; });
  return { pixels, end: bits.place };
}
