// The only frame of a DICOM file -> its stored values; a compressed one is held against the header before it is decoded.
import { wasmBytes } from "./codecs.js";
import { codestreamOf } from "./codestream.js";
import { text } from "./dicom_tags.js";
import { RadiographError } from "./errors.js";
import { joined, viewOf } from "./inflating.js";
import { decodeJpeg } from "./jpeg.js";

const [JPEG, JPEG_LS, JPEG_2000, RLE, RAW] = ["JPEG", "JPEG-LS", "JPEG 2000", "RLE", "uncompressed"];
const ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98";
/** Transfer syntax -> what decodes it. */
export const CODINGS = {
  "1.2.840.10008.1.2": RAW, "1.2.840.10008.1.2.1": RAW, "1.2.840.10008.1.2.2": RAW, "1.2.840.10008.1.2.1.99": RAW,
  [ENCAPSULATED_UNCOMPRESSED]: RAW, "1.2.840.10008.1.2.5": RLE,
  "1.2.840.10008.1.2.4.50": JPEG, "1.2.840.10008.1.2.4.51": JPEG, "1.2.840.10008.1.2.4.57": JPEG, "1.2.840.10008.1.2.4.70": JPEG,
  "1.2.840.10008.1.2.4.80": JPEG_LS, "1.2.840.10008.1.2.4.81": JPEG_LS,
  "1.2.840.10008.1.2.4.90": JPEG_2000, "1.2.840.10008.1.2.4.91": JPEG_2000, "1.2.840.10008.1.2.4.201": JPEG_2000,
  "1.2.840.10008.1.2.4.202": JPEG_2000, "1.2.840.10008.1.2.4.203": JPEG_2000,
};
const CONTAINERS = { 8: Uint8Array, 16: Uint16Array, 32: Uint32Array };
const MAX_TILES = 4096;
const decoders = new Map();

/**
 * Decode the pixels.
 *
 * @param header {syntax, rows, columns, samples, allocated, isPlanar}.
 * @returns {Promise<{values, isGrey}>} what is stored, unused bits included, a Uint8Array, Uint16Array or Uint32Array; of a
 *   picture in colour (`isGrey` is false) the grey levels, of any type.
 * @throws {RadiographError} the pixels are cut, disagree with the header, or are of a kind that is not read.
 */
export async function frameValues(dataset, header, name) {
  const element = dataset.elements.x7fe00010;
  const coding = CODINGS[header.syntax];
  const isRaw = coding === RAW && !element.fragments;
  const frame = isRaw ? dataset.byteArray.subarray(element.dataOffset, element.dataOffset + element.length) : firstFrame(dataset, element);
  if (coding === RAW) return rawValues(frame, dataset, header, name);
  if (coding === RLE) return { values: runLengths(frame, header), isGrey: true };
  if (coding === JPEG) return jpegValues(frame, header, name);
  checkFrame(codestreamOf(frame), header, name);
  if (header.samples !== 1) throw new RadiographError(`${name}: colours coded as ${coding} are not read here; save it uncompressed`);
  return { values: inContainer(await decodeCompiled(frame, coding, name), header), isGrey: true };
}

function firstFrame(dataset, { fragments = [] }) {
  return joined(fragments.map(({ position, length }) => dataset.byteArray.subarray(position, position + length)));
}

function rawValues(frame, dataset, { syntax, rows, columns, samples, allocated, isPlanar }, name) {
  const colours = samples === 3 ? text(dataset, "PhotometricInterpretation") : "";
  const isHalved = colours === "YBR_FULL_422";
  const count = rows * columns * (isHalved ? 2 : samples);
  const expected = (count * allocated) / 8;
  if (frame.length < expected) {
    const shown = [frame.length, expected].map((bytes) => bytes.toLocaleString("en-US"));
    throw new RadiographError(`${name}: is cut short: ${shown[0]} of ${shown[1]} bytes of its pixels are there`);
  }
  const values = new CONTAINERS[allocated](frame.slice(0, expected).buffer);
  if (syntax === "1.2.840.10008.1.2.2" && allocated > 8) swapBytes(values);
  if (samples === 1) return { values, isGrey: true };
  const pixel = (index, part) => (isPlanar ? values[part * rows * columns + index] : values[3 * index + part]);
  return { values: greyOfColours(rows * columns, pixel, colours, isHalved ? (index) => values[4 * (index >> 1) + (index & 1)] : null), isGrey: false };
}

/** Return the luminance of YBR; of RGB one channel where all are the same, else what the weights of ITU-R 601 make of them. */
function greyOfColours(count, pixel, colours, luminance) {
  if (luminance !== null) return Uint8Array.from({ length: count }, (_, index) => luminance(index));
  const first = Uint16Array.from({ length: count }, (_, index) => pixel(index, 0));
  if (colours.startsWith("YBR") || first.every((value, index) => value === pixel(index, 1) && value === pixel(index, 2))) return first;
  return Float64Array.from(first, (red, index) => 0.299 * red + 0.587 * pixel(index, 1) + 0.114 * pixel(index, 2));
}

function swapBytes(values) {
  const view = viewOf(values);
  const [read, size] = values.BYTES_PER_ELEMENT === 2 ? ["getUint16", 2] : ["getUint32", 4];
  for (let index = 0; index < values.length; index++) values[index] = view[read](index * size, false);
}

/** Decode DICOM's runs (PS3.5 annex G): a segment for each byte of a value, the highest first. */
function runLengths(frame, { rows, columns, samples, allocated }) {
  const [view, bytes] = [viewOf(frame), allocated / 8];
  if (samples !== 1 || view.getUint32(0, true) !== bytes) throw new RangeError("segments");
  const values = new CONTAINERS[allocated](rows * columns);
  for (let segment = 0; segment < bytes; segment++) {
    let place = view.getUint32(4 * (segment + 1), true);
    const scale = 2 ** (8 * (bytes - 1 - segment));
    for (let index = 0; index < values.length;) {
      const control = view.getInt8(place++);
      if (control === -128) continue;
      const [count, isRun] = control < 0 ? [1 - control, true] : [control + 1, false];
      for (let each = 0; each < count && index < values.length; each++) values[index++] += view.getUint8(isRun ? place : place + each) * scale;
      place += isRun ? 1 : count;
    }
  }
  return values;
}

function jpegValues(frame, header, name) {
  const said = codestreamOf(frame);
  checkFrame(said, header, name);
  const { pixels } = decodeJpeg(frame, name);
  return header.samples === 3 ? { values: pixels, isGrey: false } : { values: inContainer(pixels, header), isGrey: true };
}

function checkFrame(said, { rows, columns, samples, allocated }, name) {
  if (said === null) throw new RadiographError(`${name}: its compressed pixels do not say their size; save it uncompressed`);
  if (said.width !== columns || said.height !== rows) {
    throw new RadiographError(`${name}: its pixels are ${said.width} x ${said.height}, but its header says ${columns} x ${rows}`);
  }
  if (said.components !== samples) {
    throw new RadiographError(`${name}: its pixels have ${said.components} components, but its header says ${samples}`);
  }
  if (said.bits < 1 || said.bits > allocated) {
    throw new RadiographError(`${name}: its pixels have ${said.bits} bits, but its header has room for ${allocated}`);
  }
  if (said.tiles > MAX_TILES) throw new RadiographError(`${name}: its pixels are cut into more than ${MAX_TILES} tiles; save it uncompressed`);
}

const inContainer = (values, { allocated }) => (values instanceof CONTAINERS[allocated] ? values : CONTAINERS[allocated].from(values));

async function decodeCompiled(frame, coding, name) {
  let decoder = null;
  try {
    decoder = new (await decoderClass(coding))();
    decoder.getEncodedBuffer(frame.length).set(frame);
    decoder.decode();
    const decoded = decoder.getDecodedBuffer().slice();
    return decoder.getFrameInfo().bitsPerSample > 8 ? new Uint16Array(decoded.buffer, 0, decoded.length >> 1) : decoded;
  } catch {
    throw new RadiographError(`${name}: its pixels cannot be decoded as ${coding}; they are damaged, or of a kind that is not read`);
  } finally {
    decoder?.delete();
  }
}

/** Return the class of a compiled decoder, which is fetched when a film first needs it. */
async function decoderClass(coding) {
  if (!decoders.has(coding)) {
    const isLs = coding === JPEG_LS;
    const factory = isLs ? await import("@cornerstonejs/codec-charls/decodewasmjs") : await import("@cornerstonejs/codec-openjpeg/decodewasmjs");
    const module = await factory.default({ wasmBinary: await wasmBytes(isLs ? "jpeg-ls" : "jpeg-2000") });
    decoders.set(coding, isLs ? module.JpegLSDecoder : module.J2KDecoder);
  }
  return decoders.get(coding);
}
