// Boxes that hold a heat map: one that opens asks for it, once. The answer comes to heat_answer.js.

element.addEventListener("toggle", (event) => {
  const heat = event.target.querySelector?.("[data-heat]");
  if (event.newState !== "open" || !heat || heat.dataset.asked) return;
  heat.dataset.asked = "yes";
  trigger("why", { key: heat.dataset.heat });
}, true); // a toggle does not bubble
