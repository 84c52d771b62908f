// JPEG -> grey, as libjpeg and Pillow decode it to the last bit: sequential, progressive (8 or 12 bits) and lossless.
// A canvas would take the browser's own decoder, which some browsers falsify so that visitors cannot be told apart.
import { RadiographError } from "./errors.js";
import { Bits, JpegError, blockDecoder } from "./jpeg_entropy.js";
import { inverseDct } from "./jpeg_idct.js";
import { decodeLossless } from "./jpeg_lossless.js";
import { readMarkers } from "./jpeg_markers.js";
import { checkSize, luma } from "./pixels.js";

const RGB_IDS = [82, 71, 66];  // "R", "G", "B"
const SCALES = [8, 4, 2];

/**
 * Decode a JPEG.
 *
 * @param leastSide null, or the pixels that both sides keep while it is decoded at 1/2, 1/4 or 1/8, as Pillow's `draft` does.
 * @param isPrepared called with the comment and whether the picture is grey; true keeps it at full scale.
 * @returns {{pixels, width, height, frame, orientation, comment}} pixels are a Uint8Array, over 8 bits a Uint16Array.
 * @throws {RadiographError} it is damaged, too large, or of a kind that is not read.
 */
export function decodeJpeg(bytes, name, leastSide = null, isPrepared = () => false) {
  try {
    let lossless = null;
    const said = readMarkers(bytes, (frame) => makeRoom(frame, name), (scan, state, place) => {
      if (state.frame.kind !== "lossless") return readScan(bytes, place, scan, state);
      lossless = decodeLossless(bytes, place, scan, state);
      return lossless.end;
    });
    const { frame, orientation, comment } = said;
    const { width, height } = frame;
    if (lossless !== null) return { pixels: lossless.pixels, width, height, frame, orientation, comment };
    const scale = leastSide === null || isPrepared(comment, frame.components.length === 1) ? 1 : scaleFor(frame, leastSide);
    return { ...greyOf(said, scale), frame, orientation, comment };
  } catch (error) {
    if (error instanceof JpegError) throw new RadiographError(`${name}: damaged or truncated (${error.message})`);
    throw error;
  }
}

function scaleFor({ width, height }, leastSide) {
  const most = Math.min(Math.floor(width / leastSide), Math.floor(height / leastSide));
  return SCALES.find((scale) => most >= scale) ?? 1;
}

/** Check a frame, and make room for the coefficients of each of its components. */
function makeRoom(frame, name) {
  const { components, precision, kind, width, height } = frame;
  checkSize(width, height, name);
  if (components.length === 4) throw new RadiographError(`${name}: a JPEG in CMYK is not read here; save it as grey`);
  if (components.length !== 1 && components.length !== 3) throw new JpegError("its header");
  if (kind === "lossless") return;
  if (precision !== 8 && precision !== 12) throw new JpegError("its header");
  if (components.length === 1) Object.assign(components[0], { across: 1, down: 1 });  // of one component it has no meaning
  frame.across = Math.max(...components.map((each) => each.across));
  frame.down = Math.max(...components.map((each) => each.down));
  frame.columns = Math.ceil(width / (8 * frame.across));
  frame.rows = Math.ceil(height / (8 * frame.down));
  for (const component of components) {
    component.columns = Math.ceil(Math.ceil((width * component.across) / frame.across) / 8);
    component.rows = Math.ceil(Math.ceil((height * component.down) / frame.down) / 8);
    component.stride = frame.columns * component.across;  // blocks in a row, those that only fill it up included
    component.coefficients = new Int16Array(64 * component.stride * frame.rows * component.down);
  }
}

/** Decode the coefficients that a scan brings; return where it ends. */
function readScan(bytes, place, scan, { frame, interval, quantisers }) {
  const bits = new Bits(bytes, place);
  const state = { endOfBand: 0 };
  const decode = blockDecoder(frame.kind === "progressive", scan, state);
  for (const component of scan.components) component.quantiser ??= quantisers[component.table]?.slice();
  const isInterleaved = scan.components.length > 1;
  const [single] = scan.components;
  const [columns, rows] = isInterleaved ? [frame.columns, frame.rows] : [single.columns, single.rows];
  for (let unit = 0; unit < columns * rows; unit++) {
    if (interval && unit && unit % interval === 0) {
      bits.nextInterval();
      state.endOfBand = 0;
      for (const component of scan.components) component.dcValue = 0;
    }
    const [column, row] = [unit % columns, Math.floor(unit / columns)];
    if (!isInterleaved) {
      decode(bits, single, single.coefficients, 64 * (row * single.stride + column));
      continue;
    }
    for (const component of scan.components) {
      const { across, down, stride, coefficients } = component;
      for (let y = 0; y < down; y++) {
        for (let x = 0; x < across; x++) decode(bits, component, coefficients, 64 * ((row * down + y) * stride + column * across + x));
      }
    }
  }
  return bits.place;
}

/** Return the grey picture: the luminance itself, or what red, green and blue make of it. */
function greyOf({ frame, transform, isJfif }, scale) {
  const { components } = frame;
  const ids = components.map((each) => each.id);
  const isRgb = components.length === 3 && !isJfif && (transform === 0 || (transform === null && ids.every((id, index) => id === RGB_IDS[index])));
  if (!isRgb) return plane(frame, components[0], scale);
  const [red, green, blue] = components.map((component) => plane(frame, component, scale));
  return { ...red, pixels: red.pixels.map((value, index) => luma(value, green.pixels[index], blue.pixels[index])) };
}

function plane(frame, component, scale) {
  if (component.across !== frame.across || component.down !== frame.down) throw new JpegError("its grey is coarser than its colours");
  if (component.quantiser === undefined) throw new JpegError("a quantisation table is missing");
  const side = 8 / scale;
  const [width, height] = [Math.ceil(frame.width / scale), Math.ceil(frame.height / scale)];
  const { stride, columns, rows, coefficients, quantiser } = component;
  const [lineLength, Kind] = [columns * side, frame.precision === 8 ? Uint8Array : Uint16Array];
  const whole = new Kind(lineLength * rows * side);
  const transform = inverseDct(side, frame.precision);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      transform(coefficients, 64 * (row * stride + column), quantiser, whole, row * side * lineLength + column * side, lineLength);
    }
  }
  if (lineLength === width) return { pixels: whole.subarray(0, width * height), width, height };
  const pixels = new Kind(width * height);
  for (let row = 0; row < height; row++) pixels.set(whole.subarray(row * lineLength, row * lineLength + width), row * width);
  return { pixels, width, height };
}
