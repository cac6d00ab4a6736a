// Numbers as people read them: no more digits than say something, and none that are not true.

/** Up to `digits` significant ones, without zeros at the end: 0.0312, 12.5, 1.2e-7. */
export function short(value: number | null | undefined, digits = 4): string {
  if (value === null || value === undefined) return "–";
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "Inf" : "-Inf";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e7) return String(value);
  if (value !== 0 && (size >= 1e7 || size < 1e-4)) return value.toExponential(digits - 1).replace(/\.?0+e\+?/, "e");
  return String(Number(value.toPrecision(size >= 10 ** digits ? Math.ceil(Math.log10(size)) : digits)));
}

/** A duration: 4.2 s, 3:05, 2:10:00. */
export function duration(seconds: number): string {
  if (seconds < 60) return `${short(seconds, 3)} s`;
  const all = Math.round(seconds);
  const two = (value: number) => String(value).padStart(2, "0");
  const [h, m, s] = [Math.floor(all / 3600), Math.floor(all / 60) % 60, all % 60];
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** A number of an axis whose numbers are `by` apart: as many digits as tell it from the next. 0: they are not even. */
export function tick(value: number | null, by: number): string {
  if (value === null) return "";
  if (!(by > 0)) return short(value);
  const size = Math.abs(value);
  if (size >= 1e5 || (size > 0 && size < 1e-3)) {
    const unit = 10 ** Math.floor(Math.log10(size));
    return value.toExponential(decimals(by / unit)).replace(/(\.\d*?)0+e/, "$1e").replace(/\.?e\+?/, "e");
  }
  return value.toFixed(decimals(by));
}

/** The digits after the point that multiples of `by` have, at most twelve. */
function decimals(by: number): number {
  let digits = 0;
  while (digits < 12 && Math.abs(by * 10 ** digits - Math.round(by * 10 ** digits)) > 1e-6 * by * 10 ** digits) digits++;
  return digits;
}
