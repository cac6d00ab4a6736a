// Builds the page into src/treadle/studio/static/: page, script, style, chunks, licences, and a manifest of them all.
//
// The studio serves what the manifest lists and nothing else. Fails where the page has become too big.

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const HERE = dirname(fileURLToPath(import.meta.url));
const OUT = join(HERE, "..", "src", "treadle", "studio", "static");
const FIRST = 80 * 1024;
const ALL = 250 * 1024;
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".txt": "text/plain; charset=utf-8",
};

const built = await build({
  absWorkingDir: HERE,
  entryPoints: { app: "src/main.ts" },
  outdir: OUT,
  bundle: true,
  splitting: true,
  format: "esm",
  target: ["chrome120", "firefox121", "safari17.2"],
  minify: true,
  legalComments: "none",
  chunkNames: "[name]-[hash]",
  metafile: true,
  write: false,
  logLevel: "warning",
});
// In one go, apart: a bundle imported from the script would be put after it. light-dark() stays as it is written.
const style = await build({
  absWorkingDir: HERE,
  entryPoints: { app: "style/main.css" },
  outdir: OUT,
  bundle: true,
  target: ["chrome123", "firefox120", "safari17.5"],
  external: ["icon.svg"],
  minify: true,
  legalComments: "none",
  metafile: true,
  write: false,
  logLevel: "warning",
});

const files = new Map();
for (const { path, contents } of [...built.outputFiles, ...style.outputFiles]) {
  files.set(path.slice(OUT.length + 1), Buffer.from(contents));
}
files.set("index.html", readFileSync(join(HERE, "index.html")));
files.set("icon.svg", readFileSync(join(HERE, "icon.svg")));
files.set("licences.txt", Buffer.from(licences([...inputs(built), ...inputs(style)])));

rmSync(OUT, { recursive: true, force: true });
mkdirSync(OUT, { recursive: true });
const entries = [];
for (const [name, bytes] of [...files].sort(([one], [other]) => (one < other ? -1 : 1))) {
  writeFileSync(join(OUT, name), bytes);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  entries.push({ name, type: TYPES[extname(name)], bytes: bytes.length, sha256 });
}
// Last: where there is a manifest, everything that it lists is there.
writeFileSync(join(OUT, "manifest.json"), JSON.stringify({ index: "index.html", licences: "licences.txt", files: entries }, null, 1) + "\n");

const first = new Set(["index.html", "app.css", ...statically("app.js", built.metafile.outputs)]);
const sizes = [...files].map(([name, bytes]) => [name, gzipSync(bytes, { level: 9 }).length]);
sizes.sort((one, other) => other[1] - one[1]);
for (const [name, size] of sizes) console.log(`${(size / 1024).toFixed(1).padStart(7)} KB  ${name}${first.has(name) ? "  (first load)" : ""}`);
const sum = (chosen) => chosen.reduce((total, [, size]) => total + size, 0);
const atFirst = sum(sizes.filter(([name]) => first.has(name)));
const inAll = sum(sizes.filter(([name]) => name !== "licences.txt"));
console.log(`gzipped: first load ${(atFirst / 1024).toFixed(1)} KB of ${FIRST / 1024}, all ${(inAll / 1024).toFixed(1)} KB of ${ALL / 1024}`);
if (atFirst > FIRST || inAll > ALL) {
  console.error("the page has become too big");
  process.exit(1);
}

function inputs({ metafile }) {
  return Object.keys(metafile.inputs);
}

/** An output and what it imports, but not what it loads later. */
function statically(name, outputs, found = new Set()) {
  if (found.has(name)) return found;
  found.add(name);
  const key = Object.keys(outputs).find((path) => path.endsWith(`/${name}`));
  for (const { path, kind } of outputs[key].imports) {
    if (kind === "import-statement") statically(path.split("/").at(-1), outputs, found);
  }
  return found;
}

/** The licences of the packages that are in the page, each from its own folder. */
function licences(paths) {
  const packages = [...new Set(paths.map((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1]).filter(Boolean))];
  const texts = packages.sort().map((name) => {
    const folder = join(HERE, "node_modules", name);
    const about = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = readdirSync(folder).find((one) => /^licen[cs]e/i.test(one));
    if (!file || !existsSync(join(folder, file))) throw new Error(`${name}: its package has no licence file`);
    return `${name} ${about.version} (${about.license})\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`;
  });
  return `What others have written and this page holds, with its licences.\n\n${texts.join(`\n${"-".repeat(80)}\n\n`)}`;
}
