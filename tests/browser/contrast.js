// Texts whose contrast with what lies behind them is below 4.5 : 1 (WCAG 2.2, success criterion 1.4.3).
() => {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const paint = (colours) => {
    context.clearRect(0, 0, 1, 1);
    for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const luminance = (rgb) => rgb.map((value) => linear(value / 255))
    .reduce((sum, c, channel) => sum + c * [0.2126, 0.7152, 0.0722][channel], 0);
  const behind = (element) =>
    element ? [...behind(element.parentElement), getComputedStyle(element).backgroundColor] : [];
  const low = [];
  for (const element of document.querySelectorAll("body *")) {
    const ownText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!ownText || !element.checkVisibility() || element.ariaDisabled === "true") continue;
    const ground = behind(element), text = [...ground, getComputedStyle(element).color];
    const [dark, light] = [ground, text].map(paint).map(luminance).sort((a, b) => a - b);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < 4.5) low.push(`${element.tagName}.${element.className} ${element.textContent}: ${ratio.toFixed(2)}`);
  }
  return low;
}
