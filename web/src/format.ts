// Numbers and times as people read them. Spaces between thousands do not break and are not taken for a point or comma.

const THIN = "\u202f";

/** A count: "1 234 567". */
export function count(value: number): string {
  return Math.round(value)
    .toString()
    .replace(/\B(?=(\d{3})+(?!\d))/g, THIN);
}

/** A measured number with four digits: "0.02134", "1.2e-7"; "not finite" where it is null. */
export function figure(value: number | null | undefined): string {
  if (value === null || value === undefined) return "not finite";
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return value < 0 ? `−${count(-value)}` : count(value);
  const size = Math.abs(value);
  const text = size >= 1e-4 && size < 1e6 ? Number(value.toPrecision(4)).toString() : value.toExponential(2);
  return text.replace("-", "−").replace("e−", "e-").replace("e+", "e");
}

/** A value of a setting, as exactly as it is. */
export function exact(value: unknown): string {
  if (value === null || value === undefined) return "none";
  if (typeof value === "boolean") return value ? "on" : "off";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** A length of time: "4.2 s", "3:07 min", "2:05 h", "3 d 4 h". */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "unknown";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const [minutes, hours, days] = [Math.floor(whole / 60), Math.floor(whole / 3600), Math.floor(whole / 86400)];
  if (whole < 60) return `${whole} s`;
  if (hours < 1) return `${minutes}:${two(whole % 60)} min`;
  if (days < 2) return `${hours}:${two(minutes % 60)} h`;
  return `${days} d ${hours % 24} h`;
}

/** Memory or a file's size: "36 MB". */
export function bytes(value: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : Number(value.toPrecision(2))} ${units[unit]}`;
}

/** A clock time of today, or the date with it. Takes seconds since 1970. */
export function clock(seconds: number): string {
  const time = new Date(seconds * 1000);
  const today = new Date().toDateString() === time.toDateString();
  const text = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  return today ? text : `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ${text}`;
}

/** Steps per second, or seconds per step where those are slow. */
export function rate(perSecond: number): string {
  if (perSecond <= 0) return "–";
  return perSecond >= 1 ? `${figure(Number(perSecond.toPrecision(3)))} steps/s` : `${(1 / perSecond).toPrecision(2)} s/step`;
}

function two(value: number): string {
  return String(value).padStart(2, "0");
}
