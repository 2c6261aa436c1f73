"use strict";
/* The page "Try it": takes pictures, hands them to the worker (engine.js) and shows its answers. */

const LIMIT = 60; // seconds to start: some browsers never say that they cannot
const LIVE_FACE = 1 / 8; // least height of a face before the camera, of the frame's height
const REPEAT = 3000; // milliseconds between two announcements while the camera runs
const $ = (id) => document.getElementById(id);
const { classes, samples, sideways } = packed.page;

const loads = {};
let engine; // promise of the worker that runs the networks
let last; // the picture that was looked at last, to look again with another network
let turn = 0; // counts what the user asked for: an answer to an earlier question is dropped
let filming; // the turn in which the camera was started
let announced = 0;

/* ---- starting ---- */

/** Load a script of data; gives the values it holds. */
function load(name) {
  return loads[name] ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `data/${name}.js`;
    script.onload = () => resolve(packed[name]);
    script.onerror = () => {
      delete loads[name];
      reject(new Error(`${name}.js is missing. Load the page again; if the book was built offline, build it again.`));
    };
    document.head.append(script);
  });
}

/** Bytes of what a script holds: base64 of gzip. */
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

/** Start a worker on one of the backends, "wasm" or "webgpu", with the network that is chosen. */
async function startEngine(backend) {
  const [runtime, detector] = await Promise.all([load(backend), load("detector")]);
  const code = await Promise.all([runtime.script, detector.engine].map(unpack));
  const worker = new Worker(URL.createObjectURL(new Blob(code, { type: "text/javascript" })));
  const waiting = new Map(), ready = {};
  worker.onmessage = ({ data: { id, result, error } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) resolve(result);
    else reject(new Error(error));
  };
  worker.onerror = (event) => {
    for (const { reject } of waiting.values()) reject(new Error(event.message ?? "a worker is refused."));
  };
  const call = (kind, values, transferred = []) => new Promise((resolve, reject) => {
    const id = crypto.getRandomValues(new Uint32Array(1))[0];
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, kind, ...values }, transferred);
  });
  const use = (name) => ready[name] ??= (async () => {
    const { network, temperature } = await load(name);
    const bytes = await unpack(network);
    await inTime(call("network", { name, bytes, temperature, backend }, [bytes]));
  })();
  try {
    const stages = {};
    for (const stage of "pro") stages[stage] = await unpack(detector[stage]);
    const [loader, binary, picture] = await Promise.all([runtime.loader, runtime.binary, sideways].map(unpack));
    await inTime(call("start", { loader, binary, stages, sideways: picture }, [binary]));
    await use(chosen());
  } catch (error) {
    worker.terminate();
    throw error;
  }
  return { call, use, backend };
}

const inTime = (promise) => Promise.race([promise, new Promise((_, reject) => {
  setTimeout(() => reject(new Error(`they did not answer within ${LIMIT} seconds.`)), LIMIT * 1000);
})]);

/** WebGPU where there is an adapter, in hardware, that WebAssembly can wait for; or else WebAssembly alone. */
async function startBest() {
  try {
    if (typeof WebAssembly !== "object") throw new Error("this browser has no WebAssembly, or it is switched off.");
    const adapter = "Suspending" in WebAssembly && await navigator.gpu?.requestAdapter().catch(() => null);
    if (!adapter || adapter.info?.isFallbackAdapter) return await startEngine("wasm");
    return await startEngine("webgpu").catch(() => startEngine("wasm"));
  } catch (error) {
    throw new Error(`The networks cannot run here: ${error.message}`);
  }
}

const chosen = () => document.querySelector("input[name=network]:checked").value;

/* ---- looking ---- */

/** Look at a picture, a file or (`live`) a frame of the camera, and show the faces. */
async function look(picture, live) {
  const mine = live ? turn : ++turn;
  if (!live) {
    stopCamera();
    last = picture;
    say("Looking for faces.");
  }
  try {
    const { call, use, backend } = await engine, name = chosen();
    await use(name);
    const values = { picture, name };
    if (live) Object.assign(values, { cropped: false, minFace: Math.max(20, picture.height * LIVE_FACE) });
    const result = await call("look", values, live ? [picture] : []);
    if (mine === turn) show(result, backend, live);
  } catch (error) {
    if (mine !== turn) return;
    turn += 1;
    stopCamera();
    $("picture").hidden = true;
    $("faces").replaceChildren();
    $("times").textContent = "";
    say(error.message);
  }
}

function show(result, backend, live) {
  const { width, height, bitmap, faces, cropped } = result;
  $("picture").hidden = false;
  Object.assign($("shown"), { width: bitmap.width, height: bitmap.height });
  $("shown").getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
  $("boxes").setAttribute("viewBox", `0 0 ${width} ${height}`);
  $("boxes").innerHTML = faces.map(({ box }, i) => drawBox(box, faces.length > 1 ? i + 1 : "", width)).join("");
  while ($("faces").children.length > faces.length) $("faces").lastChild.remove();
  while ($("faces").children.length < faces.length) $("faces").append(newCard());
  faces.forEach((face, i) => fill($("faces").children[i], face, faces.length > 1 ? `Face ${i + 1}: ` : ""));
  const words = faces.map((face) => classes[best(face)]);
  if (live) {
    announce(words.length ? `The camera sees ${words.join(", ")}.` : "The camera sees no face.");
  } else if (!faces.length) {
    say("No face was found, so there is no answer. A larger, upright face may help.");
  } else {
    const sure = faces.map((face, i) => `${words[i]} (${percent(face.probabilities[best(face)])})`).join(", ");
    const how = cropped ? " The picture is taken as a face that is cropped already." : "";
    say(`${faces.length === 1 ? "One face" : `${faces.length} faces, the largest first`}: ${sure}.${how}`);
  }
  const each = faces.length ? `${Math.round(result.each)} ms a face for the network, ` : "";
  const where = backend === "webgpu" ? "WebGPU" : "WebAssembly";
  $("times").textContent = `${each}${Math.round(result.detection)} ms to find faces. The network runs on ${where}.`;
}

const best = ({ probabilities }) => probabilities.indexOf(Math.max(...probabilities));
const percent = (share) => `${(100 * share).toFixed(1)}%`;

/** A box with its number, as SVG. */
const drawBox = ([left, top, right, bottom], number, width) =>
  `<rect x="${left}" y="${top}" width="${right - left}" height="${bottom - top}"/>` +
  `<text x="${left}" y="${Math.max(top - width / 100, width / 22)}" font-size="${width / 22}">${number}</text>`;

function newCard() {
  const copy = (id) => $(id).content.firstElementChild.cloneNode(true), card = copy("card");
  for (const name of classes) {
    const row = card.querySelector("tbody").appendChild(copy("row"));
    row.querySelector("th").textContent = name;
  }
  return card;
}

/** Write a face's answer into its card. */
function fill(card, face, title) {
  const top = best(face);
  card.querySelector("h3").textContent = title + classes[top];
  const canvas = card.querySelector("canvas"), context = canvas.getContext("2d");
  canvas.setAttribute("aria-label", `${title}the grey face that the network sees`);
  const pixels = context.createImageData(canvas.width, canvas.height);
  face.crop.forEach((grey, i) => pixels.data.set([grey, grey, grey, 255], 4 * i));
  context.putImageData(pixels, 0, 0);
  [...card.querySelector("tbody").rows].forEach((row, i) => {
    row.className = i === top ? "top" : "";
    row.querySelector("div").style.width = percent(face.probabilities[i]);
    const value = row.querySelector("data");
    value.value = face.probabilities[i].toFixed(6);
    value.textContent = percent(face.probabilities[i]);
  });
}

const say = (text) => { $("status").textContent = text; };

/** Say what changed while the camera runs, but not at every frame. */
function announce(text) {
  if (performance.now() - announced < REPEAT || $("status").textContent === text) return;
  announced = performance.now();
  say(text);
}

/* ---- the camera ---- */

async function startCamera() {
  const mine = filming = ++turn, video = $("video");
  $("camera").textContent = "Stop the camera";
  last = undefined;
  say("Waiting for the camera.");
  try {
    if (!navigator.mediaDevices) throw new Error("browsers allow it on https, localhost and files only");
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
    if (mine !== turn) return void stream.getTracks().forEach((track) => track.stop());
    video.srcObject = stream;
    await video.play();
    while (mine === turn) {
      await look(await createImageBitmap(video), true);
      await new Promise(requestAnimationFrame); // rests while the page is hidden
    }
  } catch (error) {
    if (mine !== turn) return;
    turn += 1;
    stopCamera();
    say(`No camera could be opened (${error.message}). A photo or a drawn face works without one.`);
  }
}

function stopCamera() {
  for (const track of $("video").srcObject?.getTracks() ?? []) track.stop();
  $("video").srcObject = null;
  $("camera").textContent = "Start the camera";
}

/* ---- what the user does ---- */

$("file").addEventListener("change", ({ target }) => {
  if (target.files.length) look(target.files[0]);
  target.value = ""; // the same file may be chosen again
});
$("camera").addEventListener("click", () => {
  if (filming !== turn) return void startCamera();
  turn += 1;
  stopCamera();
  say("The camera is off.");
});
$("network").addEventListener("change", () => last && look(last));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragover");
    const file = kind === "drop" && event.dataTransfer.files[0];
    if (file) look(file);
  });
}
for (const { name, picture } of samples) {
  const button = Object.assign(document.createElement("button"), { type: "button" });
  const image = Object.assign(document.createElement("img"), { alt: name });
  button.append(image);
  $("samples").append(button);
  unpack(picture).then((bytes) => {
    const file = new Blob([bytes], { type: "image/png" });
    image.src = URL.createObjectURL(file);
    button.addEventListener("click", () => look(file));
  });
}

say("Loading the networks.");
engine = startBest();
engine.then(() => turn || say("Ready: choose a photo, start the camera, or take a drawn face."),
  (error) => turn || say(error.message));
