// The first tab: one film, its patient and its reading.
import mountGallery from "demo:gallery.js";
import mountReader from "demo:drawing.js+reader.js";

import { component } from "./component.js";
import { formPatient, startDrop, startForm, writePatient } from "./form.js";
import { drawable } from "./pictures.js";

/**
 * Start the tab.
 *
 * @param model the content of model.json.
 * @param engine reads films; its network may still be loading.
 * @param props what the demo's scripts need.
 */
export function startOneImage(model, engine, props) {
  startForm();
  const { name, measured, guarantee, notice } = model;
  const show = component(mountReader, document.getElementById("reader"), { ...props, model: name, measured, guarantee, notice });
  const time = document.getElementById("time");
  const button = document.getElementById("read");
  let film = null;  // {name, bytes, drawn}
  let turn = 0;

  async function read() {
    if (film === null) return;
    const mine = ++turn;
    button.setAttribute("aria-busy", "true");
    let reading;
    try {
      reading = drawable(await engine.read(film.bytes, film.name, formPatient(), true), film.drawn);
    } catch (error) {  // shown in place of the reading, where the visitor looks
      reading = { error: error.message };
    }
    if (mine !== turn) return;  // another film was chosen meanwhile
    button.removeAttribute("aria-busy");
    show(reading);
    time.textContent = reading.error ? "" : `Read on this device in ${Math.round(reading.milliseconds)} ms. The film was not sent anywhere.`;
  }

  async function choose([file]) {
    if (file === undefined) {  // with the file goes its patient: the next one must not inherit an age
      film = null;
      turn++;
      writePatient({ age: null, sex: null, view_position: null });
      time.textContent = "";
      return void show(null);
    }
    film = { name: file.name, bytes: new Uint8Array(await file.arrayBuffer()), drawn: null };
    const patient = await engine.header(film.bytes, film.name).catch(() => null);  // the reading that follows says what is wrong
    if (patient !== null) writePatient(patient);
    await read();
  }

  const drop = startDrop("upload", choose);
  button.addEventListener("click", read);
  component(mountGallery, document.getElementById("gallery"), { value: model.examples }, async (_, { example }) => {
    const { file, title, findings, ...patient } = model.examples[example];
    const bytes = new Uint8Array(await (await fetch(new URL(`./examples/${file}`, import.meta.url))).arrayBuffer());
    film = { name: file, bytes, drawn: findings };
    drop.show(file);
    writePatient(patient);
    await read();
  });
}
