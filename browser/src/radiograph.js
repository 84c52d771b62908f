// A radiograph in a file of any kind that is read here -> 8-bit grey pixels, and what a DICOM header says of the patient.
import { isDicom, readDicom } from "./dicom.js";
import { RadiographError } from "./errors.js";
import { TooLargeError, inflate, latin1 } from "./inflating.js";
import { decodeJpeg } from "./jpeg.js";
import { upright } from "./orientation.js";
import { stretchTo8Bits } from "./pixels.js";
import { MARK as PNG, decodePng } from "./png.js";
import { decodeWebp } from "./webp.js";

export const KINDS = "PNG, JPEG, WebP or DICOM";
export const MAX_FILE_BYTES = 64 * 2 ** 20;
// How the comment begins in the files that prepare.py writes: their grey levels were stretched when they were made.
const PREPARED = "prepared by cxr-densenet-fpn";

/**
 * Read a radiograph as 8-bit grey, stretched over the range that its pixels really take.
 *
 * @param bytes of a PNG, JPEG, WebP or DICOM file, each also in gzip.
 * @param leastSide as for `decodeJpeg`.
 * @returns {Promise<{pixels: Uint8Array, width, height, age, sex, view_position, notes}>} null where the file does not say.
 * @throws {RadiographError} not such a file, empty, damaged, too large, of one value only, or of several frames.
 */
export async function readRadiograph(bytes, name, leastSide) {
  if (!bytes.length) throw new RadiographError(`${name}: the file is empty`);
  if (bytes.length > MAX_FILE_BYTES) throw new RadiographError(`${name}: is larger than ${MAX_FILE_BYTES >> 20} MB`);
  const file = await unpacked(bytes, name);
  if (isDicom(file.bytes, file.name)) return readDicom(file.bytes, file.name);
  const { pixels, width, height } = await readPicture(file.bytes, file.name, leastSide);
  return { pixels, width, height, age: null, sex: null, view_position: null, notes: [] };
}

async function readPicture(bytes, name, leastSide) {
  const decoded = await decode(bytes, name, leastSide);
  const { pixels, width, height } = decoded;
  if (pixels instanceof Uint8Array && isPrepared(decoded.comment, decoded.frame?.components.length !== 3)) return decoded;
  const turned = upright({ pixels, width, height }, decoded.orientation);
  return { ...turned, pixels: stretchTo8Bits(turned.pixels, turned.width, turned.height, name) };
}

const isPrepared = (comment, isGrey) => isGrey && (comment ?? "").startsWith(PREPARED);

async function decode(bytes, name, leastSide) {
  if (PNG.every((value, index) => bytes[index] === value)) return decodePng(bytes, name);
  if (bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff) return decodeJpeg(bytes, name, leastSide, isPrepared);
  if (latin1(bytes.subarray(0, 4)) === "RIFF" && latin1(bytes.subarray(8, 12)) === "WEBP") return decodeWebp(bytes, name);
  throw new RadiographError(`${name}: not an image that can be read (${KINDS})`);
}

/** Return a file {bytes, name}, taken out of gzip where it lies in it. */
export async function unpacked(bytes, name) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return { bytes, name };
  try {
    return { bytes: await inflate(bytes, "gzip", MAX_FILE_BYTES), name: name.replace(/\.gz$/i, "") };
  } catch (error) {
    const why = error instanceof TooLargeError ? `inflates to more than ${MAX_FILE_BYTES >> 20} MB; shrink it` : "the gzip file is damaged or cut short";
    throw new RadiographError(`${name}: ${why}`);
  }
}
