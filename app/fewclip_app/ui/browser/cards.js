// The classes of step 1: names are typed, images chosen, dropped, pasted or taken by the camera.
// What is shown comes from the server; here are only the hands.

const cardOf = (target) => target.closest(".fc-card");

function send(card, files) {
  const key = card.dataset.key;
  const report = (text) => {
    const status = element.querySelector(`[data-key="${key}"] .fc-status`);
    if (status) status.textContent = text;
  };
  sendFiles(files, report, (sent, failed) => trigger("upload", { key, sent, failed, ...named(key) }));
}

// Names as typed, by key, until the server shows them: an older state may arrive in between.
const typed = new Map();

function named(key) {
  const input = element.querySelector(`[data-key="${key}"] .fc-name`);
  return { name: typed.get(key) ?? (input ? input.value : "") };
}

const acts = {
  choose: (card) => card.querySelector("input[type=file]").click(),
  camera: (card) => openBurst(`Photos for ${named(card.dataset.key).name || "this class"}`,
    (files) => send(card, files)),
  remove: (card) => trigger("remove", { key: card.dataset.key }),
  delete: (card, button) =>
    trigger("delete", { key: card.dataset.key, thumb: button.dataset.thumb }),
  move: (card, { dataset }) =>
    trigger("move", { key: card.dataset.key, thumb: dataset.thumb, to: dataset.to }),
  keep: (card, button) => trigger("keep", { finding: button.dataset.thumb }),
  add: () => trigger("new_class", {}),
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-act]");
  if (button) acts[button.dataset.act](cardOf(button), button);
});
element.addEventListener("change", (event) => {
  if (event.target.type !== "file") return;
  send(cardOf(event.target), [...event.target.files]);
  event.target.value = "";
});
takeDropped(".fc-card", send);

const waiting = new Map();
element.addEventListener("input", (event) => {
  if (!event.target.matches(".fc-name")) return;
  const key = cardOf(event.target).dataset.key;
  typed.set(key, event.target.value);
  clearTimeout(waiting.get(key));
  waiting.set(key, setTimeout(() => trigger("rename", { key, ...named(key) }), 250));
});

// A name is written where nobody is typing; a card that got another class's place always gets it.
function showNames() {
  for (const input of element.querySelectorAll(".fc-name")) {
    const key = cardOf(input).dataset.key;
    const shown = input.dataset.name;
    if (typed.get(key)?.trim() === shown) typed.delete(key);
    if (document.activeElement !== input || input.shownFor !== key)
      input.value = typed.get(key) ?? shown;
    input.shownFor = key;
  }
}
watch("value", showNames);
showNames();
