// The frame that a person was found in, with a box around the person.

import { request } from "./api.js";
import { byId, element } from "./dom.js";
import { momentOf } from "./moment.js";

/** Shows the frame of a result, or why it cannot be shown; nothing for a picture that is of no frame. */
export function showScene(gallery, hit) {
  const scene = byId("scene");
  const file = gallery.footage && hit.metadata?.file;
  scene.hidden = !file;
  scene.replaceChildren();
  if (!file) return;
  const address = `/api/frames/${hit.row}?v=${gallery.version}`;
  const image = element("img", { alt: `The frame with a box around the person: ${file}, ${momentOf(hit.metadata)}`, loading: "lazy" });
  image.addEventListener("error", async () => {
    const reason = await request(address).then(() => "The frame cannot be shown.", (error) => error.message);
    if (image.isConnected) image.replaceWith(element("p", { class: "error" }, reason));
  });
  image.src = address;
  scene.replaceChildren(element("figcaption", {}, "In the frame"), image);
}
