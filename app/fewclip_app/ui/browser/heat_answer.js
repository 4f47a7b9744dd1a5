// A heat map that has arrived goes to the box that asked for it.

watch("value", () => {
  for (const answer of element.querySelectorAll("[data-for]")) {
    const heat = document.querySelector(`[data-heat="${CSS.escape(answer.dataset.for)}"]`);
    if (heat) heat.innerHTML = answer.innerHTML;
  }
});
