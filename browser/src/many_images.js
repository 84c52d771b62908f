// The second tab: many films, or zips of them, as a table.
import mountBatch from "demo:drawing.js+batch.js";

import { component } from "./component.js";
import { startDrop } from "./form.js";
import { isZip, listZip } from "./zip.js";

/**
 * Start the tab.
 *
 * @param model the content of model.json.
 * @param engine reads films.
 * @param props what the demo's scripts need.
 */
export function startManyImages(model, engine, props) {
  const show = component(mountBatch, document.getElementById("batch"), { ...props, findings: model.findings });
  let chosen = [];
  let turn = 0;

  startDrop("uploads", (files) => {
    chosen = files;
    turn++;
    show(null);
  });

  document.getElementById("read-all").addEventListener("click", async () => {
    const mine = ++turn;
    if (!chosen.length) return;
    const rows = [];
    const films = await filmsOf(chosen);
    for (const film of films) {
      rows.push(await rowOf(film, engine));
      if (mine !== turn) return;  // other films were chosen meanwhile
      show({ rows: [...rows], total: films.length });
    }
  });
}

/** Return what there is to read, [{name, read}]; a zip stands for its members, and one that is damaged for an error. */
async function filmsOf(files) {
  const films = await Promise.all(files.map(async (file) => {
    const start = new Uint8Array(await file.slice(0, 4).arrayBuffer());
    const read = async () => new Uint8Array(await file.arrayBuffer());
    if (!isZip(start)) return [{ name: file.name, read }];
    try {
      return listZip(await read(), file.name);
    } catch (error) {
      return [{ name: file.name, read: () => Promise.reject(error) }];
    }
  }));
  return films.flat();
}

async function rowOf({ name, read }, engine) {
  try {
    const { findings, any_finding, fit, is_chest, notes } = await engine.read(await read(), name, {}, false);
    return { name, any_finding, fit, is_chest, notes, scores: Object.fromEntries(findings.map(({ label, score }) => [label, score])) };
  } catch (error) {
    return { name, error: error.message };
  }
}
