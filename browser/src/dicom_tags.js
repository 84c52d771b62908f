// Values of a DICOM header that may be broken: what cannot be read counts as absent. As dicom_tags_cxrfpn.py does it.
import { latin1 } from "./inflating.js";

/** Keyword -> tag, and the kind of value that files without kinds have there. */
export const TAGS = {
  DirectoryRecordSequence: ["x00041220", "SQ"], TransferSyntaxUID: ["x00020010", "UI"], SOPClassUID: ["x00080016", "UI"],
  StudyDate: ["x00080020", "DA"], SeriesDate: ["x00080021", "DA"], AcquisitionDate: ["x00080022", "DA"], ContentDate: ["x00080023", "DA"],
  Modality: ["x00080060", "CS"], PresentationIntentType: ["x00080068", "CS"], CodeMeaning: ["x00080104", "LO"],
  PatientBirthDate: ["x00100030", "DA"], PatientSex: ["x00100040", "CS"], PatientAge: ["x00101010", "AS"],
  BodyPartExamined: ["x00180015", "CS"], ViewPosition: ["x00185101", "CS"], PatientOrientation: ["x00200020", "CS"],
  SamplesPerPixel: ["x00280002", "US"], PhotometricInterpretation: ["x00280004", "CS"], PlanarConfiguration: ["x00280006", "US"],
  NumberOfFrames: ["x00280008", "IS"], Rows: ["x00280010", "US"], Columns: ["x00280011", "US"], BitsAllocated: ["x00280100", "US"],
  BitsStored: ["x00280101", "US"], HighBit: ["x00280102", "US"], PixelRepresentation: ["x00280103", "US"],
  PixelPaddingValue: ["x00280120", "US"], PixelPaddingRangeLimit: ["x00280121", "US"], WindowCenter: ["x00281050", "DS"],
  WindowWidth: ["x00281051", "DS"], RescaleIntercept: ["x00281052", "DS"], RescaleSlope: ["x00281053", "DS"],
  VOILUTFunction: ["x00281056", "CS"], PixelIntensityRelationshipSign: ["x00281041", "SS"], ModalityLUTSequence: ["x00283000", "SQ"],
  LUTDescriptor: ["x00283002", "US"], LUTData: ["x00283006", "US"], VOILUTSequence: ["x00283010", "SQ"],
  ViewCodeSequence: ["x00540220", "SQ"], PresentationLUTShape: ["x20500020", "CS"], PixelData: ["x7fe00010", "OW"],
};
// Enhanced files keep what may change from frame to frame in sequences of their own (PS3.3 C.7.6.16).
const GROUPS = ["x52009230", "x52009229"];
const BINARY = { US: ["uint16", 2], SS: ["int16", 2], UL: ["uint32", 4], SL: ["int32", 4], FL: ["float", 4], FD: ["double", 8] };

/** Return the data set and, of an enhanced file, its functional groups, one of which holds the element; undefined where none does. */
function holder(dataset, keyword) {
  const [tag] = TAGS[keyword];
  const groups = GROUPS.flatMap((group) => Object.values(dataset.elements[group]?.items?.[0]?.dataSet?.elements ?? {}))
    .map((element) => element.items?.[0]?.dataSet);
  return [dataset, ...groups].find((part) => {
    const element = part?.elements[tag];
    return element !== undefined && (element.length > 0 || element.items?.length > 0);
  });
}

/** Return the data sets of a sequence's items, [] where it is absent. */
export function items(dataset, keyword) {
  const element = holder(dataset, keyword)?.elements[TAGS[keyword][0]];
  return (element?.items ?? []).map((item) => item.dataSet).filter(Boolean);
}

/** Return the numbers of an element, NaN for what is none; [] where it is absent. */
export function numbers(dataset, keyword) {
  const part = holder(dataset, keyword);
  if (part === undefined) return [];
  const [tag, usual] = TAGS[keyword];
  const element = part.elements[tag];
  const kind = element.vr === undefined || ["UN", "OW", "OB"].includes(element.vr) ? usual : element.vr;
  if (kind in BINARY) {
    const [read, size] = BINARY[kind];
    return Array.from({ length: Math.floor(element.length / size) }, (_, index) => part[read](tag, index));
  }
  return values(part, tag).map((value) => (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(value) ? Number(value) : NaN));
}

/** Return the first number of an element if it is whole. */
export function whole(dataset, keyword, otherwise = null) {
  const [first] = numbers(dataset, keyword);
  return Number.isInteger(first) ? first : otherwise;
}

/** Return an element as text, "" where it is absent or has several values. */
export function text(dataset, keyword) {
  const found = texts(dataset, keyword);
  return found.length === 1 ? found[0] : "";
}

/** Return the values of an element as texts. */
export function texts(dataset, keyword) {
  const part = holder(dataset, keyword);
  return part === undefined ? [] : values(part, TAGS[keyword][0]);
}

function values(part, tag) {
  const { dataOffset, length } = part.elements[tag];
  return latin1(part.byteArray.subarray(dataOffset, dataOffset + length)).split("\\").map((value) => value.replace(/^[\0 ]+|[\0 ]+$/g, ""));
}
