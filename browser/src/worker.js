// Beside the page: reads films and runs the network, so that the page never waits. Each message {id, kind, ...} is answered by
// {id, result} or {id, error}; while the network loads also by {id, progress}.
import { answerAny, makeAnswer } from "./answer.js";
import { setWasmSource } from "./codecs.js";
import { isDicom, readDicomPatient } from "./dicom.js";
import { RadiographError } from "./errors.js";
import { filmFit } from "./gate.js";
import { loadNetwork } from "./network.js";
import { encode, readPatient, unique } from "./patient.js";
import { crop, leastSide, normalise, placeMap } from "./preparation.js";
import { readRadiograph, unpacked } from "./radiograph.js";
import { BILINEAR, resize } from "./resize.js";

// Longer sides, in pixels: of the radiograph as the page shows it, and of the maps, which are smooth.
const [SHOWN_SIDE, MAP_SIDE] = [1024, 128];
let model = null;
let network = null;

setWasmSource(async (name) => new Uint8Array(await (await fetch(new URL(`./wasm/${name}.wasm`, import.meta.url))).arrayBuffer()));

/** Load the network, and run it once, so that the first film waits for no compiling. */
async function load({ model: content, file }, tell) {
  model = content;
  network = await loadNetwork(file.name, file.size, tell);
  const { height, width } = model.settings.size;
  await network.run(new Float32Array(3 * height * width), [NaN, NaN, NaN], model.settings.size, ["logits", "maps"]);
  return { threads: network.threads };
}

/** Return what a DICOM header says of the patient; null for any other file. */
async function header({ bytes, name }) {
  const file = await unpacked(bytes, name);
  return isDicom(file.bytes, file.name) ? readDicomPatient(file.bytes, file.name) : null;
}

/** Read one film. A patient's key that is there overrules the file's header, with null too. */
async function read({ bytes, name, patient, maps }) {
  const began = performance.now();
  const radiograph = await readRadiograph(bytes, name, leastSide(model.settings));
  const { pixels, width, height, age, sex, view_position } = radiograph;
  const picture = { pixels, width, height };
  const known = readPatient({ age, sex, view_position, ...patient });
  const { size } = model.settings;
  const values = normalise(crop(picture, model.settings), model.settings);
  const outputs = await network.run(values, encode(known), size, maps ? ["logits", "maps"] : ["logits"]);
  const logits = Array.from(outputs.logits.data);
  const findings = makeAnswer(logits, model.findings, model.thresholds, null, maps ? mapsOf(outputs.maps) : null);
  const fit = filmFit(picture, model.gate);
  const answer = {
    name, patient: { age: known.age, sex: known.sex, view_position: known.view_position }, fit, is_chest: fit >= model.gate.least_fit,
    any_finding: answerAny(Object.fromEntries(model.findings.map((label, index) => [label, logits[index]])), model.thresholds),
    notes: unique([...radiograph.notes, ...known.notes]), milliseconds: performance.now() - began,
  };
  if (!maps) return { ...answer, findings };
  const shown = reduced(picture, SHOWN_SIDE);
  return { ...answer, picture: shown, findings: findings.map((finding) => ({ ...finding, map: placed(finding.map, shown) })) };
}

function mapsOf({ data, dims: [, count, height, width] }) {
  return Array.from({ length: count }, (_, index) => ({ pixels: data.slice(index * height * width, (index + 1) * height * width), width, height }));
}

function reduced(picture, side) {
  const scale = Math.min(1, side / Math.max(picture.width, picture.height));
  const [width, height] = [picture.width, picture.height].map((length) => Math.max(1, Math.round(length * scale)));
  return resize(picture, width, height, BILINEAR);
}

/** Return a map laid over the radiograph, of 8 bits; null where it is 0 throughout. */
function placed(map, { width, height }) {
  if (!map.pixels.some((level) => level !== 0)) return null;
  const scale = MAP_SIDE / Math.max(width, height);
  const [across, down] = [width, height].map((length) => Math.max(8, Math.round(length * scale)));
  const levels = placeMap(map, across, down, model.settings.crop_fraction);
  return { pixels: Uint8Array.from(levels, (level) => Math.round(level * 255)), width: across, height: down };
}

const KINDS = { load, header, read };
let turn = Promise.resolve();

// One after the other: two films at once would only make both slower.
self.addEventListener("message", ({ data: { id, kind, ...message } }) => {
  turn = turn.then(async () => {
    try {
      const result = await KINDS[kind](message, (progress) => self.postMessage({ id, progress }));
      self.postMessage({ id, result });
    } catch (error) {
      const isTold = error instanceof RadiographError || error instanceof RangeError || kind === "load";
      self.postMessage({ id, error: isTold ? error.message : `${message.name}: cannot be read (${error.message ?? error})` });
    }
  });
});
