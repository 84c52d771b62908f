// Pillow's resize, to the last bit: antialiased, along rows and then along columns, with 22 bits of precision.
// Formulas: src/libImaging/Resample.c of Pillow.

const PRECISION_BITS = 22;
const A = -0.5;  // of the cubic

const bilinear = { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) };
const box = { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) };
const bicubic = {
  support: 2,
  weight(distance) {
    const x = Math.abs(distance);
    if (x < 1) return ((A + 2) * x - (A + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * A : 0;
  },
};
/** Filters by the numbers that Pillow, and preprocessor_config.json, give them. */
export const FILTERS = { 2: bilinear, 3: bicubic, 4: box };
export const [BILINEAR, BICUBIC, BOX] = [2, 3, 4];

/** Return for each place of the output where its input begins, and the weights of its inputs. */
function coefficients(inputSize, from, to, outputSize, { support, weight }) {
  const [first, last] = [Math.fround(from), Math.fround(to)];
  const scale = Math.fround(last - first) / outputSize;
  const filterScale = Math.max(scale, 1);
  const reach = support * filterScale;
  return Array.from({ length: outputSize }, (_, place) => {
    const centre = first + (place + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(inputSize, Math.trunc(centre + reach + 0.5));
    const weights = new Float64Array(Math.max(0, end - start));
    let sum = 0;
    for (let x = 0; x < weights.length; x++) {
      weights[x] = weight((x + start - centre + 0.5) * (1 / filterScale));
      sum += weights[x];
    }
    if (sum !== 0) for (let x = 0; x < weights.length; x++) weights[x] /= sum;
    return { start, weights };
  });
}

const whole = ({ start, weights }) => ({
  start,
  weights: Int32Array.from(weights, (weight) => Math.trunc(weight * 2 ** PRECISION_BITS + (weight < 0 ? -0.5 : 0.5))),
});

/**
 * Resize a grey picture.
 *
 * @param picture {pixels, width, height}: pixels of a Uint8Array, rounded after each pass as Pillow does, or a Float32Array.
 * @param edges [left, top, right, bottom] in pixels, the part that is seen; fractions count.
 * @returns {{pixels, width, height}} of the same type.
 */
export function resize(picture, width, height, filter, edges = [0, 0, picture.width, picture.height]) {
  const [left, top, right, bottom] = edges;
  const kind = FILTERS[filter];
  if (kind === undefined) throw new Error(`resampling filter ${filter} is not known here`);
  let seen = picture;
  if (width !== picture.width || left !== 0 || right !== width) {
    seen = pass(seen, width, true, coefficients(picture.width, left, right, width, kind));
  }
  if (height !== picture.height || top !== 0 || bottom !== height) {
    seen = pass(seen, height, false, coefficients(picture.height, top, bottom, height, kind));
  }
  return seen;
}

function pass(picture, size, isAlongRows, plans) {
  const { pixels, width, height } = picture;
  const isWhole = pixels instanceof Uint8Array;
  const [outputWidth, outputHeight] = isAlongRows ? [size, height] : [width, size];
  const output = new pixels.constructor(outputWidth * outputHeight);
  const step = isAlongRows ? 1 : width;
  const rounded = isWhole ? plans.map(whole) : plans;
  for (let y = 0; y < outputHeight; y++) {
    for (let x = 0; x < outputWidth; x++) {
      const { start, weights } = rounded[isAlongRows ? x : y];
      let place = isAlongRows ? y * width + start : start * width + x;
      let sum = isWhole ? 1 << (PRECISION_BITS - 1) : 0;
      for (let index = 0; index < weights.length; index++, place += step) sum += pixels[place] * weights[index];
      output[y * outputWidth + x] = isWhole ? Math.min(255, Math.max(0, sum >> PRECISION_BITS)) : sum;
    }
  }
  return { pixels: output, width: outputWidth, height: outputHeight };
}
