"use strict";
/* The page's worker: reads pixels, finds faces and classifies them, as fer_utils/pictures.py, detector.py and
   prediction.py do. It runs behind onnxruntime-web's script, which gives `ort`. */

const SIDE = 64, CROPPED_SIDE = 96, FILLED = 0.8, CONFIDENCE = 0.9;
const THRESHOLDS = [0.6, 0.7, 0.7], FACTOR = 0.709, SMALLEST = 20, LARGEST_SIDE = 2000, LARGEST = 1e8;
const BATCH = 256; // candidates that a network of the detector sees at once
const STRIP = 1000000; // pixels read from a canvas at once
const SHOWN = 1280; // longest side of the picture that goes back to the page
// Canvas transforms that put EXIF orientations 1-8 upright, for a picture of w × h.
const UPRIGHT = [
  () => [1, 0, 0, 1, 0, 0], (w) => [-1, 0, 0, 1, w, 0], (w, h) => [-1, 0, 0, -1, w, h],
  (w, h) => [1, 0, 0, -1, 0, h], () => [0, 1, 1, 0, 0, 0], (w, h) => [0, 1, -1, 0, h, 0],
  (w, h) => [0, -1, -1, 0, h, w], (w) => [0, -1, 1, 0, 0, w],
];
const f32 = Math.fround;
const detector = {}, networks = {};
let turnsWebp = true;

const handlers = {
  /** Start onnxruntime-web and the detector. */
  async start({ loader, binary, stages, sideways }) {
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary = binary;
    ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(new Blob([loader], { type: "text/javascript" })) };
    for (const stage of "pro") detector[stage] = await open(stages[stage], "wasm");
    turnsWebp = (await createImageBitmap(new Blob([sideways], { type: "image/webp" }))).width === 1;
  },

  /** Load a network and run it once, since the first run is slow, or fails. */
  async network({ name, bytes, temperature, backend }) {
    const session = await open(bytes, backend);
    networks[name] = { session, temperature };
    await probabilities(networks[name], new Uint8Array(SIDE * SIDE));
  },

  /** Find and classify the faces of a picture (a file, or a frame of the camera). */
  async look({ picture, name, minFace, cropped }) {
    const { width, height, grey, small, step, bitmap } = await readPixels(picture);
    const start = performance.now();
    const tiny = Math.min(width, height) >= SMALLEST && Math.max(width, height) <= CROPPED_SIDE;
    if (cropped === undefined && tiny) cropped = true;
    let found = cropped ? [] : await detect(small, step, minFace ?? SMALLEST);
    const detected = performance.now();
    found = found.filter((box) => box[4] >= CONFIDENCE);
    const fills = found.length === 1 && found[0][3] - found[0][1] >= FILLED * Math.max(width, height);
    if (cropped === undefined && fills) cropped = true;
    if (cropped) found = [[0, 0, width, height]];
    const faces = found.map((box) => ({ box: box.slice(0, 4), crop: cropFace(grey, width, height, box) }));
    const began = performance.now();
    for (const face of faces) face.probabilities = await probabilities(networks[name], face.crop);
    const each = (performance.now() - began) / faces.length;
    return { width, height, bitmap, faces, cropped: Boolean(cropped), detection: detected - start, each };
  },
};

let queue = Promise.resolve();
onmessage = ({ data: { id, kind, ...values } }) => {
  queue = queue.then(async () => {
    try {
      postMessage({ id, result: await handlers[kind](values) });
    } catch (error) {
      postMessage({ id, error: String(error.message ?? error) });
    }
  });
};

function open(bytes, backend) {
  return ort.InferenceSession.create(new Uint8Array(bytes), { executionProviders: [backend], logSeverityLevel: 3 });
}

const run = (session, name, values, shape) => session.run({ [name]: new ort.Tensor("float32", values, shape) });

/* ---- pixels ---- */

/** Read a picture upright, transparency on white: all its greys, and its colours small enough for the detector. */
async function readPixels(picture) {
  const source = picture instanceof Blob ? await decode(picture) : picture;
  const turn = UPRIGHT[picture instanceof Blob && !turnsWebp ? await webpOrientation(picture) - 1 : 0];
  const [a, b, c, d, e, f] = turn(source.width, source.height);
  const [width, height] = a ? [source.width, source.height] : [source.height, source.width];
  if (width * height > LARGEST) throw new Error("The picture has more than 100 megapixels. Make it smaller first.");
  const step = Math.max(1, Math.floor(Math.max(width, height) / LARGEST_SIDE));
  const small = new Sums(Math.floor(height / step), Math.floor(width / step));
  const grey = new Uint8Array(width * height);
  const strip = Math.min(height, step * Math.max(1, Math.floor(STRIP / width / step)));
  const context = drawing(width, strip);
  for (let y = 0; y < height; y += strip) {
    const rows = Math.min(strip, height - y);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillRect(0, 0, width, strip);
    context.setTransform(a, b, c, d, e, f - y);
    context.drawImage(source, 0, 0);
    const { data } = context.getImageData(0, 0, width, rows);
    for (let i = 0; i < width * rows; i++) {
      grey[y * width + i] = (data[4 * i] * 19595 + data[4 * i + 1] * 38470 + data[4 * i + 2] * 7471 + 32768) >> 16;
    }
    for (let row = 0; row + step <= rows; row += step) small.add(data, width, row, step);
  }
  const scale = Math.min(1, SHOWN / Math.max(width, height));
  const shown = drawing(Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  shown.setTransform(a * scale, b * scale, c * scale, d * scale, e * scale, f * scale);
  shown.drawImage(source, 0, 0);
  source.close();
  return { width, height, grey, small, step, bitmap: shown.canvas.transferToImageBitmap() };
}

async function decode(file) {
  try {
    return await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Error("This browser cannot read the file as a picture. Try a JPEG, PNG or WebP file.");
  }
}

/** A white canvas. */
function drawing(width, height) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  return context;
}

/** The EXIF orientation, 1-8, of a WebP file; 1 for any other. */
async function webpOrientation(file) {
  const view = new DataView(await file.arrayBuffer());
  const text = (at) => String.fromCharCode(...[0, 1, 2, 3].map((i) => view.getUint8(at + i)));
  try {
    if (text(0) !== "RIFF" || text(8) !== "WEBP") return 1;
    let at = 12;
    while (text(at) !== "EXIF") at += 8 + view.getUint32(at + 4, true) + (view.getUint32(at + 4, true) & 1);
    at += text(at + 8) === "Exif" ? 14 : 8;
    const little = view.getUint8(at) === 0x49;
    const directory = at + view.getUint32(at + 4, little);
    for (let i = 0; i < view.getUint16(directory, little); i++) {
      const entry = directory + 2 + 12 * i;
      const value = view.getUint16(entry + 8, little);
      if (view.getUint16(entry, little) === 0x0112 && value >= 1 && value <= 8) return value;
    }
  } catch { /* the file ends before there is an orientation */ }
  return 1;
}

/** Python's rounding: halves go to the even number. */
function roundEven(value) {
  const down = Math.floor(value);
  return value - down === 0.5 ? down + (down & 1) : Math.round(value);
}

/** Sums over all rectangles of a picture, see _sums in detector.py; the rows of the picture are added in turn. */
class Sums {
  constructor(height, width) {
    Object.assign(this, { height, width, rows: 0, stride: 3 * (width + 1) });
    this.table = new Uint32Array(this.stride * (height + 1));
  }

  /** Add the next row: the mean of step × step pixels of RGBA data. */
  add(data, width, first, step) {
    const { table, stride } = this;
    this.rows += 1;
    for (let c = 0; c < 3; c++) {
      let sum = 0, at = this.rows * stride + 3 + c;
      for (let x = 0; x < this.width; x++, at += 3) {
        let total = 0;
        for (let i = 0; i < step; i++) {
          for (let j = 0; j < step; j++) total += data[4 * ((first + i) * width + x * step + j) + c];
        }
        sum += step === 1 ? total : roundEven(f32(total / (step * step)));
        table[at] = table[at - stride] + sum;
      }
    }
  }

  /** Area-average a region to a size, into `out` from `offset` on: planes of red, green, blue, about -1 to 1. */
  average(top, left, bottom, right, height, width, out, offset) {
    const [above, below] = edges(top, bottom - top, height), [before, behind] = edges(left, right - left, width);
    const { table, stride } = this, plane = height * width;
    for (let y = 0; y < height; y++) {
      const high = above[y] * stride, low = below[y] * stride;
      for (let x = 0; x < width; x++) {
        const near = 3 * before[x], far = 3 * behind[x];
        const area = (below[y] - above[y]) * (behind[x] - before[x]);
        for (let c = 0; c < 3; c++) {
          const total = table[low + far + c] - table[high + far + c] + table[high + near + c] - table[low + near + c];
          out[offset + c * plane + y * width + x] = f32(f32(f32(total >>> 0) / area) - 127.5) * 0.0078125;
        }
      }
    }
  }
}

/** Where each of `count` overlapping parts of a length begins and ends. */
const edges = (start, length, count) => [Math.floor, Math.ceil].map((round, more) =>
  Int32Array.from({ length: count }, (_, i) => start + round((i + more) * length / count)));

/* ---- faces: boxes are [left, top, right, bottom, probability], in single precision as in Python ---- */

/** All faces of a picture, the largest first. */
async function detect(sums, step, minFace) {
  let boxes = await propose(sums, minFace);
  boxes = await look(sums, boxes, "r", 24, THRESHOLDS[1]);
  boxes = squares(suppress(boxes, 0.7).map((box) => shifted(box, 1)));
  boxes = await look(sums, boxes, "o", 48, THRESHOLDS[2]);
  boxes = suppress(boxes.map((box) => shifted(box, 1)), 0.7, true);
  boxes = boxes.map((box) => [...box.slice(0, 4).map((edge) => f32(edge * step)), box[4]]);
  const area = ([left, top, right, bottom]) => f32(f32(right - left) * f32(bottom - top));
  return boxes.sort((one, other) => area(other) - area(one));
}

/** First stage: a window of 12 pixels slides over a pyramid. */
async function propose(sums, minFace) {
  let boxes = [];
  for (let scale = 12 / minFace; Math.min(sums.height, sums.width) * scale >= 12; scale *= FACTOR) {
    const height = Math.floor(sums.height * scale + 1), width = Math.floor(sums.width * scale + 1);
    const level = new Float32Array(3 * height * width);
    sums.average(0, 0, sums.height, sums.width, height, width, level, 0);
    const answer = await run(detector.p, "pixels", level, [1, 3, height, width]);
    const [, , rows, columns] = answer.probabilities.dims, plane = rows * columns;
    const scores = answer.probabilities.data, offsets = answer.offsets.data, found = [];
    const edge = (place, width) => Math.floor(f32((2 * place + width) / f32(scale)));
    for (let i = 0; i < plane; i++) {
      if (scores[i] < f32(THRESHOLDS[0])) continue;
      const x = i % columns, y = (i - x) / columns;
      const box = [edge(x, 1), edge(y, 1), edge(x, 12), edge(y, 12), scores[i]];
      found.push([...box, ...[0, 1, 2, 3].map((k) => offsets[k * plane + i])]);
    }
    boxes = boxes.concat(suppress(found, 0.5));
  }
  return squares(suppress(boxes, 0.7).map((box) => shifted(box, 0)));
}

/** Show a network what is inside the boxes; gives those that pass, with the offsets that it found. */
async function look(sums, boxes, stage, side, threshold) {
  const passed = [], size = 3 * side * side;
  const regions = boxes.map((box) => ({
    box,
    top: Math.max(Math.trunc(box[1]), 1) - 1, left: Math.max(Math.trunc(box[0]), 1) - 1,
    bottom: Math.min(Math.trunc(box[3]), sums.height), right: Math.min(Math.trunc(box[2]), sums.width),
  })).filter(({ top, left, bottom, right }) => bottom > top && right > left);
  for (let start = 0; start < regions.length; start += BATCH) {
    const batch = regions.slice(start, start + BATCH), pixels = new Float32Array(size * batch.length);
    batch.forEach(({ top, left, bottom, right }, i) => {
      sums.average(top, left, bottom, right, side, side, pixels, i * size);
    });
    const answer = await run(detector[stage], "pixels", pixels, [batch.length, 3, side, side]);
    const scores = answer.probabilities.data, offsets = answer.offsets.data;
    batch.forEach(({ box }, i) => {
      if (scores[2 * i + 1] <= f32(threshold)) return;
      passed.push([...box.slice(0, 4), scores[2 * i + 1], ...offsets.subarray(4 * i, 4 * i + 4)]);
    });
  }
  return passed;
}

/** Non-maximum suppression, the most probable first; `smaller`: see `suppress` in detector.py. */
function suppress(boxes, threshold, smaller = false) {
  const more = smaller ? 1 : 0, kept = [];
  const area = (box) => f32(f32(box[2] - box[0] + more) * f32(box[3] - box[1] + more));
  for (let order = [...boxes].sort((one, other) => other[4] - one[4]); order.length;) {
    const best = order[0];
    kept.push(best);
    order = order.slice(1).filter((box) => {
      const wide = f32(f32(Math.min(best[2], box[2]) - Math.max(best[0], box[0])) + more);
      const high = f32(f32(Math.min(best[3], box[3]) - Math.max(best[1], box[1])) + more);
      const shared = f32(Math.max(wide, 0) * Math.max(high, 0));
      const whole = smaller ? Math.min(area(best), area(box)) : f32(f32(area(best) + area(box)) - shared);
      return shared <= f32(f32(threshold) * whole);
    });
  }
  return kept;
}

/** Move the edges of a box by its offsets, shares of its size; `more`: a pixel for both edges. */
function shifted(box, more) {
  const size = [f32(box[2] - box[0] + more), f32(box[3] - box[1] + more)];
  return [...[0, 1, 2, 3].map((i) => f32(box[i] + f32(box[5 + i] * size[i % 2]))), box[4]];
}

/** Make boxes square about their centres, as large as their longer side. */
function squares(boxes) {
  return boxes.map(([left, top, right, bottom, score]) => {
    const width = f32(right - left), height = f32(bottom - top), side = Math.max(width, height);
    const x = f32(left + f32(f32(width - side) / 2)), y = f32(top + f32(f32(height - side) / 2));
    return [x, y, f32(x + side), f32(y + side), score];
  });
}

/* ---- expressions ---- */

/** Cut a face out: the square about the box, beyond the picture its edge repeated, scaled as Pillow does. */
function cropFace(grey, width, height, [left, top, right, bottom]) {
  const side = Math.max(1, roundEven(Math.max(right - left, bottom - top)));
  const x = roundEven((left + right - side) / 2), y = roundEven((top + bottom - side) / 2);
  const weights = bicubic(side), across = new Float32Array(side * SIDE), crop = new Uint8Array(SIDE * SIDE);
  const clamp = (value, end) => Math.min(Math.max(value, 0), end - 1);
  for (let row = 0; row < side; row++) {
    const line = clamp(y + row, height) * width;
    weights.forEach(({ first, shares }, column) => {
      let sum = 0;
      for (let i = 0; i < shares.length; i++) sum += grey[line + clamp(x + first + i, width)] * shares[i];
      across[row * SIDE + column] = sum;
    });
  }
  weights.forEach(({ first, shares }, row) => {
    for (let column = 0; column < SIDE; column++) {
      let sum = 0;
      for (let i = 0; i < shares.length; i++) sum += across[(first + i) * SIDE + column] * shares[i];
      crop[row * SIDE + column] = Math.min(Math.max(roundEven(f32(sum)), 0), 255);
    }
  });
  return crop;
}

/** The weights of Pillow's bicubic filter with antialiasing, from `side` pixels to SIDE. */
function bicubic(side) {
  const scale = side / SIDE, stretch = Math.max(scale, 1), reach = 2 * stretch;
  const curve = (t) => t < 1 ? (1.5 * t - 2.5) * t * t + 1 : t < 2 ? ((2.5 - 0.5 * t) * t - 4) * t + 2 : 0;
  return Array.from({ length: SIDE }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(side, Math.trunc(centre + reach + 0.5));
    const raw = Array.from({ length: end - first }, (_, k) => curve(Math.abs((first + k - centre + 0.5) / stretch)));
    const sum = raw.reduce((one, other) => one + other, 0);
    return { first, shares: raw.map((value) => value / sum) };
  });
}

/** The six probabilities, calibrated, of a face crop. */
async function probabilities({ session, temperature }, crop) {
  const { logits } = await run(session, "images", Float32Array.from(crop, (v) => v / 255), [1, 1, SIDE, SIDE]);
  const scaled = Array.from(logits.data, (value) => value / temperature), top = Math.max(...scaled);
  const powers = scaled.map((value) => Math.exp(value - top)), sum = powers.reduce((one, other) => one + other);
  return powers.map((value) => value / sum);
}
