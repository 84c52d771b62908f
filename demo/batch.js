// Draws the table of many readings: sorted by a click on a column, called at the chosen operating point, saved as CSV.
// Text is always set as text, never as HTML: visitors choose file names.
const root = element.querySelector(".batch-root");
const state = { point: props.default_point, column: null, descending: true };

const positives = (row) => props.findings.filter((label) => row.scores && row.scores[label] >= currentPoint().thresholds[label]);

const keys = {
  File: (row) => row.name.toLowerCase(),
  Positive: (row) => (row.scores ? positives(row).length : -1),
  "Any finding": (row) => row.any_finding?.score ?? -1,
};
const key = (column) => keys[column] ?? ((row) => (row.scores ? row.scores[column] : -1));

function sorted(rows) {
  if (state.column === null) return rows;
  const value = key(state.column);
  const order = (a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0);
  return [...rows].sort((a, b) => (state.descending ? -order(a, b) : order(a, b)));
}

function sortBy(column) {
  state.descending = state.column === column ? !state.descending : column !== "File";
  state.column = column;
  draw();
  root.querySelector(`th[data-column="${column}"] button`).focus();
}

function header(column) {
  const direction = state.column !== column ? "none" : state.descending ? "descending" : "ascending";
  return make("th", { scope: "col", "data-column": column, "aria-sort": direction },
    make("button", { type: "button", onclick: () => sortBy(column) }, title(column)));
}

function tableRow(row) {
  const name = make("th", { scope: "row", title: row.name }, row.name);
  if (row.error) return make("tr", { class: "failed" }, name, make("td", { colspan: props.findings.length + 2 }, row.error));
  const found = positives(row);
  const calls = row.is_chest ? found.map(title).join(", ") || "none" : "does not look like a chest radiograph";
  const any = row.any_finding?.probability;
  const summary = [calls, ...row.notes].join(". ");
  return make("tr", { class: row.is_chest ? "" : "unsure" }, name, make("td", { class: "summary" }, summary),
    make("td", { class: "number" }, any === undefined || any === null ? "" : `${(100 * any).toFixed(0)} %`),
    ...props.findings.map((label) => make("td", { class: found.includes(label) ? "number positive" : "number" }, row.scores[label].toFixed(2))));
}

// A spreadsheet runs text that starts like a formula, in a full-width sign too, at the start of a cell or behind what may
// separate cells elsewhere in the world: an apostrophe before it keeps it text.
const FORMULA = /(^|[;,|\t\r\n])(?=\s*[=+\-@\uff1d\uff0b\uff0d\uff20])/g;
const quoted = (text) => `"${String(text ?? "").replace(FORMULA, "$1'").replaceAll('"', '""')}"`;

function csv(rows) {
  const head = ["image", "positive", "looks_like_a_chest_radiograph", "fit", "error", "notes", "any_finding", ...props.findings];
  const lines = rows.map((row) => [
    quoted(row.name), quoted(positives(row).join("|")), row.scores ? row.is_chest : "", row.fit ?? "", quoted(row.error), quoted((row.notes ?? []).join(" ")), row.any_finding?.score ?? "",
    ...props.findings.map((label) => row.scores?.[label] ?? "")]);
  return [head.map(quoted), ...lines].map((line) => line.join(",")).join("\r\n") + "\r\n";
}

function draw() {
  const batch = props.value;
  root.replaceChildren();
  if (!batch) return;
  if (batch.error) return void root.append(make("p", { class: "refused", role: "alert" }, batch.error));
  const { rows, total } = batch;
  const failed = rows.filter((row) => row.error).length;
  const done = rows.length === total;
  const status = done ? `${total} files read${failed ? `, ${failed} of them could not be used` : ""}` : `Reading ${rows.length + 1} of ${total}`;
  root.append(
    make("div", { class: "batch-head" },
      choosePoint("batch-operating-point"),
      make("p", { role: "status" }, status),
      done ? make("button", { type: "button", class: "save", onclick: () => save(`findings-${state.point}.csv`, new Blob([csv(rows)], { type: "text/csv" })) }, "Download CSV") : make("progress", { max: total, value: rows.length, "aria-label": "Files read" })),
    make("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Findings of every file" },
      make("table", {}, make("thead", {}, make("tr", {}, ...["File", "Positive", "Any finding", ...props.findings].map(header))),
        make("tbody", {}, ...sorted(rows).map(tableRow)))));
}

watch("value", draw);
draw();
