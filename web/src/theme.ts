// Dark and light: as the system says, or as the person has chosen; and the colours of it for what is drawn on a canvas.

export type Theme = "system" | "light" | "dark";

const ORDER: Theme[] = ["system", "light", "dark"];
const listeners = new Set<() => void>();
const dark = matchMedia("(prefers-color-scheme: dark)");
const resolved = new Map<string, string>();

export function theme(): Theme {
  const kept = localStorage.getItem("theme");
  return ORDER.find((one) => one === kept) ?? "system";
}

export function setTheme(chosen: Theme): void {
  localStorage.setItem("theme", chosen);
  apply();
}

export function nextTheme(): Theme {
  const chosen = ORDER[(ORDER.indexOf(theme()) + 1) % ORDER.length]!;
  setTheme(chosen);
  return chosen;
}

/** A token of style/tokens.css as "rgb(...)": `colour("series-1")`. It differs after the theme has changed. */
export function colour(token: string): string {
  let value = resolved.get(token);
  if (value === undefined) {
    const probe = document.createElement("span");
    probe.style.color = `var(--${token})`;
    probe.hidden = true;
    document.body.append(probe);
    value = getComputedStyle(probe).color;
    probe.remove();
    resolved.set(token, value);
  }
  return value;
}

/** Call `listener` whenever colours have changed, to draw anew. */
export function onTheme(listener: () => void): void {
  listeners.add(listener);
}

/** Whether things may move. */
export function still(): boolean {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

export function apply(): void {
  const chosen = theme();
  if (chosen === "system") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.dataset["theme"] = chosen;
  resolved.clear();
  for (const listener of listeners) listener();
}

dark.addEventListener("change", apply);
