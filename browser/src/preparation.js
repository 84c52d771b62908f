// How a radiograph becomes the network's pixels, as preparation_cxrfpn.py does it; the settings are preprocessor_config.json.
import { roundHalfEven } from "./errors.js";
import { BICUBIC, BILINEAR, resize } from "./resize.js";

// A JPEG decoded at reduced scale keeps this many times the pixels that are needed, on each side.
const PIXELS_KEPT = 2;
const CHANNELS = 3;

/** Return the central crop's left, top, right and bottom edge, in pixels. */
export function cropBox(width, height, cropFraction) {
  const [left, top] = [(width * (1 - cropFraction)) / 2, (height * (1 - cropFraction)) / 2];
  return [left, top, width - left, height - top];
}

/** Return how many pixels a side a JPEG must keep if it is decoded at reduced scale. */
export function leastSide({ size, crop_fraction, prepared_size }) {
  return PIXELS_KEPT * (prepared_size || roundHalfEven(Math.max(size.height, size.width) / crop_fraction));
}

/** Cut the centre out of a picture of 8 bits, and resize it to the network's size. */
export function crop(picture, settings) {
  const { size, crop_fraction, prepared_size, resample } = settings;
  const whole = prepared_size ? resize(picture, prepared_size, prepared_size, BILINEAR) : picture;
  return resize(whole, size.width, size.height, resample, cropBox(whole.width, whole.height, crop_fraction));
}

/** Turn a crop of 8 bits into pixel_values [3,H,W], normalised. */
export function normalise({ pixels }, settings) {
  const scale = settings.do_rescale ? settings.rescale_factor : 1;
  const values = new Float32Array(CHANNELS * pixels.length);
  for (let channel = 0; channel < CHANNELS; channel++) {
    const [mean, deviation] = settings.do_normalize ? [settings.image_mean[channel], settings.image_std[channel]] : [0, 1];
    const table = Float32Array.from({ length: 256 }, (_, grey) => (grey * scale - mean) / deviation);
    for (let index = 0; index < pixels.length; index++) values[channel * pixels.length + index] = table[pixels[index]];
  }
  return values;
}

/**
 * Lay a finding map over the radiograph. What the crop left out was never seen and is 0.
 *
 * @param map {pixels, width, height} of 0 to 1, a Float32Array over the crop.
 * @returns {Float32Array} width * height of 0 to 1.
 */
export function placeMap(map, width, height, cropFraction) {
  const [left, top, right, bottom] = cropBox(width, height, cropFraction).map(roundHalfEven);
  const seen = resize(map, right - left, bottom - top, BICUBIC);
  const placed = new Float32Array(width * height);
  for (let row = 0; row < seen.height; row++) {
    for (let column = 0; column < seen.width; column++) {
      const level = seen.pixels[row * seen.width + column];
      placed[(top + row) * width + left + column] = Math.min(1, Math.max(0, level));
    }
  }
  return placed;
}
