// What the platform inflates by itself: zlib, raw deflate and gzip; never more than is allowed.

/** Raised where a stream inflates to more than it may. */
export class TooLargeError extends Error {}

/**
 * Inflate bytes.
 *
 * @param format "deflate", "deflate-raw" or "gzip".
 * @param most bytes that may come out.
 * @returns {Promise<Uint8Array>}
 * @throws {TooLargeError} more would come out.
 * @throws {TypeError} the stream is damaged or cut short.
 */
export async function inflate(bytes, format, most) {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream(format)).getReader();
  const pieces = [];
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.length;
    if (size > most) {
      await reader.cancel();
      throw new TooLargeError();
    }
    pieces.push(value);
  }
  return joined(pieces, size);
}

/** Return pieces of bytes as one. */
export function joined(pieces, size = pieces.reduce((sum, piece) => sum + piece.length, 0)) {
  if (pieces.length === 1) return pieces[0];
  const whole = new Uint8Array(size);
  let place = 0;
  for (const piece of pieces) {
    whole.set(piece, place);
    place += piece.length;
  }
  return whole;
}

/** Return bytes as text, a character each. */
export function latin1(bytes) {
  let text = "";
  for (let start = 0; start < bytes.length; start += 4096) text += String.fromCharCode(...bytes.subarray(start, start + 4096));
  return text;
}

/** Return a view of bytes for numbers of several bytes. */
export const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
