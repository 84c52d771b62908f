// What the visitor says of the patient, and where films are dropped.
import { SEXES, VIEW_POSITIONS, readPatient } from "./patient.js";

const UNKNOWN = "unknown";
const BAD_AGE = "the age must be a number of years from 0 to 120; leave it empty if it is unknown";
const choices = { sex: [UNKNOWN, ...Object.keys(SEXES).reverse()], view: [UNKNOWN, ...Object.keys(VIEW_POSITIONS)] };

/** Build the choices of sex and view. */
export function startForm() {
  for (const [name, values] of Object.entries(choices)) {
    const group = document.querySelector(`#${name} .wrap`);
    for (const value of values) {
      const [label, input, text] = ["label", "input", "span"].map((tag) => document.createElement(tag));
      Object.assign(input, { type: "radio", name, value });
      input.addEventListener("change", () => mark(name));
      text.textContent = value;
      label.append(input, text);
      group.append(label);
    }
  }
  writePatient({ age: null, sex: null, view_position: null });
}

/** Write a patient into the form. */
export function writePatient({ age, sex, view_position }) {
  document.querySelector("#age input").value = age === null ? "" : String(Number(age.toPrecision(6)));
  choose("sex", sex ?? UNKNOWN);
  choose("view", view_position in VIEW_POSITIONS ? view_position : UNKNOWN);
}

/**
 * Read the patient from the form, null for what is unknown.
 *
 * @throws {RangeError} an age that is no number of years in 0 to 120.
 */
export function formPatient() {
  let read;
  try {
    read = readPatient({ age: document.querySelector("#age input").value });
  } catch {
    throw new RangeError(BAD_AGE);
  }
  if (read.notes.length) throw new RangeError(BAD_AGE);
  const [sex, view] = ["sex", "view"].map((name) => document.querySelector(`#${name} input:checked`).value);
  return { age: read.age, sex: sex === UNKNOWN ? null : sex, view_position: view === UNKNOWN ? null : view };
}

function choose(name, value) {
  document.querySelector(`#${name} input[value="${value}"]`).checked = true;
  mark(name);
}

function mark(name) {
  for (const label of document.querySelectorAll(`#${name} label`)) label.classList.toggle("selected", label.firstChild.checked);
}

/**
 * Let a field take files by choosing and by dropping them.
 *
 * @param id of the field, which holds an input and a place for the names of what was chosen.
 * @param onFiles called with the files, [] when they are taken away again.
 */
export function startDrop(id, onFiles) {
  const field = document.getElementById(id);
  const [input, names, clear] = ["input", ".chosen", ".clear"].map((selector) => field.querySelector(selector));
  const take = (files) => {
    const count = files.length > 1 ? `${files.length} files` : files[0]?.name ?? "";
    names.textContent = count;
    clear.hidden = !files.length;
    field.classList.toggle("filled", files.length > 0);
    onFiles(files);
  };
  input.addEventListener("change", () => input.files.length && take([...input.files]));
  clear.addEventListener("click", () => {
    input.value = "";
    take([]);
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    field.addEventListener(kind, (event) => {
      event.preventDefault();
      field.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    });
  }
  field.addEventListener("drop", ({ dataTransfer }) => dataTransfer.files.length && take([...dataTransfer.files]));
  return { show: (name) => {
    names.textContent = name;
    clear.hidden = false;
    field.classList.add("filled");
  } };
}
