// What the page is made of besides our own scripts: decoders and the runtime, as their packages have them.

/** Decoders by the name that src/codecs.js asks for them by -> their WebAssembly in node_modules. */
export const WASM = {
  webp: "@jsquash/webp/codec/dec/webp_dec.wasm",
  "jpeg-ls": "@cornerstonejs/codec-charls/dist/charlswasm_decode.wasm",
  "jpeg-2000": "@cornerstonejs/codec-openjpeg/dist/openjpegwasm_decode.wasm",
};

/** The runtime of the network. Its threads load it by itself, so that it is no part of a bundle. */
export const RUNTIME = ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"].map((name) => `onnxruntime-web/dist/${name}`);

/** Packages whose work is in the page, and whose licences go with it. */
export const LICENSED = ["onnxruntime-web", "dicom-parser", "@jsquash/webp", "@cornerstonejs/codec-charls", "@cornerstonejs/codec-openjpeg"];
