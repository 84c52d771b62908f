// Builds the page's scripts into build/: node build.js. `publish.py RUN --static DIR` puts the model beside them.
import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { basename } from "node:path";

import esbuild from "esbuild";

import { LICENSED, RUNTIME, WASM } from "./build_files.js";

const here = (path) => new URL(path, import.meta.url);
const OUTPUT = "build";

/** The demo's scripts, which gradio runs with `element`, `props`, `watch` and `trigger`, as functions of these. */
const demoScripts = {
  name: "demo-scripts",
  setup(build) {
    build.onResolve({ filter: /^demo:/ }, ({ path }) => ({ path: path.slice("demo:".length), namespace: "demo" }));
    build.onLoad({ filter: /.*/, namespace: "demo" }, async ({ path }) => {
      const names = path.split("+").map((name) => `../demo/${name}`);
      const texts = await Promise.all(names.map((name) => readFile(here(name), "utf8")));
      return { contents: `export default function mount(element, props, watch, trigger) {\n${texts.join("\n")}\n}`, loader: "js" };
    });
  },
};

await rm(here(OUTPUT), { recursive: true, force: true });
await esbuild.build({
  absWorkingDir: here(".").pathname,
  entryPoints: { page: "src/page.js", worker: "src/worker.js" },
  outdir: OUTPUT,
  bundle: true,
  splitting: true,
  format: "esm",
  platform: "browser",
  target: "es2022",
  minify: true,
  legalComments: "none",  // they are in licences.txt
  chunkNames: "chunks/[name]-[hash]",
  external: ["./vendor/*", "fs", "path", "crypto", "url"],  // the last four are asked for under Node only
  plugins: [demoScripts],
  logLevel: "warning",
});
for (const folder of ["vendor", "wasm"]) await mkdir(here(`${OUTPUT}/${folder}`));
for (const path of RUNTIME) await cp(here(`node_modules/${path}`), here(`${OUTPUT}/vendor/${basename(path)}`));
for (const [name, path] of Object.entries(WASM)) await cp(here(`node_modules/${path}`), here(`${OUTPUT}/wasm/${name}.wasm`));
await writeFile(here(`${OUTPUT}/licences.txt`), await licences());

async function licences() {
  const parts = [await readFile(here("licences.txt"), "utf8")];
  for (const name of LICENSED) {
    const { version, license } = JSON.parse(await readFile(here(`node_modules/${name}/package.json`)));
    const file = here(`node_modules/${name}/LICENSE`);
    parts.push(`${name} ${version} (${license})\n\n${existsSync(file) ? await readFile(file, "utf8") : "See above.\n"}`);
  }
  return parts.join(`\n${"-".repeat(80)}\n\n`);
}
