// What a compressed frame says of itself before it is decoded, as frames_cxrfpn.py reads it.
import { latin1, viewOf } from "./inflating.js";

const MAX_SEGMENTS = 70_000;
// The boxes of a JP2 file that may stand before its codestream, and the one that holds it.
const JP2_BOXES = new Set(["jP  ", "ftyp", "jp2h", "uuid", "xml ", "jp2c"]);

/** Return {width, height, components, bits, tiles} of a JPEG, JPEG-LS or JPEG 2000 frame; null where it has no header. */
export function codestreamOf(frame) {
  try {
    return frame[0] === 0xff && frame[1] === 0xd8 ? readJpeg(frame) : readJpeg2000(frame, codestreamPlace(frame));
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}

function readJpeg(frame) {
  const view = viewOf(frame);
  let place = 2;
  for (let segment = 0; segment < MAX_SEGMENTS && frame[place] === 0xff; segment++) {
    const marker = frame[place + 1];
    if (marker === 0xff) {  // any number of them may stand before a marker
      place += 1;
      continue;
    }
    if (marker === 0xf7 || (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker))) {
      return { width: view.getUint16(place + 7), height: view.getUint16(place + 5), components: frame[place + 9], bits: frame[place + 4], tiles: 1 };
    }
    place += 2 + view.getUint16(place + 2);
  }
  return null;
}

function readJpeg2000(frame, place) {
  const view = viewOf(frame);
  if (view.getUint32(place) !== 0xff4fff51) return null;
  const [right, bottom, left, top, tileWidth, tileHeight, tileLeft, tileTop] = Array.from({ length: 8 }, (_, index) => view.getUint32(place + 8 + 4 * index));
  if (!tileWidth || !tileHeight) return null;
  const tiles = Math.ceil((right - tileLeft) / tileWidth) * Math.ceil((bottom - tileTop) / tileHeight);
  return { width: right - left, height: bottom - top, components: view.getUint16(place + 40), bits: (frame[place + 42] & 0x7f) + 1, tiles };
}

function codestreamPlace(frame) {
  const view = viewOf(frame);
  let place = 0;
  for (let kind; JP2_BOXES.has((kind = latin1(frame.subarray(place + 4, place + 8))));) {
    const length = view.getUint32(place);
    if (kind === "jp2c") return place + (length === 1 ? 16 : 8);
    place += Math.max(length, 8);
  }
  return place;
}
