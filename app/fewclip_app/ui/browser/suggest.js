// A suggested photo goes to the class that is chosen beside it.

element.addEventListener("change", ({ target }) => {
  if (!target.matches("select[data-number]") || !target.value) return;
  target.disabled = true; // it goes once
  trigger("label_as", { number: Number(target.dataset.number), to: target.value });
});
