"use strict";
// Sorts tables, saves figures and their data, and turns surfaces. Without it the page shows the same, in the order it has.

const MOST_SURFACES = 8; // browsers drop the oldest of about 16 WebGL contexts, and a surface has up to two
const STEP = Math.PI / 18;
const said = document.getElementById("said");

async function stored(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

function save(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  said.textContent = `Saved ${name}`;
}

// Tables: a press on a heading sorts by its column: ascending, descending, then the order of the page.

function key(cell) {
  const text = cell.textContent.trim();
  if (!cell.classList.contains("number")) return text;
  const found = text.match(/^(?:[≥±]|residual|bracket)?\s*([-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?)/i);
  return found ? Number(found[1].replaceAll(",", "")) : text;
}

function compared(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

const isMissing = (k) => typeof k === "string" && /^$|^[—–-]/.test(k);

function sort(table, column, direction, original) {
  let rows = original;
  if (direction !== "none") {
    const sign = direction === "ascending" ? 1 : -1;
    const keyed = original.map((row) => [key(row.cells[column]), row]);
    const known = keyed.filter(([k]) => !isMissing(k)).sort((a, b) => sign * compared(a[0], b[0]));
    rows = [...known, ...keyed.filter(([k]) => isMissing(k))].map(([, row]) => row);
  }
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  const original = [...table.tBodies[0].rows];
  if (original.length < 2) continue;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", next);
      sort(table, column, next, original);
    });
  });
}

// Figures: saved as PNG three times as large as on the page, and their numbers as CSV.

async function drawn(image) {
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = 3 * image.getAttribute("width");
  canvas.height = 3 * image.getAttribute("height");
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

async function turnedView(place) {
  // A file has no page around it: title and caption are written into it.
  const { title, titles, caption, lines, width } = place.layout.meta;
  const [above, below] = [24 + 20 * titles, 16 * lines + 12];
  const at = { xref: "paper", yref: "paper", x: 0.01, xanchor: "left", showarrow: false, align: "left" };
  const layout = {
    ...place.layout,
    autosize: false,
    margin: { l: 0, r: 0, t: above, b: below },
    annotations: [
      { ...at, y: 1, yanchor: "bottom", yshift: 10, text: `<b>${title}</b>`, font: { size: 15 } },
      { ...at, y: 0, yanchor: "top", yshift: -4, text: caption, font: { size: 10, color: "#666" } },
    ],
  };
  const size = { width: Math.max(place.clientWidth, width), height: place.clientHeight + above + below };
  const url = await window.Plotly.toImage({ data: place.data, layout }, { format: "png", scale: 3, ...size });
  return new Blob([Uint8Array.from(atob(url.split(",")[1]), (c) => c.charCodeAt(0))], { type: "image/png" });
}

for (const figure of document.querySelectorAll("figure")) {
  const [png, csv] = figure.querySelectorAll("button[data-save]");
  figure.querySelector(".saving").hidden = false;
  png.addEventListener("click", async () => {
    const turned = figure.classList.contains("turned");
    save(await (turned ? turnedView(figure.querySelector(".turn")) : drawn(figure.querySelector("img"))), png.dataset.save);
  });
  csv.addEventListener("click", async () => {
    save(new Blob([await stored(csv.dataset.stored)], { type: "text/csv" }), csv.dataset.save);
  });
}

// Surfaces: drawn when they come near the window, since it takes a second or more; the picture stands there until then.

const built = [];
let library = null;

function plotly() {
  library ??= stored(document.body.dataset.plotly).then((code) => {
    const script = document.createElement("script");
    script.textContent = code;
    document.head.append(script);
    return window.Plotly;
  });
  return library;
}

async function build(place) {
  if (place.dataset.state) return;
  place.dataset.state = "building";
  const Plotly = await plotly();
  const { data, layout } = JSON.parse(await stored(place.dataset.stored));
  place.start = viewOf(layout);
  if (place.view) Object.assign(layout.scene, place.view);
  await Plotly.newPlot(place, data, layout, { displayModeBar: false, responsive: true });
  place.closest("figure").classList.add("turned");
  place.closest("figure").querySelector(".turning").hidden = false;
  place.dataset.state = "built";
  built.push(place);
  if (built.length > MOST_SURFACES) drop(built.shift());
}

// The view in parallel projection: where the eye is, and how large the box.
const viewOf = ({ scene }) => structuredClone({ camera: scene.camera, aspectratio: scene.aspectratio });

function drop(place) {
  place.view = viewOf(place.layout);
  window.Plotly.purge(place);
  place.closest("figure").classList.remove("turned");
  delete place.dataset.state;
}

function turn(place, action) {
  if (place.dataset.state !== "built") return;
  const { camera, aspectratio } = action === "back" ? structuredClone(place.start) : viewOf(place.layout);
  const { x, y, z } = camera.eye;
  let around = Math.atan2(y, x);
  let up = Math.atan2(z, Math.hypot(x, y));
  const far = Math.hypot(x, y, z);
  const larger = { nearer: 1.15, farther: 1 / 1.15 }[action] ?? 1;
  if (action === "left") around -= STEP;
  if (action === "right") around += STEP;
  if (action === "up") up = Math.min(up + STEP, Math.PI / 2 - 0.01);
  if (action === "down") up = Math.max(up - STEP, 0.01 - Math.PI / 2);
  camera.eye = { x: far * Math.cos(up) * Math.cos(around), y: far * Math.cos(up) * Math.sin(around), z: far * Math.sin(up) };
  for (const side of ["x", "y", "z"]) aspectratio[side] *= larger;
  window.Plotly.relayout(place, { "scene.camera": camera, "scene.aspectratio": aspectratio });
}

const KEYS = {
  ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", "+": "nearer", "=": "nearer", "-": "farther",
  Home: "back",
};

function supported() {
  const canvas = document.createElement("canvas");
  return (canvas.getContext("webgl2") ?? canvas.getContext("webgl")) !== null;
}

const places = [...document.querySelectorAll(".turn")];
if (places.length && supported()) {
  const near = new IntersectionObserver(
    (entries) => entries.filter((e) => e.isIntersecting).forEach((e) => build(e.target)),
    { rootMargin: "300px" },
  );
  for (const place of places) {
    near.observe(place);
    place.addEventListener("keydown", (event) => {
      const action = KEYS[event.key];
      if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      turn(place, action);
    });
    for (const button of place.closest("figure").querySelectorAll("button[data-turn]")) {
      button.addEventListener("click", () => turn(place, button.dataset.turn));
    }
  }
}
