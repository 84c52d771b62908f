// The examples: a button each; a click asks the server to read it.
const draw = () => {
  element.querySelector(".gallery-root").replaceChildren(...props.value.map((example, index) => {
    const button = document.createElement("button");
    const picture = document.createElement("img");
    const name = document.createElement("span");
    Object.assign(button, { type: "button", className: "example", ariaLabel: `Read the example: ${example.title}, synthetic` });
    Object.assign(picture, { src: example.thumbnail, alt: "" });
    name.textContent = example.title;
    button.append(picture, name);
    button.addEventListener("click", () => trigger("select", { example: index }));
    return button;
  }));
};
draw();
