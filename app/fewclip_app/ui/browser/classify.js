// Photos to classify: chosen, dropped or pasted; and the camera, answered for as long as it runs.

const FRAME_SIDE = 320; // pixels of the longer side of a frame: more than any backbone looks at
const PATIENCE_MS = 5000; // until the next frame is sent although nothing was answered

const status = () => element.querySelector(".fc-status");
const report = (text) => { status().textContent = text; };
const send = (_, files) =>
  sendFiles([...files], report, (sent, failed) => trigger("upload", { sent, failed }));
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

let running = false, number = 0;

async function live(button) {
  const panel = element.querySelector(".fc-live"), video = panel.querySelector("video");
  running = !running;
  if (!running) return;
  panel.classList.add("on");
  try {
    await startCamera(video);
    button.textContent = "Stop the webcam";
    while (running && element.isConnected) await answered(video);
  } catch (error) {
    report(error.message);
  }
  running = false;
  stopCamera(video);
  panel.classList.remove("on");
  button.textContent = "Use the webcam";
  trigger("stop", {});
}

// Send one frame, and wait for its answer: a slow server gets fewer frames, never a queue of them.
async function answered(video) {
  number += 1;
  trigger("live", { number, frame: frameOf(video, FRAME_SIDE).toDataURL("image/jpeg", 0.85) });
  const ends = Date.now() + PATIENCE_MS;
  while (running && Date.now() < ends && !document.querySelector(`[data-frame="${number}"]`))
    await pause(40);
  await pause(150);
}

const acts = {
  choose: () => element.querySelector("input[type=file]").click(),
  camera: live,
  clear: () => trigger("clear", {}),
};
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-act]");
  if (button) acts[button.dataset.act](button);
});
element.addEventListener("change", (event) => {
  if (event.target.type !== "file") return;
  send(null, [...event.target.files]);
  event.target.value = "";
});
takeDropped(".fc-ask", send);
