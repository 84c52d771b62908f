// What both the reader and the batch table are drawn with. `element`, `props` and `watch` come from gr.HTML.
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") node.style.cssText = value;  // as an attribute, a Content-Security-Policy would refuse it
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const title = (label) => label.replaceAll("_", " ");
const currentPoint = () => props.points.find((point) => point.name === state.point);

function choosePoint(name) {
  const change = (point) => {
    state.point = point;
    draw();
    root.querySelector(`input[value="${point}"]`).focus();
  };
  const choices = props.points.map((point) => make("label", { title: point.hint },
    make("input", { type: "radio", name, value: point.name, checked: point.name === state.point, onchange: () => change(point.name) }),
    make("span", {}, point.title)));
  return make("fieldset", { class: "points" }, make("legend", {}, "Operating point"), ...choices);
}

function save(name, blob) {
  const url = URL.createObjectURL(blob);
  const link = make("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
