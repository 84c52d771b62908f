// Tabs by click and by arrow keys (WAI-ARIA, tabs with automatic activation).

/**
 * Make tabs of the page work.
 *
 * @param onOpen {id of a panel: called when it is first opened}.
 */
export function startTabs(onOpen) {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const opened = new Set();
  const open = (tab) => {
    for (const each of tabs) {
      const isOpen = each === tab;
      each.setAttribute("aria-selected", String(isOpen));
      each.tabIndex = isOpen ? 0 : -1;
      document.getElementById(each.getAttribute("aria-controls")).hidden = !isOpen;
    }
    const panel = tab.getAttribute("aria-controls");
    if (!opened.has(panel)) onOpen[panel]?.();
    opened.add(panel);
  };
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => open(tab));
    tab.addEventListener("keydown", ({ key }) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
      if (step === undefined) return;
      const next = tabs[(index + step + tabs.length) % tabs.length];
      next.focus();
      open(next);
    });
  });
  open(tabs[0]);
}
