// The header of a DICOM file -> the patient, and notes on what kind of picture it is, as dicom_header_cxrfpn.py does it.
import { items, text, texts } from "./dicom_tags.js";
import { orElse, readPatient, unique } from "./patient.js";

const DATES = ["StudyDate", "AcquisitionDate", "ContentDate", "SeriesDate"];
// Projection radiography, secondary captures of it, and what says nothing.
const RADIOGRAPHS = new Set(["CR", "DX", "RG", "DR", "XR", "OT", "SC", ""]);
const CHEST = /CHEST|THORAX|LUNG|RIB|CLAVIC|STERN|CXR|TORAX|WHOLE|UNKNOWN/;
const DAYS_A_YEAR = 365.25;
const MILLISECONDS_A_DAY = 86_400_000;

/** Return what a header says of the patient, unknown where it is silent or makes no sense. */
export function patientOf(dataset) {
  const said = {
    age: [text(dataset, "PatientAge"), ageByDates(dataset)],
    sex: [text(dataset, "PatientSex")],
    view_position: [
      text(dataset, "ViewPosition"), ...items(dataset, "ViewCodeSequence").map((item) => text(item, "CodeMeaning")), viewByOrientation(dataset),
    ],
  };
  return Object.entries(said).reduce((patient, [field, values]) => {
    const read = values.map((value) => lenient(field, value));
    return orElse(patient, read.find((each) => each[field] !== null) ?? read[0]);
  }, readPatient());
}

/** Return notes on what is no radiograph of a chest, by its header. */
export function kindNotes(dataset) {
  const [modality, part] = [text(dataset, "Modality").toUpperCase(), text(dataset, "BodyPartExamined").toUpperCase()];
  const notes = [];
  if (!RADIOGRAPHS.has(modality)) notes.push(`The header says that the modality is ${modality.slice(0, 16)}, not radiography.`);
  if (part && !CHEST.test(part)) notes.push(`The header says that the body part is ${part.slice(0, 16)}, not the chest.`);
  return unique(notes);
}

function lenient(field, value) {
  try {
    return readPatient({ [field]: value });
  } catch (error) {
    if (error instanceof RangeError) return readPatient();
    throw error;
  }
}

function ageByDates(dataset) {
  const birth = dateOf(text(dataset, "PatientBirthDate"));
  const study = DATES.map((keyword) => dateOf(text(dataset, keyword))).find((day) => day !== null) ?? null;
  if (birth === null || study === null || study < birth) return null;
  // Anonymisers write the first of January 1900 or 1901 for any date.
  if (birth.getUTCMonth() === 0 && birth.getUTCDate() === 1 && birth.getUTCFullYear() <= 1901) return null;
  return Math.round((study - birth) / MILLISECONDS_A_DAY) / DAYS_A_YEAR;
}

/** Return a DICOM date, YYYYMMDD or, of old files, YYYY.MM.DD; null where it is none. */
function dateOf(written) {
  const match = /^(\d{4})\.?(\d\d)\.?(\d\d)$/.exec(written);
  if (match === null) return null;
  const [year, month, day] = match.slice(1).map(Number);
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  return year > 0 && date.getUTCMonth() === month - 1 && date.getUTCDate() === day ? date : null;
}

/** Return LATERAL where the rows of the picture run from back to front, or the other way. */
function viewByOrientation(dataset) {
  const [first] = texts(dataset, "PatientOrientation");
  return /^[AP]/.test(first ?? "") ? "LATERAL" : null;
}
