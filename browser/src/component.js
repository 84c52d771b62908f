// The demo's scripts as components of this page.

/**
 * Start a script of the demo in an element.
 *
 * @param mount the script, as build.js makes a function of it.
 * @param element holds what the script looks for.
 * @param props what gradio would give it.
 * @param onTrigger called with a name and data when the script triggers an event.
 * @returns {function} sets the value that it draws.
 */
export function component(mount, element, props, onTrigger = () => {}) {
  const watchers = [];
  const all = { value: null, ...props };
  mount(element, all, (_, redraw) => watchers.push(redraw), onTrigger);
  return (value) => {
    all.value = value;
    for (const redraw of watchers) redraw();
  };
}
