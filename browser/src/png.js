// PNG of every depth and kind of colour -> grey values of 8 or 16 bits, without a canvas, which has 8 bits only.
import { RadiographError } from "./errors.js";
import { TooLargeError, inflate, joined, latin1, viewOf } from "./inflating.js";
import { exifOrientation, xmpOrientation } from "./orientation.js";
import { checkSize, luma } from "./pixels.js";

export const MARK = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const [GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA] = [0, 2, 3, 4, 6];
const SAMPLES = { [GREY]: 1, [COLOUR]: 3, [PALETTE]: 1, [GREY_ALPHA]: 2, [COLOUR_ALPHA]: 4 };
const DEPTHS = { [GREY]: [1, 2, 4, 8, 16], [COLOUR]: [8, 16], [PALETTE]: [1, 2, 4, 8], [GREY_ALPHA]: [8, 16], [COLOUR_ALPHA]: [8, 16] };
// Of 256. Colours of 16 bits are read by their upper 8, in which a picture of 12 bits has at most 16 levels.
const FEW_LEVELS = 64;
// Of an interlaced picture: left and top of each pass, and the steps to the next pixel and row.
const PASSES = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];
const MAX_PARTS = 70_000;

/**
 * Decode a PNG.
 *
 * @returns {Promise<{pixels, width, height, orientation, comment}>} pixels are a Uint8Array or, of 16-bit grey, a Uint16Array.
 * @throws {RadiographError} it is damaged, too large, or would lose its grey levels.
 */
export async function decodePng(bytes, name) {
  const parts = readChunks(bytes, name);
  const { width, height, depth, colour } = parts.header;
  checkSize(width, height, name);
  const samples = await readSamples(parts, name);
  const isDeepColour = depth === 16 && colour !== GREY;
  const pixels = greyOf(samples, parts);
  if (isDeepColour && pixels.every((pixel) => pixel < FEW_LEVELS)) {
    throw new RadiographError(`${name}: would lose its grey levels, since it has colours; save it as 16-bit grey`);
  }
  return { pixels, width, height, orientation: parts.orientation, comment: parts.comment };
}

const damaged = (name, why) => new RadiographError(`${name}: damaged or truncated (${why})`);

function readChunks(bytes, name) {
  const view = viewOf(bytes);
  const parts = { header: null, palette: null, transparency: null, data: [], orientation: null, comment: "" };
  let place = MARK.length;
  for (let count = 0; place + 8 <= bytes.length; count++) {
    if (count > MAX_PARTS) throw new RadiographError(`${name}: is built of more than 70,000 parts; save it with another program`);
    const [length, kind] = [view.getUint32(place), latin1(bytes.subarray(place + 4, place + 8))];
    const content = bytes.subarray(place + 8, place + 8 + length);
    if (content.length < length) throw damaged(name, "the file is cut short");
    readChunk(kind, content, parts, name);
    if (kind === "IEND") break;
    place += 12 + length;
  }
  if (parts.header === null || !parts.data.length) throw damaged(name, "the PNG has no pixels");
  return parts;
}

function readChunk(kind, content, parts, name) {
  if (kind === "IHDR") {
    const view = viewOf(content);
    const header = { width: view.getUint32(0), height: view.getUint32(4), depth: content[8], colour: content[9], isInterlaced: content[12] === 1 };
    if (!header.width || !header.height || !DEPTHS[header.colour]?.includes(header.depth)) throw damaged(name, "the header of the PNG");
    parts.header = header;
  } else if (kind === "PLTE") parts.palette = content;
  else if (kind === "tRNS") parts.transparency = content;
  else if (kind === "IDAT") parts.data.push(content);
  else if (kind === "acTL" && viewOf(content).getUint32(0) > 1) {
    throw new RadiographError(`${name}: has several frames; give one radiograph a file`);
  } else if (kind === "eXIf") parts.orientation ??= exifOrientation(content);
  else if (kind === "tEXt" && latin1(content.subarray(0, 8)) === "comment\0") parts.comment = latin1(content.subarray(8));
  else if (kind === "iTXt" && latin1(content.subarray(0, 17)) === "XML:com.adobe.xmp") parts.orientation ??= xmpOrientation(content);
}

/** Return every sample of every pixel, as the file has it: Uint8Array, or Uint16Array of 16 bits. */
async function readSamples({ header, data }, name) {
  const { width, height, depth, colour, isInterlaced } = header;
  const bits = depth * SAMPLES[colour];
  const rowBytes = (columns) => Math.ceil((columns * bits) / 8);
  const passes = (isInterlaced ? PASSES : [[0, 0, 1, 1]])
    .map(([left, top, across, down]) => ({ left, top, across, down, columns: Math.ceil((width - left) / across), rows: Math.ceil((height - top) / down) }))
    .filter(({ columns, rows }) => columns > 0 && rows > 0);
  const expected = passes.reduce((sum, { columns, rows }) => sum + rows * (1 + rowBytes(columns)), 0);
  let raw;
  try {
    raw = await inflate(joined(data), "deflate", expected + 2 ** 16);
  } catch (error) {
    throw damaged(name, error instanceof TooLargeError ? "more pixels than its header says" : "its pixels cannot be inflated");
  }
  if (raw.length < expected) throw damaged(name, "the file is cut short");
  const samples = new (depth === 16 ? Uint16Array : Uint8Array)(width * height * SAMPLES[colour]);
  let place = 0;
  for (const pass of passes) {
    const length = rowBytes(pass.columns);
    let before = new Uint8Array(length);
    for (let row = 0; row < pass.rows; row++, place += 1 + length) {
      const line = raw.subarray(place + 1, place + 1 + length);
      unfilter(raw[place], line, before, Math.max(1, bits >> 3), name);
      spread(line, samples, header, pass, row);
      before = line;
    }
  }
  return samples;
}

/** Undo the filter of a row, in place (PNG specification, section 9). */
function unfilter(kind, line, before, step, name) {
  if (kind > 4) throw damaged(name, "a row of the PNG");
  for (let index = 0; index < line.length && kind; index++) {
    const left = index >= step ? line[index - step] : 0;
    const above = before[index];
    if (kind === 1) line[index] += left;
    else if (kind === 2) line[index] += above;
    else if (kind === 3) line[index] += (left + above) >> 1;
    else {
      const corner = index >= step ? before[index - step] : 0;
      const [a, b, c] = [Math.abs(above - corner), Math.abs(left - corner), Math.abs(left + above - 2 * corner)];
      line[index] += a <= b && a <= c ? left : b <= c ? above : corner;
    }
  }
}

/** Put the samples of a row where they belong. */
function spread(line, samples, { width, depth, colour }, { left, top, across, down, columns }, row) {
  const each = SAMPLES[colour];
  const start = (top + row * down) * width + left;
  for (let column = 0; column < columns; column++) {
    for (let sample = 0; sample < each; sample++) {
      const index = column * each + sample;
      const value = depth === 16 ? (line[2 * index] << 8) | line[2 * index + 1]
        : depth === 8 ? line[index]
          : (line[(index * depth) >> 3] >> (8 - depth - ((index * depth) & 7))) & ((1 << depth) - 1);
      samples[(start + column * across) * each + sample] = value;
    }
  }
}

/** Turn samples into grey. What is transparent is black, in so far as it is; colours of 16 bits are read by their upper 8. */
function greyOf(samples, { header: { depth, colour }, palette, transparency }) {
  const each = SAMPLES[colour];
  if (each === 1 && depth === 16) return samples;
  const grey = new Uint8Array(samples.length / each);
  if (each === 1) {  // a table for all values there can be
    const hidden = transparency !== null && colour === GREY ? (transparency[0] << 8) | transparency[1] : -1;
    const table = Uint8Array.from({ length: 256 }, (_, value) => {
      if (colour === GREY) return value === hidden ? 0 : (value * 255) / ((1 << depth) - 1);
      const [red, green, blue] = [0, 1, 2].map((part) => over(palette?.[3 * value + part] ?? 0, transparency?.[value] ?? 255));
      return luma(red, green, blue);
    });
    for (let index = 0; index < grey.length; index++) grey[index] = table[samples[index]];
    return grey;
  }
  const hidden = transparency !== null && colour === COLOUR ? [0, 2, 4].map((place) => (transparency[place] << 8) | transparency[place + 1]) : null;
  const shift = depth - 8;
  for (let index = 0, place = 0; index < grey.length; index++, place += each) {
    const colours = colour === GREY_ALPHA ? [samples[place], samples[place], samples[place]] : [samples[place], samples[place + 1], samples[place + 2]];
    const alpha = each % 2 ? (hidden?.every((value, part) => value === colours[part]) ? 0 : 255) : samples[place + each - 1] >> shift;
    grey[index] = luma(...colours.map((value) => over(value >> shift, alpha)));
  }
  return grey;
}

/** Lay a value of 0 to 255 over black, as Pillow's alpha_composite rounds it. */
export function over(value, alpha) {
  if (alpha === 255 || alpha === 0) return alpha ? value : 0;
  const sum = value * alpha * 128 + (0x80 << 7);
  return (((sum >> 8) + sum) >> 8) >> 7;
}
