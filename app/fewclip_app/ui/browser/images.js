// Shared by what takes images: sending files, dropping and pasting them, and the camera.
// Runs inside a Gradio HTML component, which gives `element`, `trigger`, `upload` and `watch`.

const AT_ONCE = 8; // files sent in one go, so that the first are shown while others travel
const FRAME_MS = 150; // between two photos of a burst
const LONGEST_BURST = 100;

async function sendFiles(files, report, deliver) {
  for (let start = 0; start < files.length; start += AT_ONCE) {
    const group = [...files].slice(start, start + AT_ONCE);
    const last = Math.min(start + AT_ONCE, files.length);
    report(`Sending image ${start + 1} to ${last} of ${files.length} ...`);
    const results = await Promise.allSettled(group.map((file) => upload(file)));
    const sent = [], failed = [];
    results.forEach((result, i) => {
      const name = group[i].name || "pasted image";
      if (result.status === "fulfilled") sent.push({ path: result.value.path, name });
      else failed.push(name);
    });
    deliver(sent, failed);
  }
  report("");
}

// Files that were dropped or pasted anywhere inside `selector`.
function takeDropped(selector, take) {
  const place = (event) => event.target.closest?.(selector);
  const mark = (event, on) => place(event)?.classList.toggle("fc-over", on);
  element.addEventListener("dragover", (event) => {
    if (place(event)) { event.preventDefault(); mark(event, true); }
  });
  element.addEventListener("dragleave", (event) => mark(event, false));
  element.addEventListener("drop", (event) => {
    if (!place(event)) return;
    event.preventDefault();
    mark(event, false);
    take(place(event), event.dataTransfer.files);
  });
  element.addEventListener("paste", (event) => {
    if (place(event) && event.clipboardData.files.length) {
      event.preventDefault();
      take(place(event), event.clipboardData.files);
    }
  });
}

async function startCamera(video) {
  if (!navigator.mediaDevices)
    throw new Error("Browsers lend the camera only to pages opened over https or on this machine.");
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: 640 } });
  } catch (error) {
    throw new Error(`The camera could not be opened (${error.name}). Allow it for this page in ` +
      "your browser, and close other programs that use it.");
  }
  await video.play();
}

function stopCamera(video) {
  video.srcObject?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
}

// What the camera sees, its longer side at most `side` pixels, as a canvas.
function frameOf(video, side) {
  const scale = Math.min(1, side / Math.max(video.videoWidth, video.videoHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(video.videoWidth * scale);
  canvas.height = Math.round(video.videoHeight * scale);
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return canvas;
}

// A dialog that photographs for as long as its button is held; `take` gets the files of a burst.
function openBurst(title, take) {
  const dialog = document.createElement("dialog");
  dialog.className = "fc-camera";
  dialog.setAttribute("aria-label", title);
  dialog.innerHTML = `<video muted playsinline aria-label="What the camera sees"></video>
    <p role="status">Opening the camera ...</p><div>
    <button type="button" class="fc-primary" disabled>Hold to record</button>
    <button type="button" class="fc-button">Done</button></div>`;
  const [record, done] = dialog.querySelectorAll("button");
  const video = dialog.querySelector("video"), told = dialog.querySelector("p");
  let timer = null, frames = [], total = 0;
  const grab = () => {
    if (frames.length >= LONGEST_BURST) return end();
    frames.push(new Promise((resolve) => frameOf(video, 640).toBlob(resolve, "image/jpeg", 0.92)));
    told.textContent = `${total + frames.length} photos`;
  };
  const begin = () => {
    if (timer !== null || record.disabled) return;
    record.classList.add("on");
    timer = setInterval(grab, FRAME_MS);
    grab();
  };
  const end = async () => {
    if (timer === null) return;
    clearInterval(timer);
    timer = null;
    record.classList.remove("on");
    const blobs = await Promise.all(frames.splice(0));
    take(blobs.map((blob, i) => new File([blob], `webcam-${Date.now()}-${i + 1}.jpg`,
      { type: "image/jpeg" })));
    total += blobs.length;
  };
  const isKey = (event) => event.key === " " || event.key === "Enter";
  record.addEventListener("pointerdown", begin);
  for (const name of ["pointerup", "pointercancel", "pointerleave", "blur"])
    record.addEventListener(name, end);
  record.addEventListener("keydown", (event) => {
    if (isKey(event)) { event.preventDefault(); begin(); }
  });
  record.addEventListener("keyup", (event) => isKey(event) && end());
  done.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => { end(); stopCamera(video); dialog.remove(); });
  document.body.append(dialog);
  dialog.showModal();
  startCamera(video).then(() => {
    told.textContent = "Hold the button and turn the thing a little: one photo every moment.";
    record.disabled = false;
    record.focus();
  }, (error) => { told.textContent = error.message; });
}
