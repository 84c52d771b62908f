// Reads files as the page does, for the tests: node read_files.js SETTINGS.json GATE.json FILE...
// Writes a line of JSON for each: {name, width, height, pixels (SHA-256), crop, patient, notes, fit}, or {name, error}.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { basename } from "node:path";

import { WASM } from "./build_files.js";
import { setWasmSource } from "./src/codecs.js";
import { RadiographError } from "./src/errors.js";
import { filmFit } from "./src/gate.js";
import { crop, leastSide } from "./src/preparation.js";
import { readRadiograph } from "./src/radiograph.js";

const json = (path) => JSON.parse(readFileSync(path));
const [settings, gate] = process.argv.slice(2, 4).map(json);
setWasmSource(async (name) => readFileSync(new URL(`node_modules/${WASM[name]}`, import.meta.url)));
// What a browser has, and libwebp's wrapper asks for.
globalThis.ImageData ??= class { constructor(data, width, height) { Object.assign(this, { data, width, height }); } };
console.info = () => {};  // of OpenJPEG
console.log = () => {};

for (const path of process.argv.slice(4)) {
  const name = basename(path);
  process.stdout.write(`${JSON.stringify({ name, ...(await read(path, name)) })}\n`);
}

async function read(path, name) {
  try {
    const { pixels, width, height, notes, ...patient } = await readRadiograph(new Uint8Array(readFileSync(path)), name, leastSide(settings));
    const picture = { pixels, width, height };
    return {
      width, height, pixels: createHash("sha256").update(pixels).digest("hex"), crop: Array.from(crop(picture, settings).pixels),
      patient: { age: patient.age, sex: patient.sex, view_position: patient.view_position }, notes, fit: filmFit(picture, gate),
    };
  } catch (error) {
    if (error instanceof RadiographError) return { error: error.message };
    throw error;
  }
}
