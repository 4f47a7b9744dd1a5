// Sends the forms of the page and shows what comes back.
for (const form of document.querySelectorAll("form.try")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const answer = form.querySelector(".answer");
    answer.hidden = false;
    answer.textContent = "...";
    const sent = new FormData();
    for (const input of form.querySelectorAll("input")) {
      if (input.type === "file") for (const file of input.files) sent.append(input.name, file);
      else if (input.value) sent.append(input.name, input.value);
    }
    const token = document.querySelector("#token")?.value;
    const options = { method: form.dataset.method, headers: {} };
    if (token) options.headers.Authorization = `Bearer ${token}`;
    let path = form.dataset.path;
    if (options.method === "POST") options.body = sent;
    else if ([...sent].length) path += `?${new URLSearchParams(sent)}`;
    try {
      const response = await fetch(path, options);
      const text = await response.text();
      let shown = text;
      try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* not JSON */ }
      answer.textContent = `${response.status}\n${shown}`;
    } catch (error) {
      answer.textContent = String(error);
    }
  });
}
