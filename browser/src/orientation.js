// By how much a camera's data, Exif or XMP, say that a picture is turned.
import { latin1, viewOf } from "./inflating.js";

const ORIENTATION = 0x0112;
const SHORT = 3;
const MAX_ENTRIES = 4096;

/** Return the orientation, 1 to 8, that Exif data say (without the mark "Exif"); null where they say none. */
export function exifOrientation(bytes) {
  try {
    const view = viewOf(bytes);
    const isLittle = view.getUint16(0) === 0x4949;
    let place = view.getUint32(4, isLittle);
    const count = Math.min(view.getUint16(place, isLittle), MAX_ENTRIES);
    place += 2;
    for (let entry = 0; entry < count; entry++, place += 12) {
      if (view.getUint16(place, isLittle) === ORIENTATION && view.getUint16(place + 2, isLittle) === SHORT) {
        return view.getUint16(place + 8, isLittle);
      }
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;  // the data are cut short
  }
  return null;
}

/** Return the orientation that XMP data say; null where they say none. */
export function xmpOrientation(bytes) {
  const match = /tiff:Orientation(?:="|>)([1-8])/.exec(latin1(bytes));
  return match === null ? null : Number(match[1]);
}

/** Return a picture turned as its orientation says; itself where nothing has to be turned. */
export function upright(picture, orientation) {
  if (!(orientation >= 2 && orientation <= 8)) return picture;
  const { pixels, width, height } = picture;
  const isAcross = orientation >= 5;
  const [newWidth, newHeight] = isAcross ? [height, width] : [width, height];
  const turned = new pixels.constructor(pixels.length);
  for (let y = 0; y < newHeight; y++) {
    for (let x = 0; x < newWidth; x++) {
      let [column, row] = isAcross ? [y, x] : [x, y];
      if ([2, 3, 7, 8].includes(orientation)) column = width - 1 - column;
      if ([3, 4, 6, 7].includes(orientation)) row = height - 1 - row;
      turned[y * newWidth + x] = pixels[row * width + column];
    }
  }
  return { pixels: turned, width: newWidth, height: newHeight };
}
