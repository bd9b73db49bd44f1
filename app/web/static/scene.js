// The frame that a person was found in, with a box around the person.

import { request } from "./api.js";
import { byId, element } from "./dom.js";
import { momentOf } from "./moment.js";

/** Shows the frame of a result, or why it cannot be shown; nothing for a gallery without footage. */
export function showScene(gallery, hit) {
  const scene = byId("scene");
  scene.hidden = !gallery.footage;
  if (!gallery.footage) return;
  const address = `/api/frames/${hit.row}?v=${gallery.version}`;
  const { file } = hit.metadata;
  const image = element("img", { alt: `The frame with a box around the person: ${file}, ${momentOf(hit.metadata)}`, loading: "lazy" });
  image.addEventListener("error", async () => {
    const reason = await request(address).then(() => "The frame cannot be shown.", (error) => error.message);
    if (image.isConnected) image.replaceWith(element("p", { class: "error" }, reason));
  });
  image.src = address;
  scene.replaceChildren(element("figcaption", {}, "In the frame"), image);
}
