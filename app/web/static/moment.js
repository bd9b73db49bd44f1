// When and where in a video or folder of frames a picture was taken.

/** The moment of a picture in footage: its time if known, else seconds as m:ss, else the number of its frame. */
export function momentOf({ time, seconds, frame }) {
  const column = [["time", time], ["seconds", seconds], ["frame", frame]].find(([, value]) => value != null);
  return column ? moment(...column) : "";
}

/** From when to when a track lasts. */
export function spanOf({ column, first, last }) {
  const [from, to] = [moment(column, first), moment(column, last)];
  if (from === to) return from;
  const sameDay = column === "time" && from.slice(0, 10) === to.slice(0, 10);
  return `${from}–${sameDay ? to.slice(11) : to}`;
}

function moment(column, value) {
  if (column === "time") return String(value).replace("T", " ").replace(/\.\d+/, "");
  if (column === "seconds") return clock(value);
  return `frame ${value}`;
}

/** Seconds as m:ss or h:mm:ss. */
function clock(seconds) {
  const whole = Math.floor(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const two = (value) => String(value).padStart(2, "0");
  return `${hours ? `${hours}:${two(minutes)}` : minutes}:${two(whole % 60)}`;
}
