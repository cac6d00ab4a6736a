// Elements made by hand: text is only ever text, so that no run's name, note or metric can be markup.

export type Child = Node | string | number | null | undefined | false;

interface Properties {
  /** Attributes; false and null leave one out, true writes it empty. */
  [attribute: string]: string | number | boolean | null | undefined | ((event: never) => void);
}

/** An element. Properties are attributes; those that begin with "on" are listeners: `onclick`. */
export function h<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  properties: Properties = {},
  ...children: Child[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  assign(element, properties);
  element.append(...present(children));
  return element;
}

/** Put `children` where an element had others. */
export function fill(element: Element, ...children: Child[]): void {
  element.replaceChildren(...present(children));
}

/** Set an element's text where it is another one: cheap, and a reader of the screen is not told twice. */
export function write(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Show or hide an element. */
export function show(element: HTMLElement, shown: boolean): void {
  if (element.hidden === shown) element.hidden = !shown;
}

/** An icon: a path in a square of 16, drawn with the text's colour. Hidden from readers: give its button a name. */
export function icon(path: string, filled = false): SVGSVGElement {
  const svg = shape("svg", { viewBox: "0 0 16 16", "aria-hidden": "true", class: filled ? "icon filled" : "icon" });
  svg.append(shape("path", { d: path }));
  return svg;
}

/** An element of an SVG. */
export function shape<Tag extends keyof SVGElementTagNameMap>(
  tag: Tag,
  properties: Properties = {},
  ...children: Child[]
): SVGElementTagNameMap[Tag] {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  assign(element, properties);
  element.append(...present(children));
  return element;
}

function assign(element: Element, properties: Properties): void {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value as EventListener);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
}

function present(children: Child[]): (Node | string)[] {
  return children
    .filter((child): child is Node | string | number => child !== null && child !== undefined && child !== false)
    .map((child) => (typeof child === "number" ? String(child) : child));
}
