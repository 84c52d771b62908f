// A DICOM file -> 8-bit grey pixels, what its header says of the patient, and notes, as dicom_cxrfpn.py does it.
import dicomParser from "dicom-parser";

import { CODINGS, frameValues } from "./dicom_frames.js";
import { kindNotes, patientOf } from "./dicom_header.js";
import { text, whole } from "./dicom_tags.js";
import { shownValues } from "./dicom_values.js";
import { RadiographError } from "./errors.js";
import { TooLargeError, inflate, joined, latin1, viewOf } from "./inflating.js";
import { unique } from "./patient.js";
import { MAX_PIXELS, checkSize, stretchTo8Bits } from "./pixels.js";

// What a deflated file may inflate to: what stands before the pixels, and three samples of 32 bits a pixel.
const MAX_BYTES = 2 ** 24 + 12 * MAX_PIXELS;
const DEFLATED = "1.2.840.10008.1.2.1.99";
const MARK = "DICM";
const SUFFIX = /\.(dcm|dicom)$/i;
// How a data set begins that lacks the mark: an element of group 2 or 8, explicit (kind) or implicit (length).
const BARE = /^(?:[\x02\x08]\0[\0-\x20]\0(?:[A-Z]{2}|[\0-\x40]\0\0\0)|\0\x08\0[\0-\x20][A-Z]{2})/;

/** Return whether to read a file as DICOM: by its mark, its name or, as old archives lack both, its first bytes. */
export function isDicom(bytes, name) {
  return latin1(bytes.subarray(128, 132)) === MARK || SUFFIX.test(name) || BARE.test(latin1(bytes.subarray(0, 8)));
}

/**
 * Read the bytes of a DICOM file.
 *
 * @returns {Promise<{pixels: Uint8Array, width, height, age, sex, view_position, notes}>} bone is bright, padding black.
 * @throws {RadiographError} no pixels, several frames, too large, broken, or of a kind that is not read.
 */
export async function readDicom(bytes, name) {
  try {
    const { dataset, syntax } = await parse(bytes, name);
    const header = readHeader(dataset, syntax, name);
    const picture = await grey(dataset, header, name);
    const { notes, ...patient } = patientOf(dataset);
    return { ...picture, ...patient, notes: unique([...notes, ...kindNotes(dataset), ...picture.notes]) };
  } catch (error) {
    if (error instanceof RadiographError) throw error;
    // Broken files make the parser throw texts and errors of many kinds.
    throw new RadiographError(`${name}: the DICOM file is damaged and cannot be decoded; export it again`);
  }
}

/** Return what a header says of the patient, all unknown where it cannot be read; no pixel is decoded. */
export async function readDicomPatient(bytes, name) {
  try {
    return patientOf((await parse(bytes, name)).dataset);
  } catch {  // a file that cannot be read is refused where its picture is asked for
    return { age: null, sex: null, view_position: null, notes: [] };
  }
}

/** Return {dataset, syntax}: what the parser makes of a file, and how its pixels are coded. */
async function parse(bytes, name) {
  const start = latin1(bytes.subarray(0, 8));
  const hasMark = latin1(bytes.subarray(128, 132)) === MARK;
  if (!hasMark && /^\x02\0[\0-\x20]\0[A-Z]{2}/.test(start)) {
    return parse(joined([new Uint8Array(128), new TextEncoder().encode(MARK), bytes]), name);
  }
  if (!hasMark) {  // a data set alone, as old archives keep them
    const isExplicit = /^..[^]{2}[A-Z]{2}/s.test(start);
    const bigEndian = start.startsWith("\0\x08");
    const syntax = `1.2.840.10008.1.2${bigEndian ? ".2" : isExplicit ? ".1" : ""}`;
    return { dataset: dicomParser.parseDicom(bytes, { TransferSyntaxUID: syntax }), syntax };
  }
  const inflated = await inflatedWhole(bytes, name);
  const dataset = dicomParser.parseDicom(bytes, { inflater: () => inflated });
  return { dataset, syntax: text(dataset, "TransferSyntaxUID") };
}

/** Return a deflated file with its data set inflated; null for any other. */
async function inflatedWhole(bytes, name) {
  const place = 144 + viewOf(bytes).getUint32(140, true);  // (0002,0000) says where the data set begins
  if (!latin1(bytes.subarray(132, place)).includes(DEFLATED)) return null;
  try {
    return joined([bytes.subarray(0, place), await inflateDataset(bytes.subarray(place))]);
  } catch (error) {
    if (error instanceof TooLargeError) throw new RadiographError(`${name}: inflates to more than ${MAX_BYTES >> 20} MB; save it uncompressed`);
    throw error;
  }
}

/** Inflate a data set, which writers fill up to an even length with a zero; browsers take nothing behind the end of a stream. */
async function inflateDataset(bytes) {
  try {
    return await inflate(bytes, "deflate-raw", MAX_BYTES);
  } catch (error) {
    if (!(error instanceof TypeError) || bytes.at(-1) !== 0) throw error;
    return inflate(bytes.subarray(0, -1), "deflate-raw", MAX_BYTES);
  }
}

/** Refuse what holds no picture, or several; return what decoders need of the header, completed where writers leave it out. */
function readHeader(dataset, syntax, name) {
  if (dataset.elements.x7fe00010 === undefined) {
    const isFolder = dataset.elements.x00041220 !== undefined;
    throw new RadiographError(`${name}: the DICOM file ${isFolder ? "is a DICOMDIR, the index of a folder" : "has no pixels"}`);
  }
  if (CODINGS[syntax] === undefined) throw new RadiographError(`${name}: pixels coded as ${syntax} are not read; save it uncompressed`);
  const [rows, columns] = [whole(dataset, "Rows"), whole(dataset, "Columns")];
  if (!rows || !columns) throw new RadiographError(`${name}: the DICOM header does not say how many rows and columns there are`);
  checkSize(columns, rows, name);
  const frames = whole(dataset, "NumberOfFrames", 1);
  if (frames > 1) throw new RadiographError(`${name}: has ${frames} frames; give one radiograph a file`);
  const samples = whole(dataset, "SamplesPerPixel", 1);
  const allocated = whole(dataset, "BitsAllocated", whole(dataset, "BitsStored", 16) <= 8 ? 8 : 16);
  if (![1, 3].includes(samples) || ![8, 16, 32].includes(allocated)) {
    throw new RadiographError(`${name}: pixels of ${samples} samples and ${allocated} bits are not read`);
  }
  if (text(dataset, "PhotometricInterpretation") === "PALETTE COLOR") {
    throw new RadiographError(`${name}: palettes of colours are not read here; export it as grey`);
  }
  return { syntax, rows, columns, samples, allocated, isPlanar: whole(dataset, "PlanarConfiguration") === 1 };
}

/** Return the pixels as a viewer would show them, and what is to be noted of them. */
async function grey(dataset, header, name) {
  const { columns: width, rows: height } = header;
  const { values, isGrey } = await frameValues(dataset, header, name);
  if (!isGrey) return { pixels: stretchTo8Bits(values, width, height, name), width, height, notes: [] };
  let shown;
  try {
    shown = shownValues(values, width, height, dataset);
  } catch (error) {
    if (error instanceof RangeError) throw new RadiographError(`${name}: ${error.message}`);
    throw error;
  }
  const { isInverted, padding, notes } = shown;
  const stretched = stretchTo8Bits(shown.values, width, height, name, padding);
  const pixels = isInverted || padding !== null
    ? stretched.map((value, index) => (padding?.[index] ? 0 : isInverted ? 255 - value : value))
    : stretched;
  return { pixels, width, height, notes };
}
