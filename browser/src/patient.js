// What is known of a patient, read from any form and encoded for the network, as patient_cxrfpn.py does it.

export const VIEW_POSITIONS = { PA: 0, AP: 1 };
export const SEXES = { M: 0, F: 1 };
const MAX_AGE_YEARS = 120;
const AGE_SCALE_YEARS = 100;
const UNKNOWN = new Set(["", "u", "unk", "unknown", "unspecified", "nan", "<na>", "nat", "na", "none", "null", "n/a", "-", "?"]);
const AGE = /^(-?\d{1,400}(?:[.,]\d{1,40})?)\s*(y|m|w|d)?(?:(?<=y)(?:r|rs|ears?)|(?<=m)onths?|(?<=w)eeks?|(?<=d)ays?)?\.?$/;
const YEARS = { y: 1, m: 1 / 12, w: 7 / 365.25, d: 1 / 365.25 };
const BLANKED_AGE = /^000[ymwd]?$/;
const SEX_WORDS = new Map([
  ...["m", "male", "man", "boy"].map((word) => [word, "M"]),
  ...["f", "female", "woman", "girl"].map((word) => [word, "F"]),
  ...["o", "other", "n", "x", "i", "intersex", "indeterminate"].map((word) => [word, null]),
]);
const FRONTAL = [
  ["PA", /\b(pa|postero anterior|posteroanterior)\b/],
  ["AP", /\b(ap|antero posterior|anteroposterior)\b/],
];
const EITHER = new Set(["frontal", "lld", "rld", "decubitus", "lordotic", "axial", "other", "supine", "erect", "costal"]);
const OTHER_VIEWS = [
  ["OBLIQUE", new Set(["oblique", "obl", "lao", "rao", "lpo", "rpo"])],
  ["LATERAL", new Set(["lateral", "lat", "ll", "rl", "l", "llat", "rlat", "ml", "lm", "latl", "swimmers"])],
];

/**
 * Read age, sex and view position, each in any form that people and files write.
 *
 * @returns {{age: ?number, sex: ?string, view_position: ?string, notes: string[]}} null where unknown.
 * @throws {RangeError} for what is no age, sex or view position at all, in one line.
 */
export function readPatient({ age = null, sex = null, view_position = null } = {}) {
  const notes = [];
  return { age: readAge(age, notes), sex: readSex(sex), view_position: readView(view_position, notes), notes };
}

/** Return one patient with what is unknown taken from another, and the notes of both, each once. */
export function orElse(patient, other) {
  return {
    age: patient.age ?? other.age,
    sex: patient.sex ?? other.sex,
    view_position: patient.view_position ?? other.view_position,
    notes: unique([...patient.notes, ...other.notes]),
  };
}

/** Return the patient vector: age / 100, PA 0 or AP 1, M 0 or F 1; NaN is unknown. */
export function encode({ age, sex, view_position }) {
  return [
    age === null ? NaN : Math.min(age / AGE_SCALE_YEARS, 1), VIEW_POSITIONS[view_position] ?? NaN, SEXES[sex] ?? NaN,
  ];
}

/** Return texts in their order, each once. */
export const unique = (texts) => [...new Set(texts)];

function plain(value) {
  if (value === null || value === undefined) return "";
  const text = String(value).toLowerCase().trim().replace(/\s+/g, " ");
  return UNKNOWN.has(text) ? "" : text;
}

// As Python shows a value in a message.
const shown = (value) => (typeof value === "string" ? `'${value}'` : String(value)).slice(0, 80);

function readAge(value, notes) {
  const text = plain(value);
  if (!text || BLANKED_AGE.test(text)) return null;
  const match = AGE.exec(text);
  const years = match === null ? Number(text) : Number(match[1].replace(",", ".")) * YEARS[match[2] ?? "y"];
  if (Number.isNaN(years)) throw new RangeError(`age ${shown(value)} is not a number of years; leave it out if it is unknown`);
  if (years >= 0 && years <= MAX_AGE_YEARS) return years;
  notes.push(`The age ${shown(value)} is outside 0 to ${MAX_AGE_YEARS} years and was taken as unknown.`);
  return null;
}

function readSex(value) {
  const text = plain(value);
  if (text && !SEX_WORDS.has(text)) throw new RangeError(`sex ${shown(value)} is none of M, F; leave it out if it is unknown`);
  return SEX_WORDS.get(text) ?? null;
}

function readView(value, notes) {
  const text = plain(value).replace(/[\s_/,.-]+/g, " ").trim();
  if (!text) return null;
  const words = text.split(" ");
  const frontal = FRONTAL.filter(([, pattern]) => pattern.test(text)).map(([view]) => view);
  if (frontal.length === 1) return frontal[0];
  if (frontal.length || words.some((word) => EITHER.has(word))) return null;
  for (const [view, known] of OTHER_VIEWS) {
    if (words.some((word) => known.has(word))) {
      notes.push(`The view is ${view.toLowerCase()}, but the model knows frontal radiographs only.`);
      return view;
    }
  }
  throw new RangeError(`view position ${shown(value)} is none of PA, AP, LATERAL, OBLIQUE; leave it out if it is unknown`);
}
