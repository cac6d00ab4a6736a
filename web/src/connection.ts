// The WebSocket to the studio: hello and welcome, requests with their answers, frames, and what happens after a cut.
//
// A request keeps its number until it is answered and is sent again after a cut; the studio obeys each number once.
// Numbers rise over reloads of the tab, because they begin at the clock.

import { VERSION } from "./protocol.js";
import type { Binary, Drawn, Frame, FromStudio, Hello, Picture, Requests, Series, Shapes } from "./protocol.js";
import type { Store } from "./store.js";

/** A request without its number, which the connection gives it. */
export type Ask = Requests extends infer One ? (One extends { id: number } ? Omit<One, "id"> : never) : never;

/** A binary message: its header and the bytes after it, of which those of a `Series` are aligned to 8. */
export interface Packet<Header extends Binary = Binary> {
  header: Header;
  bytes: Uint8Array<ArrayBuffer>;
}

/** A request that the studio did not carry out; its message is one line for people. */
export class Refused extends Error {}

interface Waiting {
  text: string;
  resolve: (value: unknown) => void;
  reject: (error: Refused) => void;
}

const FIRST_PAUSE = 250;
const LONGEST_PAUSE = 5000;
/** Closed by the studio with one of these, it makes no sense to come again: no login, another version. */
const FOR_GOOD = new Set([1008, 4000]);
/** A copy of this tab, made by the browser with the same name, has taken its place: it goes on under another name. */
const REPLACED = 4001;
/** Where nothing was heard for so many milliseconds, the link may be dead without either end knowing. */
const SILENCE = 15000;
const PROBE = 6000;

export class Connection {
  private socket: WebSocket | null = null;
  private welcomed = false;
  private pause = FIRST_PAUSE;
  private next = Date.now() * 1000;
  private seen = 0;
  private timer = 0;
  private heard = 0;
  /** When a sign of life was asked for. */
  private asked = 0;
  private readonly waiting = new Map<number, Waiting>();
  private readonly frames = new Map<number, (packet: Packet<Frame>) => void>();

  constructor(
    private readonly store: Store,
    private readonly address: string,
  ) {
    window.setInterval(() => this.probe(), 2000);
  }

  /** Connect, and keep connecting. */
  open(): void {
    const socket = new WebSocket(this.address);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => {
      const hello: Hello = { type: "hello", version: VERSION, client: client(), seen: this.seen, label: label() };
      socket.send(JSON.stringify(hello));
    };
    socket.onmessage = (event: MessageEvent<string | ArrayBuffer>) => {
      if (this.socket !== socket) return;
      this.heard = Date.now();
      if (typeof event.data === "string") this.hear(JSON.parse(event.data) as FromStudio);
      else this.take(packet(event.data));
    };
    socket.onclose = (event) => {
      if (this.socket === socket) this.closed(event.code, event.reason);
    };
  }

  /** Try again now, as a person asked. */
  retry(): void {
    if (this.socket && this.socket.readyState <= WebSocket.OPEN) return;
    window.clearTimeout(this.timer);
    this.pause = FIRST_PAUSE;
    this.open();
  }

  /** Ask for something; the promise has the answer's value, or a `Refused`. */
  ask<Value = unknown>(request: Ask): Promise<Value> {
    return this.request(request) as Promise<Value>;
  }

  /** Ask for something that is answered by a binary message. */
  series(request: Extract<Ask, { type: "curves" }>): Promise<Packet<Series>>;
  series(request: Extract<Ask, { type: "overlay" }>): Promise<Packet<Shapes>>;
  series(request: Extract<Ask, { type: "pictureof" }>): Promise<Packet<Picture>>;
  series(request: Ask): Promise<Packet<never>> {
    return this.request(request) as Promise<Packet<never>>;
  }

  /** Frames of a pane go to `draw`; call `drawn` when one is on the screen. One listener for each pane. */
  onFrame(pane: number, draw: (packet: Packet<Frame>) => void): void {
    this.frames.set(pane, draw);
  }

  /** Give the credit of a frame back. */
  drawn(frame: number): void {
    const message: Drawn = { type: "drawn", frame };
    if (this.welcomed) this.socket?.send(JSON.stringify(message));
  }

  private request(request: Ask): Promise<unknown> {
    const id = this.next++;
    const text = JSON.stringify({ ...request, id });
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { text, resolve, reject });
      this.count();
      if (this.welcomed) this.socket?.send(text);
    });
  }

  private hear(message: FromStudio): void {
    switch (message.type) {
      case "welcome":
        return this.welcome(message);
      case "answer":
        return this.settle(message.id)?.resolve(message.value);
      case "refusal":
        return this.settle(message.id)?.reject(new Refused(message.error));
    }
    this.seen = Math.max(this.seen, message.seq);
    switch (message.type) {
      case "state":
        return this.store.set("state", message);
      case "journal":
        return this.store.set("journal", [...this.store.get("journal"), message.entry]);
      case "states":
        return this.store.set("states", message);
      case "views": {
        const welcome = this.store.get("welcome");
        return welcome ? this.store.set("welcome", { ...welcome, views: message.views }) : undefined;
      }
      case "inforce":
        return this.store.set("inForce", message);
      case "branches":
        return this.store.set("branches", message);
      case "failed":
        return this.store.set("failed", message);
      case "notice":
        return this.store.set("notice", message);
    }
  }

  private welcome(message: Extract<FromStudio, { type: "welcome" }>): void {
    const before = this.store.get("welcome");
    if (before && before.instance !== message.instance) this.store.forget();
    // Told anew from the beginning, or only what was missed.
    if (message.fresh) this.store.set("journal", []);
    this.seen = message.seq;
    this.pause = FIRST_PAUSE;
    this.welcomed = true;
    this.store.set("linkReason", "");
    this.store.set("link", "open");
    this.store.set("welcome", message);
    for (const waiting of [...this.waiting.values()]) this.socket?.send(waiting.text);
  }

  /** After a long silence ask for something that changes nothing; without any answer the link is given up. */
  private probe(): void {
    const now = Date.now();
    if (!this.welcomed || now - this.heard < SILENCE) return;
    // Timed from the question, for a hidden tab or a laptop that slept is not called as often.
    if (this.asked < this.heard) {
      this.asked = now;
      this.request({ type: "unwatch", pane: 3 }).catch(() => {});
    } else if (now - this.asked > PROBE) {
      const socket = this.socket;
      this.closed(1006, "");
      socket?.close();
    }
  }

  private take(packet: Packet): void {
    if (packet.header.type === "frame") this.frames.get(packet.header.pane)?.(packet as Packet<Frame>);
    else this.settle(packet.header.id)?.resolve(packet);
  }

  private settle(id: number): Waiting | undefined {
    const waiting = this.waiting.get(id);
    this.waiting.delete(id);
    this.count();
    return waiting;
  }

  /** Answer everything that waits: under another name it must not be asked again. */
  private giveUp(why: string): void {
    for (const id of [...this.waiting.keys()]) this.settle(id)?.reject(new Refused(why));
  }

  private count(): void {
    this.store.set("unanswered", this.waiting.size);
  }

  private closed(code: number, reason: string): void {
    this.welcomed = false;
    this.socket = null;
    this.store.set("linkReason", reason);
    if (code === REPLACED || FOR_GOOD.has(code)) this.giveUp(reason || "the studio has closed the connection");
    if (code === REPLACED) {
      sessionStorage.removeItem("client");
      this.seen = 0;
    }
    if (FOR_GOOD.has(code)) return this.store.set("link", "refused");
    this.store.set("link", "cut");
    this.timer = window.setTimeout(() => this.open(), this.pause * (0.75 + Math.random() / 2));
    this.pause = Math.min(this.pause * 1.7, LONGEST_PAUSE);
  }
}

/** The address of the studio's socket, beside the page's own: it may lie anywhere behind a proxy. */
export function socketAddress(): string {
  const address = new URL("socket", document.baseURI);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  return address.href;
}

/** Exchange the token of the address for a cookie, and take it out of the address before anything else runs.
 *
 * Returns why it was not accepted, "" where it was or there is none: a cookie may be there already.
 */
export async function login(): Promise<string> {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token === null) return "";
  history.replaceState(null, "", location.pathname + location.search);
  const body = JSON.stringify({ token });
  const answer = await fetch("login", { method: "POST", body, headers: { "Content-Type": "application/json" } });
  return answer.ok ? "" : (await answer.text()).slice(0, 500) || `the login was refused (${answer.status})`;
}

function packet(data: ArrayBuffer): Packet {
  const all = new Uint8Array(data);
  const end = all.indexOf(10);
  const header = JSON.parse(new TextDecoder().decode(all.subarray(0, end))) as Binary;
  // A copy where it must be aligned for Float64Array; a picture's bytes need not be.
  const bytes = header.type === "series" || header.type === "shapes" ? all.slice(end + 1) : all.subarray(end + 1);
  return { header, bytes };
}

function client(): string {
  let name = sessionStorage.getItem("client");
  if (!name) {
    name = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    sessionStorage.setItem("client", name);
  }
  return name;
}

/** How others see this browser: "Firefox on Linux". */
function label(): string {
  const agent = navigator.userAgent;
  const browser = /Edg\//.test(agent) ? "Edge" : (/(Firefox|Chrome|Safari)/.exec(agent)?.[1] ?? "Browser");
  const system = /(Android|iPhone|iPad|Windows|Mac|Linux)/.exec(agent)?.[1];
  return system ? `${browser} on ${system}` : browser;
}
