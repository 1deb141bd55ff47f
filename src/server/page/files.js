// Files: what the page uploads, and what it saves on the reader's disk.
import { ApiError, UNREACHABLE, getKey } from "./api.js";
import { createElement } from "./drawing.js";

// Uploads a form with a file. `progress` hears of the part that is sent, from 0 to 1.
export function upload(path, form, progress) {
  return new Promise((resolve, reject) => {
    const sent = new XMLHttpRequest();
    sent.open("POST", path);
    if (getKey()) sent.setRequestHeader("Authorization", `Bearer ${getKey()}`);
    sent.responseType = "json";
    sent.upload.addEventListener("progress", ({ loaded, total }) => progress(loaded / total));
    sent.addEventListener("load", () => {
      if (sent.status === 200) resolve(sent.response);
      else reject(new ApiError(sent.status, sent.response?.error));
    });
    sent.addEventListener("error", () => reject(new Error(UNREACHABLE)));
    sent.send(form);
  });
}

// Saves a text as a file of the reader's.
export function download(name, text) {
  const link = createElement("a", "", "", { download: name });
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.click();
  URL.revokeObjectURL(link.href);
}
