// Zips of films: their directory is listed, and members are inflated one at a time.
import { RadiographError } from "./errors.js";
import { TooLargeError, inflate, viewOf } from "./inflating.js";
import { MAX_FILE_BYTES } from "./radiograph.js";

const MAX_ENTRIES = 2000;
const [ENTRY, END] = [0x02014b50, 0x06054b50];
const [STORED, DEFLATED] = [0, 8];
// The end of a directory, with its longest comment.
const END_BYTES = 22;
const HIDDEN = /(^|\/)(\.[^./]|__MACOSX\/)|\/$/;

/** Return whether a file is a zip. */
export const isZip = (bytes) => bytes[0] === 0x50 && bytes[1] === 0x4b && [3, 5].includes(bytes[2]);

/**
 * List the files of a zip, without folders and the hidden files that some systems add.
 *
 * @returns {{name, read}[]} read() gives the bytes.
 * @throws {RadiographError} it is damaged, or lists too much.
 */
export function listZip(bytes, name) {
  try {
    return entries(bytes, name);
  } catch (error) {
    if (error instanceof RangeError) throw new RadiographError(`${name}: the zip is damaged`);
    throw error;
  }
}

function entries(bytes, zipName) {
  const view = viewOf(bytes);
  let end = bytes.length - END_BYTES;
  while (view.getUint32(end, true) !== END) end--;
  const count = view.getUint16(end + 10, true);
  if (count > MAX_ENTRIES) throw new RadiographError(`${zipName}: zips of more than ${MAX_ENTRIES} entries in all are not read; send fewer`);
  const found = [];
  let place = view.getUint32(end + 16, true);
  for (let entry = 0; entry < count; entry++) {
    if (view.getUint32(place, true) !== ENTRY) throw new RangeError("no entry");
    const [flags, method] = [view.getUint16(place + 8, true), view.getUint16(place + 10, true)];
    const [size, start] = [view.getUint32(place + 20, true), view.getUint32(place + 42, true)];
    const [nameLength, extra, comment] = [28, 30, 32].map((offset) => view.getUint16(place + offset, true));
    const path = new TextDecoder().decode(bytes.subarray(place + 46, place + 46 + nameLength));
    const name = path.split("/").pop();
    if (!HIDDEN.test(path)) found.push({ name, read: () => member(bytes, { start, size, method, isLocked: (flags & 1) === 1 }, name) });
    place += 46 + nameLength + extra + comment;
  }
  return found;
}

async function member(bytes, { start, size, method, isLocked }, name) {
  try {
    const view = viewOf(bytes);
    const begin = start + 30 + view.getUint16(start + 26, true) + view.getUint16(start + 28, true);
    const packed = bytes.slice(begin, begin + size);
    if (isLocked || packed.length < size) throw new RangeError("damaged");
    if (method === STORED) return packed;
    if (method === DEFLATED) return await inflate(packed, "deflate-raw", MAX_FILE_BYTES);
  } catch (error) {
    if (error instanceof TooLargeError) throw new RadiographError(`${name}: is larger than ${MAX_FILE_BYTES >> 20} MB`);
    throw new RadiographError(`${name}: cannot be unpacked (damaged or encrypted)`);
  }
  throw new RadiographError(`${name}: its compression is not taken here; make the zip with deflate, the usual one`);
}
