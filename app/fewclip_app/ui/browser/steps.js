// One step at a time: the address names it, so that back, forward and reload work.

const links = [...element.querySelectorAll("a")];

function show() {
  const current = links.find((link) => link.hash === location.hash) || links[0];
  document.documentElement.dataset.step = current.hash.slice("#step-".length);
  for (const link of links)
    if (link === current) link.setAttribute("aria-current", "step");
    else link.removeAttribute("aria-current");
}

addEventListener("hashchange", () => {
  show();
  scrollTo(0, 0);
  document.querySelector(`${location.hash || links[0].hash} h2`)?.focus({ preventScroll: true });
});
show();
