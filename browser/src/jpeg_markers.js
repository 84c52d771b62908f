// The markers of a JPEG: its frame, its tables, its scans, and what they say of the picture (ITU-T T.81, B.2).
import { viewOf, latin1 } from "./inflating.js";
import { JpegError, ZIGZAG, huffmanTable } from "./jpeg_entropy.js";
import { exifOrientation, xmpOrientation } from "./orientation.js";

const MAX_PARTS = 70_000;
const MAX_SCANS = 100;
const [SOF_BASELINE, SOF_PROGRESSIVE, SOF_LOSSLESS, DHT, JPEG_EXTENSIONS, DAC] = [0xc0, 0xc2, 0xc3, 0xc4, 0xc8, 0xcc];
const [EOI, SOS, DQT, DRI, APP0, APP1, APP14, COM] = [0xd9, 0xda, 0xdb, 0xdd, 0xe0, 0xe1, 0xee, 0xfe];
const hasNoLength = (marker) => marker <= 0x01 || (marker >= 0xd0 && marker <= 0xd8);
const startsFrame = (marker) => marker >= 0xc0 && marker <= 0xcf && ![DHT, JPEG_EXTENSIONS, DAC].includes(marker);
const XMP = "http://ns.adobe.com/xap/1.0/\0";

/**
 * Read a JPEG marker by marker.
 *
 * @param onFrame called with the frame {kind, precision, width, height, components: [{id, across, down, table}]} before any room is made.
 * @param onScan called with each scan and the reading so far; returns where its bits end.
 * @returns what is said of the picture: {frame, orientation, comment, transform, isJfif}.
 * @throws {JpegError}
 */
export function readMarkers(bytes, onFrame, onScan) {
  const state = {
    frame: null, orientation: null, comment: "", transform: null, isJfif: false,
    interval: 0, quantisers: [], dc: [], ac: [],
  };
  const view = viewOf(bytes);
  let [place, scans] = [2, 0];
  for (let parts = 0; ; parts++) {
    while (place < bytes.length && bytes[place] !== 0xff) place++;
    while (bytes[place] === 0xff) place++;
    const marker = bytes[place++];
    if (marker === undefined || marker === EOI) break;
    if (parts > MAX_PARTS) throw new JpegError("more parts than any program writes");
    if (hasNoLength(marker)) continue;
    if (place + 2 > bytes.length) throw new JpegError("the file is cut short");
    const content = bytes.subarray(place + 2, place + view.getUint16(place));
    place += view.getUint16(place);
    if (startsFrame(marker)) {
      if (state.frame !== null) throw new JpegError("two frames");
      state.frame = readFrame(marker, content);
      onFrame(state.frame);
    } else if (marker === SOS) {
      if (state.frame === null || place > bytes.length) throw new JpegError("the file is cut short");
      if (++scans > MAX_SCANS) throw new JpegError("more scans than any program writes");
      place = onScan(readScan(content, state), state, place);
    } else readSegment(marker, content, state);
  }
  if (state.frame === null || scans === 0) throw new JpegError("the file is cut short");
  return state;
}

function readFrame(marker, content) {
  if (content.length < 6) throw new JpegError("the file is cut short");
  if (![SOF_BASELINE, SOF_BASELINE + 1, SOF_PROGRESSIVE, SOF_LOSSLESS].includes(marker)) throw new JpegError("a coding that is not read");
  const view = viewOf(content);
  const frame = {
    kind: { [SOF_PROGRESSIVE]: "progressive", [SOF_LOSSLESS]: "lossless" }[marker] ?? "sequential",
    precision: content[0], height: view.getUint16(1), width: view.getUint16(3), components: [],
  };
  const count = content[5];
  if (content.length < 6 + 3 * count || !count || !frame.width || !frame.height) throw new JpegError("its header");
  for (let index = 0; index < count; index++) {
    const [id, sampling, table] = content.subarray(6 + 3 * index, 9 + 3 * index);
    const [across, down] = [sampling >> 4, sampling & 15];
    if (!across || !down || across > 4 || down > 4) throw new JpegError("its header");
    frame.components.push({ id, across, down, table });
  }
  return frame;
}

function readScan(content, { frame, dc, ac }) {
  const count = content[0];
  if (content.length < 4 + 2 * count || !count) throw new JpegError("a scan");
  const components = Array.from({ length: count }, (_, index) => {
    const [id, tables] = content.subarray(1 + 2 * index, 3 + 2 * index);
    const component = frame.components.find((each) => each.id === id);
    if (component === undefined) throw new JpegError("a scan");
    return Object.assign(component, { dc: dc[tables >> 4], ac: ac[tables & 15], dcValue: 0 });
  });
  const [start, end, bits] = content.subarray(1 + 2 * count, 4 + 2 * count);
  if (frame.kind === "progressive" && (end > 63 || start > end || (start > 0 && count > 1))) throw new JpegError("a scan");
  const usesDc = frame.kind !== "progressive" || (start === 0 && bits >> 4 === 0);
  const usesAc = frame.kind === "sequential" || (frame.kind === "progressive" && start > 0);
  if (components.some((each) => (usesDc && !each.dc) || (usesAc && !each.ac))) throw new JpegError("a Huffman table is missing");
  return { components, start, end, high: bits >> 4, low: bits & 15 };
}

function readSegment(marker, content, state) {
  if (marker === DQT) readQuantisers(content, state.quantisers);
  else if (marker === DHT) readHuffman(content, state);
  else if (marker === DRI && content.length >= 2) state.interval = viewOf(content).getUint16(0);
  else if (marker === APP0 && latin1(content.subarray(0, 4)) === "JFIF") state.isJfif = true;
  else if (marker === APP1 && latin1(content.subarray(0, 6)) === "Exif\0\0") state.orientation ??= exifOrientation(content.subarray(6));
  else if (marker === APP1 && latin1(content.subarray(0, XMP.length)) === XMP) state.orientation ??= xmpOrientation(content);
  else if (marker === APP14 && latin1(content.subarray(0, 5)) === "Adobe" && content.length >= 12) state.transform = content[11];
  else if (marker === COM && !state.comment) state.comment = latin1(content.subarray(0, 96));
}

function readQuantisers(content, quantisers) {
  for (let place = 0; place < content.length;) {
    const [isWide, index] = [content[place] >> 4, content[place++] & 15];
    if (place + (isWide ? 128 : 64) > content.length) throw new JpegError("a quantisation table");
    const table = new Int32Array(64);
    for (let each = 0; each < 64; each++, place += isWide ? 2 : 1) {
      table[ZIGZAG[each]] = isWide ? (content[place] << 8) | content[place + 1] : content[place];
    }
    quantisers[index] = table;
  }
}

function readHuffman(content, state) {
  for (let place = 0; place + 17 <= content.length;) {
    const [kind, index] = [content[place] >> 4, content[place] & 15];
    const counts = content.subarray(place + 1, place + 17);
    const total = counts.reduce((sum, count) => sum + count, 0);
    (kind ? state.ac : state.dc)[index] = huffmanTable(counts, content.subarray(place + 17, place + 17 + total));
    place += 17 + total;
  }
}
