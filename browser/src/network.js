// The network: an ONNX file of publish.py, run by onnxruntime in WebAssembly.
import * as ort from "./vendor/ort.wasm.min.mjs";

const MOST_THREADS = 4;

/**
 * Load the network.
 *
 * @param file its name beside the page.
 * @param size its bytes, by which the progress is computed.
 * @param onProgress called with the share of the file that is here, 0 to 1.
 * @returns {Promise<{run: function, threads: number}>} run(pixel_values, patient, settings, wanted) -> {name: {data, dims}}.
 */
export async function loadNetwork(file, size, onProgress) {
  const threads = self.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = new URL("./vendor/", import.meta.url).href;
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(await fetchWhole(file, size, onProgress), { executionProviders: ["wasm"] });
  const run = (values, patient, { height, width }, wanted) => session.run({
    pixel_values: new ort.Tensor("float32", values, [1, 3, height, width]),
    patient: new ort.Tensor("float32", Float32Array.from(patient), [1, patient.length]),
  }, wanted);
  return { run, threads };
}

async function fetchWhole(file, size, onProgress) {
  const response = await fetch(new URL(file, import.meta.url));
  if (!response.ok) throw new Error(`${file}: cannot be fetched (${response.status}); reload the page`);
  const whole = new Uint8Array(size);
  const reader = response.body.getReader();
  let place = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (place + value.length > size) break;
    whole.set(value, place);
    place += value.length;
    onProgress(place / size);
  }
  if (place !== size) throw new Error(`${file}: arrived with another size than it was published with; reload the page`);
  return whole;
}
