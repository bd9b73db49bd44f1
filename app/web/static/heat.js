// A heat map on a canvas: transparent where nothing mattered, violet to red to yellow the more it did.

const STOPS = [[0.2, 60, 20, 110], [0.5, 190, 45, 90], [0.75, 240, 110, 40], [1, 255, 225, 90]];
const THIRDS = ["upper", "middle", "lower"];

/** Draws `heat` (width, height, and bytes in base64), and returns a sentence part that says where most of it is. */
export function drawHeat(canvas, { width, height, values }) {
  const bytes = Uint8Array.from(atob(values), (character) => character.charCodeAt(0));
  const image = new ImageData(width, height);
  bytes.forEach((value, pixel) => image.data.set(colour(value / 255), 4 * pixel));
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext("2d").putImageData(image, 0, 0);
  return describe(bytes, width, height);
}

function colour(heat) {
  const above = Math.max(1, STOPS.findIndex(([stop]) => heat <= stop));
  const [from, to] = [STOPS[above - 1], STOPS[above]];
  const share = Math.max(0, (heat - from[0]) / (to[0] - from[0]));
  const [red, green, blue] = [1, 2, 3].map((channel) => from[channel] + share * (to[channel] - from[channel]));
  return [red, green, blue, 255 * Math.min(0.75, 0.9 * heat)];
}

function describe(bytes, width, height) {
  const sums = [0, 0, 0];
  bytes.forEach((value, pixel) => { sums[Math.floor((3 * Math.floor(pixel / width)) / height)] += value; });
  const total = sums[0] + sums[1] + sums[2];
  const most = sums.indexOf(Math.max(...sums));
  return total ? `the ${THIRDS[most]} third holds ${Math.round((100 * sums[most]) / total)}% of the heat` : "nothing stands out";
}
