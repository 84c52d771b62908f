// Draws one reading: findings with their thresholds beside the radiograph and a finding map. Everything that can
// change after the reading (operating point, finding, opacity) changes here, without asking the server again.
// Text is always set as text, never as HTML: visitors choose file names.
const root = element.querySelector(".reader-root");
const state = { point: props.default_point, finding: null, opacity: 0.6 };

const percent = (share) => (share === null || share === undefined ? "–" : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`);

function called(reading) {
  const { thresholds } = currentPoint();
  return reading.findings
    .map((finding) => ({ ...finding, threshold: thresholds[finding.label], positive: finding.score >= thresholds[finding.label] }))
    .sort((a, b) => b.positive - a.positive || b.score - a.score);
}

function patientLine(reading) {
  const { age, sex, view_position } = reading.patient;
  const said = [age === null ? "age unknown" : `${age} years`, { F: "female", M: "male" }[sex] ?? "sex unknown", view_position ?? "view unknown"];
  return said.join(" · ");
}

function thresholdLine(finding) {
  const figures = currentPoint().figures?.[finding.label];
  if (!figures) return `Threshold ${finding.threshold.toFixed(2)}. Its sensitivity and specificity were not measured.`;
  const { true_positives: tp, false_negatives: fn, true_negatives: tn, false_positives: fp } = figures;
  const sensitivity = tp + fn ? `sensitivity ${percent(figures.sensitivity)} (${tp} of ${tp + fn})` : "no positives to measure its sensitivity on";
  const few = figures.few_positives ? ", few positives" : "";
  return `Threshold ${finding.threshold.toFixed(2)}: ${sensitivity}${few}, specificity ${percent(figures.specificity)} (${tn} of ${tn + fp}).`;
}

function row(finding, selected) {
  const bar = make("span", { class: "bar", "aria-hidden": "true" });
  bar.append(make("span", { class: "fill", style: `width:${(100 * finding.score).toFixed(1)}%` }));
  bar.append(make("span", { class: "mark", style: `left:${(100 * finding.threshold).toFixed(1)}%` }));
  const call = finding.positive ? "positive" : "below its threshold";
  const said = `${title(finding.label)}, ${call}${finding.call ? `, ${finding.call}` : ""}, score ${finding.score.toFixed(2)}, threshold ${finding.threshold.toFixed(2)}, calibrated probability ${percent(finding.probability)}. Show its map.`;
  return make("li", {},
    make("button", {
      type: "button", class: `finding${finding.positive ? " positive" : ""}`, "data-finding": finding.label,
      "aria-pressed": String(selected), "aria-label": said, onclick: () => choose(finding.label),
    },
      make("span", { class: "name" }, title(finding.label)), bar,
      make("span", { class: "score" }, finding.score.toFixed(2)),
      make("span", { class: "probability" }, percent(finding.probability)),
      finding.positive || selected ? make("span", { class: "detail" }, `${thresholdLine(finding)}${finding.call ? ` Three-way call: ${finding.call}.` : ""}`) : null));
}

function anyFinding(reading) {
  const { any_finding: any } = reading;
  if (!any) return null;
  const call = any.score >= currentPoint().any_threshold ? "likely at this operating point" : "below its threshold";
  return make("p", { class: "any" }, make("strong", {}, "Any finding: "), `${call} · probability ${percent(any.probability)}${any.call ? ` · ${any.call}` : ""}`);
}

function threeWay(reading) {
  const of = (call) => reading.findings.filter((finding) => finding.call === call).map((finding) => title(finding.label));
  if (!reading.findings[0].call) return null;
  const line = (call) => make("li", {}, make("strong", {}, `${call[0].toUpperCase()}${call.slice(1)}: `), of(call).join(", ") || "none");
  return make("div", {}, make("h3", {}, "Present, absent or uncertain"),
    make("ul", { class: "threeway" }, ...["present", "uncertain", "absent"].map(line)),
    make("p", { class: "hint" }, `Each of present and absent is wrong for at most ${percent(1 - props.guarantee)} of the films that it does not fit, as far as these films resemble those of validation. The operating point does not change it.`));
}

function calls(reading) {
  const findings = called(reading);
  const list = (chosen) => make("ol", {}, ...chosen.map((finding) => row(finding, finding.label === state.finding)));
  const positive = findings.filter((finding) => finding.positive);
  const rest = findings.filter((finding) => !finding.positive);
  const head = make("div", { class: "heads", "aria-hidden": "true" }, make("span", {}, ""), make("span", {}, "score, and its threshold"), make("span", {}, ""), make("span", {}, "probability"));
  return make("section", { class: "calls", "aria-label": "Findings" }, choosePoint("operating-point"),
    make("p", { class: "hint" }, `${currentPoint().hint} ${props.measured}`),
    make("h3", { role: "status" }, positive.length ? `${positive.length} positive` : "No finding reaches its threshold"),
    anyFinding(reading), head, ...(positive.length ? [list(positive), make("h3", {}, "Below their thresholds")] : []), list(rest), threeWay(reading));
}

function views(reading) {
  const finding = reading.findings.find((each) => each.label === state.finding);
  const name = title(finding.label);
  const picture = () => make("img", { class: "film", src: reading.image, alt: "", draggable: "false" });
  const map = make("figure", {}, make("div", { class: "frame", role: "img", "aria-label": finding.map ? `Map of ${name} over the radiograph` : `Nothing in the radiograph speaks for ${name}` },
    picture(), finding.map ? make("img", { class: "layer", src: finding.map, alt: "", style: `opacity:${state.opacity}`, draggable: "false" }) : null),
    make("figcaption", {}, finding.map ? `What moved the score of ${name}` : `Nothing speaks for ${name}`));
  const bare = make("figure", {}, make("div", { class: "frame", role: "img", "aria-label": "The radiograph" }, picture()), make("figcaption", {}, reading.name));
  const opacity = make("label", { class: "opacity" }, make("span", {}, "Opacity of the map"), make("input", {
    type: "range", min: "0", max: "1", step: "0.05", value: String(state.opacity), disabled: !finding.map,
    oninput: (event) => { state.opacity = Number(event.target.value); const layer = root.querySelector(".layer"); if (layer) layer.style.opacity = state.opacity; } }));
  return make("section", { class: "views", "aria-label": "Radiograph" }, make("div", { class: "films" }, bare, map), opacity,
    make("p", { class: "patient" }, patientLine(reading)),
    reading.drawn ? make("p", { class: "truth" }, make("strong", {}, "Synthetic. "), reading.drawn.length ? `Drawn with ${reading.drawn.map(title).join(", ")}.` : "Drawn without a finding.") : null,
    reading.labelled ? make("p", { class: "truth" }, make("strong", {}, "NIH test set. "), `Labelled ${reading.labelled.length ? reading.labelled.map(title).join(", ") : "No Finding"}.`) : null,
    make("div", { class: "downloads" },
      make("button", { type: "button", onclick: () => saveJson(reading) }, "Download JSON"),
      make("button", { type: "button", onclick: () => savePage(reading) }, "Download page (PNG)")));
}

function choose(label) {
  state.finding = label;
  draw();
  root.querySelector(`[data-finding="${label}"]`)?.focus({ preventScroll: true });
}

function draw() {
  const reading = props.value;
  root.replaceChildren();
  if (!reading) return;
  if (reading.error) return void root.append(make("p", { class: "refused", role: "alert" }, reading.error));
  if (!reading.is_chest) root.append(make("p", { class: "gate", role: "alert" }, make("strong", {}, "This does not look like an upright frontal chest radiograph of an adult in normal polarity. "), `Its fit is ${reading.fit.toFixed(2)} of 1. The network scores any picture, and the scores below may mean nothing.`));
  if (reading.notes.length) root.append(make("ul", { class: "notes", role: "note", "aria-label": "Notes" }, ...reading.notes.map((note) => make("li", {}, note))));
  root.append(make("div", { class: `reading${reading.is_chest ? "" : " unsure"}` }, calls(reading), views(reading)));
}

function fresh() {
  if (props.value?.findings) state.finding = called(props.value)[0].label;
  draw();
}

const stem = (reading) => reading.name.replace(/\.[^.]*$/, "").replace(/[^\w.-]+/g, "_") || "radiograph";

function saveJson(reading) {
  const { figures } = currentPoint();
  const findings = called(reading).map(({ label, score, probability, threshold, positive, call }) => ({
    label, score, probability, threshold, positive, call,
    sensitivity: figures?.[label]?.sensitivity ?? null, specificity: figures?.[label]?.specificity ?? null }));
  const { name, patient, is_chest, fit, notes } = reading;
  const threshold = currentPoint().any_threshold;
  const any_finding = reading.any_finding && { ...reading.any_finding, threshold, positive: reading.any_finding.score >= threshold };
  const answer = { image: name, patient, looks_like_a_chest_radiograph: is_chest, fit, notes, operating_point: state.point, any_finding, findings, model: props.model, notice: props.notice };
  save(`${stem(reading)}-findings.json`, new Blob([JSON.stringify(answer, null, 1)], { type: "application/json" }));
}

async function load(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

async function savePage(reading) {
  const [width, height, edge] = [1240, 1754, 80];  // A4 at 150 dots an inch
  const canvas = make("canvas", { width, height });
  const pen = canvas.getContext("2d");
  const accent = "#0b6b7d";
  const write = (text, x, y, size, colour = "#1b2a30", weight = 400, align = "left") => {
    pen.font = `${weight} ${size}px system-ui, sans-serif`;
    pen.fillStyle = colour;
    pen.textAlign = align;
    pen.fillText(text, x, y, width - edge - (align === "left" ? x : 0));
  };
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, width, height);
  write("Findings on a chest radiograph", edge, 110, 38, "#1b2a30", 600);
  write(`${reading.name} · ${patientLine(reading)}`, edge, 152, 22, "#51646c");
  write(props.notice, edge, 190, 22, accent, 600);
  const finding = reading.findings.find((each) => each.label === state.finding);
  const side = (width - 2 * edge - 40) / 2;
  const scale = Math.min(side / reading.width, side / reading.height);
  const [w, h] = [reading.width * scale, reading.height * scale];
  const film = await load(reading.image);
  for (const left of [edge, edge + side + 40]) {
    pen.fillStyle = "#000";
    pen.fillRect(left, 220, side, side);
    pen.drawImage(film, left + (side - w) / 2, 220 + (side - h) / 2, w, h);
  }
  if (finding.map) {
    pen.globalAlpha = state.opacity;
    pen.drawImage(await load(finding.map), edge + side + 40 + (side - w) / 2, 220 + (side - h) / 2, w, h);
    pen.globalAlpha = 1;
  }
  write(`Map of ${title(finding.label)}`, edge + side + 40, 220 + side + 32, 20, "#51646c");
  let y = 220 + side + (reading.is_chest ? 96 : 136);
  if (!reading.is_chest) write("This does not look like a chest radiograph.", edge, y - 54, 24, "#8a4b08", 600);
  write(`Operating point: ${currentPoint().title}`, edge, y, 24, "#1b2a30", 600);
  write("score", 780, y, 20, "#51646c", 400, "right");
  write("threshold", 900, y, 20, "#51646c", 400, "right");
  write("probability", 1030, y, 20, "#51646c", 400, "right");
  for (const each of called(reading)) {
    y += 46;
    write(title(each.label), edge, y, 24, "#1b2a30", each.positive ? 600 : 400);
    pen.fillStyle = "#e6ecee";
    pen.fillRect(360, y - 17, 320, 18);
    pen.fillStyle = each.positive ? accent : "#a9b8be";
    pen.fillRect(360, y - 17, 320 * each.score, 18);
    pen.fillStyle = "#1b2a30";
    pen.fillRect(360 + 320 * each.threshold - 1, y - 22, 3, 28);
    write(each.score.toFixed(2), 780, y, 22, "#1b2a30", 400, "right");
    write(each.threshold.toFixed(2), 900, y, 22, "#51646c", 400, "right");
    write(percent(each.probability), 1030, y, 22, "#1b2a30", 400, "right");
    if (each.positive) write("positive", width - edge, y, 22, accent, 600, "right");
  }
  write(`${props.model} · the probability is calibrated, the score is not one · ${new Date().toISOString().slice(0, 10)}`, edge, height - 60, 18, "#51646c");
  canvas.toBlob((page) => save(`${stem(reading)}-findings.png`, page), "image/png");
}

watch("value", fresh);
fresh();
