// Stored values of a DICOM image -> the grey levels that a viewer shows (PS3.3 C.7.6.3, C.11.1, C.11.2 and C.8.11), as
// dicom_values_cxrfpn.py does it: padding is set aside, then modality, value of interest, polarity.
import { trueValues } from "./dicom_bits.js";
import { lookUpTable, windowOf } from "./dicom_luts.js";
import { items, numbers, text, whole } from "./dicom_tags.js";
import { roundHalfEven } from "./errors.js";
import { rangeOf } from "./pixels.js";

// A window or table is left out if fewer pixels than this share lie between its black and its white.
const LEAST_SHOWN = 0.01;
// Windows are tried on about so many pixels a side.
const PROBE_SIDE = 256;
// Up to so many different values are looked up in a table.
const MOST_LEVELS = 65536;
const MOST_PADDING = 0.5;
const PROCESSING_CLASSES = new Set(["1.1", "2.1", "3.1"].map((kind) => `1.2.840.10008.5.1.4.1.1.1.${kind}`));

/**
 * Take a monochrome frame through its header as a viewer does.
 *
 * @param raw the stored values as the decoder gives them, unused bits included: Uint8Array, Uint16Array or Uint32Array.
 * @returns {{values, isInverted, padding, notes}} values to be stretched.
 * @throws {RangeError} every pixel is padding, or rescaled values are not finite; in a few words, without the file's name.
 */
export function shownValues(raw, width, height, dataset) {
  const notes = [];
  const { values, padding } = trueValues(raw, width, dataset, notes);
  const padded = padding === null ? 0 : padding.reduce((sum, each) => sum + each, 0) / padding.length;
  if (padded === 1) throw new RangeError("every pixel is padding");
  if (padded > MOST_PADDING) notes.push(`Padding fills ${roundHalfEven(100 * padded)}% of the picture.`);
  const [low, high] = rangeOf(values, padding);
  const transforms = transformsOf(dataset, probeOf(values, padding, width, height), low, high, notes);
  const isInverted = invertsWhite(dataset, rises(transforms, low, high), notes);
  const shown = transforms.length ? apply(transforms, values, low, high) : values;
  return { values: shown, isInverted, padding, notes };
}

/** Return about PROBE_SIDE values a side that are no padding. */
function probeOf(values, padding, width, height) {
  const step = Math.max(1, Math.floor(Math.min(width, height) / PROBE_SIDE));
  const probe = [];
  for (let y = 0; y < height; y += step) {
    for (let x = 0; x < width; x += step) if (padding === null || !padding[y * width + x]) probe.push(values[y * width + x]);
  }
  return probe.length ? probe : Array.from(values).filter((_, index) => !padding[index]);
}

function apply(transforms, values, low, high) {
  const transform = (value) => transforms.reduce((level, each) => each(level), value);
  if (high - low >= MOST_LEVELS || values.BYTES_PER_ELEMENT > 2) return Float64Array.from(values, transform);
  const levels = Float64Array.from({ length: high - low + 1 }, (_, index) => transform(low + index));
  const [least, most] = rangeOf(levels);
  if (!Number.isFinite(most - least)) throw new RangeError("its rescaled values are not finite");
  if (least === most) return new Float64Array(values.length).fill(least);
  // Padding, which may lie outside, finds a place too.
  const table = new Uint16Array(MOST_LEVELS);
  levels.forEach((level, index) => { table[index] = roundHalfEven((level - least) * ((MOST_LEVELS - 1) / (most - least))); });
  return Uint16Array.from(values, (value) => table[(value - low) & (MOST_LEVELS - 1)]);
}

/** Return the modality's and the value of interest's transform, each left out where it would change nothing. */
function transformsOf(dataset, probe, low, high, notes) {
  const found = [];
  const modality = modalityOf(dataset, low, high, notes);
  let seen = probe;
  if (modality !== null) {
    found.push(modality);
    seen = probe.map(modality);
  }
  const candidates = valuesOfInterest(dataset, ...rangeOf(seen));
  const shown = candidates.find((each) => shows(seen.map(each)));
  if (shown !== undefined) found.push(shown);
  else if (candidates.length) notes.push("No window in the header shows the picture, so its whole range is shown.");
  return found;
}

/** Return whether enough of the levels, 0 to 1, lie between black and white, and are not all the same. */
function shows(levels) {
  const inside = levels.reduce((count, level) => count + (level > 0.005 && level < 0.995 ? 1 : 0), 0);
  const [least, most] = rangeOf(levels);
  return inside / levels.length >= LEAST_SHOWN && most - least > 0.005;
}

function modalityOf(dataset, low, high, notes) {
  for (const item of items(dataset, "ModalityLUTSequence")) {
    const table = lookUpTable(item, low, high);
    if (table !== null) return table.look;
  }
  const [slope = 1] = numbers(dataset, "RescaleSlope");
  const [intercept = 0] = numbers(dataset, "RescaleIntercept");
  if (!Number.isFinite(slope) || !Number.isFinite(intercept) || slope === 0) {
    notes.push("The header's rescale slope or intercept cannot be used, so the values are shown without them.");
    return null;
  }
  return slope === 1 && intercept === 0 ? null : (value) => value * slope + intercept;
}

/** Return the header's tables and windows in their order, those left out that no viewer can use. */
function valuesOfInterest(dataset, low, high) {
  const tables = items(dataset, "VOILUTSequence").map((item) => lookUpTable(item, low, high)).filter((table) => table !== null);
  const kind = text(dataset, "VOILUTFunction").toUpperCase();
  const [centres, widths] = [numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth")];
  const windows = centres.slice(0, widths.length)
    .map((centre, index) => [centre, widths[index]])
    .filter(([centre, width]) => Number.isFinite(centre) && Number.isFinite(width) && width > 0)
    .map(([centre, width]) => windowOf(centre, width, kind));
  return [...tables.map((table) => table.level), ...windows];
}

/** Return whether higher stored values are shown brighter, before any inversion. */
function rises(transforms, low, high) {
  const [first, last] = [low, high].map((value) => transforms.reduce((level, each) => each(level), value));
  return last >= first;
}

/** Return whether black and white must change places for bone to be bright. */
function invertsWhite(dataset, isRising, notes) {
  const [photometric, shape] = [text(dataset, "PhotometricInterpretation"), text(dataset, "PresentationLUTShape")];
  let isInverted = photometric === "MONOCHROME1";
  if (photometric !== "MONOCHROME1" && photometric !== "MONOCHROME2") {
    notes.push("The header does not say whether low values are black or white; they are shown black.");
  } else if (photometric === "MONOCHROME2" && shape === "INVERSE") {
    isInverted = true;
    notes.push("The header says MONOCHROME2 with an INVERSE presentation, which vendors read both ways; shown inverted.");
  } else if (photometric === "MONOCHROME1" && shape === "IDENTITY") {
    notes.push("The header says MONOCHROME1 with an IDENTITY presentation, which vendors read both ways; shown inverted.");
  }
  // 1: a low value stands for little radiation, as behind bone; -1: a high value does.
  const sign = whole(dataset, "PixelIntensityRelationshipSign");
  const isForProcessing = text(dataset, "PresentationIntentType") === "FOR PROCESSING" || PROCESSING_CLASSES.has(text(dataset, "SOPClassUID"));
  if (isForProcessing) {
    notes.push("The pixels are FOR PROCESSING: they lack the contrast that a viewer is given.");
    if (sign === 1 || sign === -1) isInverted = isRising === (sign === 1);
  } else if ((sign === 1 || sign === -1) && (isRising !== isInverted) !== (sign === -1)) {
    notes.push("The header contradicts itself on whether bone is bright; shown by its PhotometricInterpretation.");
  }
  return isInverted;
}
