// WebP -> grey of 8 bits, by libwebp.
import decode, { init } from "@jsquash/webp/decode.js";

import { wasmOf } from "./codecs.js";
import { RadiographError } from "./errors.js";
import { latin1, viewOf } from "./inflating.js";
import { exifOrientation, xmpOrientation } from "./orientation.js";
import { checkSize, luma } from "./pixels.js";
import { over } from "./png.js";

const ANIMATED = 2;
const MAX_PARTS = 70_000;
let ready = null;

/**
 * Decode a WebP.
 *
 * @returns {Promise<{pixels: Uint8Array, width, height, orientation}>}
 * @throws {RadiographError} it is damaged, too large, or an animation.
 */
export async function decodeWebp(bytes, name) {
  const orientation = readChunks(bytes, name);
  ready ??= wasmOf("webp").then((module) => init(module));
  await ready;
  let image;
  try {
    image = await decode(bytes.slice().buffer);
  } catch {
    throw new RadiographError(`${name}: damaged or truncated (the WebP cannot be decoded)`);
  }
  const { data, width, height } = image;
  const pixels = new Uint8Array(width * height);
  for (let index = 0, place = 0; index < pixels.length; index++, place += 4) {
    const alpha = data[place + 3];
    pixels[index] = luma(over(data[place], alpha), over(data[place + 1], alpha), over(data[place + 2], alpha));
  }
  return { pixels, width, height, orientation };
}

/** Check what a WebP is made of before anything is decoded; return its orientation. */
function readChunks(bytes, name) {
  const view = viewOf(bytes);
  let orientation = null;
  let place = 12;
  for (let count = 0; place + 8 <= bytes.length; count++) {
    if (count > MAX_PARTS) throw new RadiographError(`${name}: is built of more than 70,000 parts; save it with another program`);
    const [kind, length] = [latin1(bytes.subarray(place, place + 4)), view.getUint32(place + 4, true)];
    const content = bytes.subarray(place + 8, place + 8 + length);
    if (content.length < length) throw new RadiographError(`${name}: damaged or truncated (the file is cut short)`);
    if (kind === "VP8X" && content[0] & ANIMATED) throw new RadiographError(`${name}: has several frames; give one radiograph a file`);
    const size = sizeIn(kind, content);
    if (size !== null) checkSize(...size, name);
    if (kind === "EXIF") orientation ??= exifOrientation(content);
    if (kind === "XMP ") orientation ??= xmpOrientation(content);
    place += 8 + length + (length % 2);
  }
  return orientation;
}

function sizeIn(kind, content) {
  if (content.length < 10) return null;
  if (kind === "VP8 ") return [(content[6] | (content[7] << 8)) & 0x3fff, (content[8] | (content[9] << 8)) & 0x3fff];
  if (kind !== "VP8L") return null;
  const bits = content[1] | (content[2] << 8) | (content[3] << 16) | (content[4] << 24);
  return [(bits & 0x3fff) + 1, ((bits >>> 14) & 0x3fff) + 1];
}
