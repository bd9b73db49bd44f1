// Pictures that the user chooses or drops, to search with.

import { byId } from "./dom.js";

const PREVIEW_HEIGHT = 384;

/** Calls `choose` with each file that is chosen or dropped. */
export function onPicture(choose) {
  byId("choose").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", (event) => {
    choose(event.target.files[0]);
    event.target.value = ""; // so that the same file can be chosen again
  });
  addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
  addEventListener("drop", (event) => {
    document.body.classList.remove("dropping");
    if (!carriesFiles(event)) return;
    event.preventDefault();
    choose(event.dataTransfer.files[0]);
  });
}

const carriesFiles = (event) => event.dataTransfer.types.includes("Files");

/** Draws a small preview, on a canvas, so that the security policy need not allow blob addresses. */
export async function preview(picture, signal) {
  const bitmap = await createImageBitmap(picture).catch(() => null); // the server will say what is wrong with it
  if (!bitmap || signal.aborted) return;
  const canvas = byId("uploaded");
  canvas.height = Math.min(PREVIEW_HEIGHT, bitmap.height);
  canvas.width = Math.max(1, Math.round((bitmap.width * canvas.height) / bitmap.height));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  canvas.hidden = false;
}
