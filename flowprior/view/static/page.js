"use strict";
// What the page shows, and its controls. The data are those of page.py.

const data = JSON.parse(document.getElementById("data").textContent);
const state = { image: 0, person: -1, pose: 0, joint: -1, track: null };
const element = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

// --- small helpers ---------------------------------------------------------------------------

function make(tag, attributes = {}, text = "") {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  return node;
}

function draw(tag, attributes, title = "") {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (title) {
    const label = document.createElementNS(SVG, "title");
    label.textContent = title;
    node.append(label);
  }
  return node;
}

const rgb = (hex) => [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16) / 255);
const STOPS = data.stops.map(rgb);

// The colour of a value between the ends "certain" and "uncertain" of a scale.
function colourOf(value, scale) {
  if (value === null || !Number.isFinite(value)) return rgb(data.unknown);
  const share = Math.max(0, Math.min(1,
    (value - scale.certain) / (scale.uncertain - scale.certain)));
  const place = share * (STOPS.length - 1);
  const low = Math.min(Math.floor(place), STOPS.length - 2);
  return STOPS[low].map((from, axis) => from + (place - low) * (STOPS[low + 1][axis] - from));
}

const css = (colour) => `rgb(${colour.map((value) => Math.round(255 * value)).join(",")})`;
const number = (value, digits = 0) => (value === null ? "–" : value.toFixed(digits));
const FINE = 0.35;
const HAND_M = 0.16; // half of what the view of a hand shows
const capital = (name) => (name[0].toUpperCase() + name.slice(1)).replaceAll("_", " ");

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// 16-bit numbers whose low bytes stand before their high bytes.
function words(bytes) {
  const count = bytes.length / 2;
  const result = new Int16Array(count);
  for (let place = 0; place < count; place++)
    result[place] = bytes[place] | (bytes[count + place] << 8);
  return result;
}

// --- bodies ----------------------------------------------------------------------------------

let faces = null;
const unpacked = new Map();
const MOST_UNPACKED = 40;

// Positions of a person's poses, the fit first, and the spread of the samples at each vertex.
async function posesOf(row) {
  if (unpacked.has(row)) return unpacked.get(row);
  const person = data.people[row];
  if (!person.mesh) return null;
  if (!faces) faces = Uint32Array.from(words32(await inflate(data.faces)));
  if (data.skin) {
    const every = Array.from({ length: person.poses }, (_, pose) => skinned(person, pose));
    return keep(row, { vertices: every, spread: spreadOf(every) });
  }
  const packed = words(await inflate(person.mesh));
  const size = packed.length / person.poses;
  const vertices = [];
  for (let pose = 0; pose < person.poses; pose++) {
    const positions = new Float32Array(size);
    for (let place = 0; place < size; place++) {
      const steps = pose ? (packed[place] + packed[pose * size + place]) << 16 >> 16
        : packed[place];
      positions[place] = steps * data.step_m + person.origin[place % 3];
    }
    vertices.push(positions);
  }
  return keep(row, { vertices, spread: spreadOf(vertices) });
}

// Root mean square distance of the samples to the fit at each vertex, millimetres.
function spreadOf(vertices) {
  const spread = new Float32Array(vertices[0].length / 3);
  for (let vertex = 0; vertex < spread.length; vertex++) {
    let total = 0;
    for (const sample of vertices.slice(1))
      for (let axis = 0; axis < 3; axis++)
        total += (sample[3 * vertex + axis] - vertices[0][3 * vertex + axis]) ** 2;
    spread[vertex] = 1000 * Math.sqrt(total / Math.max(1, vertices.length - 1));
  }
  return spread;
}

// Few people are kept unpacked: a sequence has many.
function keep(row, poses) {
  unpacked.set(row, poses);
  if (unpacked.size > MOST_UNPACKED) unpacked.delete(unpacked.keys().next().value);
  return poses;
}

function words32(bytes) {
  return new Uint32Array(bytes.buffer, 0, bytes.length / 4);
}

function plain(count, colour) {
  const colours = new Float32Array(3 * count);
  for (let place = 0; place < colours.length; place++) colours[place] = colour[place % 3];
  return colours;
}

function jointsOf(person, pose) {
  if (data.skin) return jointMotions(person, pose).map(({ place }) => place);
  const flat = person.joints[pose];
  return data.joint_names.map((_, joint) => flat.slice(3 * joint, 3 * joint + 3)
    .map((value) => value / 1000));
}

let scene = null;
let shown = null; // the positions on the screen
let morphing = 0;

async function showBody() {
  if (!scene) return;
  const turn = ++morphing;
  const image = data.images[state.image];
  for (const [row, person] of data.people.entries()) {
    const other = image.people.includes(row) && row !== state.person;
    const poses = other ? await posesOf(row) : null;
    if (turn !== morphing) return;
    if (poses)
      scene.set(0, `person ${row}`, poses.vertices[0],
        plain(poses.vertices[0].length / 3, rgb(data.colours.other)), faces);
    else scene.remove(0, `person ${row}`);
  }
  const person = data.people[state.person];
  const poses = person ? await posesOf(state.person) : null;
  if (turn !== morphing) return;
  for (const name of ["joints", "samples"]) scene.remove(1, name);
  if (!poses) return scene.remove(0, "body");
  const pose = Math.min(state.pose, person.poses - 1);
  const own = pose ? data.colours.samples[(pose - 1) % data.colours.samples.length]
    : data.colours.fit;
  const spread = element("spread").checked;
  const colours = spread ? new Float32Array(3 * poses.spread.length)
    : plain(poses.spread.length, rgb(own));
  if (spread)
    poses.spread.forEach((value, vertex) => colours.set(colourOf(value, data.spread), 3 * vertex));
  showSticks(person, pose);
  const to = poses.vertices[pose];
  const from = shown && shown.row === state.person ? shown.positions : to;
  shown = { row: state.person, positions: to };
  const still = from === to || matchMedia("(prefers-reduced-motion: reduce)").matches;
  const start = performance.now();
  (function step() {
    if (turn !== morphing) return;
    const share = still ? 1 : Math.min(1, (performance.now() - start) / 150);
    const positions = share === 1 ? to : from.map((value, place) =>
      value + share * (to[place] - value));
    scene.set(0, "body", positions, colours, faces);
    document.body.dataset.shown = share === 1 ? `${state.image}/${state.person}/${pose}` : "";
    if (share < 1) requestAnimationFrame(step);
  })();
}

function showSticks(person, pose) {
  const bones = (joints, radius, colour) => data.parents.flatMap((parent, joint) =>
    (parent < 0 ? [] : [[joints[parent], joints[joint], radius * sizeOf(joint), colour]]));
  if (element("joints").checked) {
    const joints = jointsOf(person, pose);
    scene.set(1, "joints", ...sticks(
      joints.map((place, joint) => [place, (joint === state.joint ? 0.035 : 0.02) * sizeOf(joint),
        colourOf(person.confidence[joint], data.confidence)]),
      bones(joints, 0.006, rgb(data.colours.bone))));
  }
  if (element("samples").checked) {
    const all = [];
    for (let sample = 1; sample < person.poses; sample++)
      all.push(...bones(jointsOf(person, sample), 0.004,
        rgb(data.colours.samples[(sample - 1) % data.colours.samples.length])));
    scene.set(1, "samples", ...sticks([], all));
  }
}

// Fingers and face are drawn smaller.
function sizeOf(joint) {
  return data.fine_joints.includes(joint) ? FINE : 1;
}

function lookAtHand(side) {
  const person = data.people[state.person];
  if (!scene || !person || !person.mesh) return;
  scene.target = jointsOf(person, Math.min(state.pose, person.poses - 1))[data.hands[side]];
  scene.distance = HAND_M / HALF_VIEW;
  scene.draw();
}

// In a sequence the camera moves along with the person, without turning or zooming.
function follow(before, person) {
  if (!scene || !before?.mesh || !person?.mesh) return;
  scene.target = scene.target.map((value, axis) =>
    value + person.origin[axis] - before.origin[axis]);
}

function lookAtPerson() {
  const person = data.people[state.person];
  if (!scene || !person || !person.mesh) return;
  const joints = jointsOf(person, 0);
  const low = [0, 1, 2].map((axis) => Math.min(...joints.map((place) => place[axis])));
  const high = [0, 1, 2].map((axis) => Math.max(...joints.map((place) => place[axis])));
  scene.target = low.map((value, axis) => (value + high[axis]) / 2);
  const half = Math.max(...low.map((value, axis) => (high[axis] - value) / 2)) + 0.3;
  scene.distance = half / HALF_VIEW;
  scene.draw();
}

// --- photo -----------------------------------------------------------------------------------

// The part of the image that is shown: left, top, width, height.
function frameOf(image) {
  const person = data.people[state.person];
  const points = person && element("zoom").checked
    ? [...(person.points ?? []), ...person.keypoints.filter((point) => point[2] > data.seen)] : [];
  if (!points.length) return [0, 0, image.width, image.height];
  const ends = (axis) => {
    const values = points.map((point) => point[axis]);
    return [Math.min(...values), Math.max(...values)];
  };
  const [[left, right], [top, bottom]] = [ends(0), ends(1)];
  const margin = 0.2 * Math.max(right - left, bottom - top, 1);
  return [left - margin, top - margin, right - left + 2 * margin, bottom - top + 2 * margin];
}

function showPhoto() {
  const image = data.images[state.image];
  const [left, top, width, height] = frameOf(image);
  const size = Math.max(width, height) / 100;
  const overlay = element("overlay");
  overlay.setAttribute("viewBox", `${left} ${top} ${width} ${height}`);
  overlay.replaceChildren();
  element("photo").style.setProperty("--ratio", width / height);
  element("without-photo").hidden = Boolean(image.photo);
  element("photo").classList.toggle("blank", !image.photo);
  if (image.photo)
    overlay.append(draw("image", { href: image.photo, width: image.width, height: image.height,
      preserveAspectRatio: "none" }));
  for (const row of image.people) {
    const person = data.people[row];
    const chosen = row === state.person;
    const group = draw("g", { class: chosen ? "chosen" : "other" });
    group.addEventListener("click", () => choose({ person: row }));
    if (element("keypoints").checked) {
      for (const [first, second] of data.keypoint_bones) {
        const [a, b] = [person.keypoints[first], person.keypoints[second]];
        if (a[2] > data.seen && b[2] > data.seen)
          group.append(draw("line", { x1: a[0], y1: a[1], x2: b[0], y2: b[1], class: "limb",
            "stroke-width": size / 4 }));
      }
      person.keypoints.forEach(([x, y, conf], place) => {
        const side = 1.2 * size * (data.fine_keypoints.includes(place) ? FINE : 1);
        if (conf > data.seen)
          group.append(draw("rect", { x: x - side / 2, y: y - side / 2, width: side,
            height: side, class: "keypoint", "stroke-width": side / 5,
            opacity: 0.35 + 0.65 * Math.min(1, conf) },
          `${capital(data.keypoint_names[place])}: detected, confidence ${conf.toFixed(2)}`));
      });
    }
    if (element("joints").checked && person.points) {
      person.points.forEach(([x, y], joint) => {
        const confidence = person.confidence[joint];
        const share = confidence === null ? "unknown" : `${Math.round(100 * confidence)} %`;
        const marked = chosen && joint === state.joint;
        const radius = (marked ? 1.8 : 1) * size * sizeOf(joint);
        group.append(draw("circle", { cx: x, cy: y, r: radius, class: "joint",
          fill: css(colourOf(confidence, data.confidence)), "stroke-width": radius / 4 },
        `${capital(data.joint_names[joint])}: ${share} within ${data.distance_mm} mm`));
      });
    }
    overlay.append(group);
  }
}

// --- table -----------------------------------------------------------------------------------

const COLUMNS = ["confidence", "std_mm", "radius_50_mm", "radius_90_mm", "std_deg", "radius_90_deg"];
let order = { column: "", falling: true };

function showTable() {
  const person = data.people[state.person];
  const rows = data.joint_names.map((_, joint) => joint)
    .filter((joint) => element("fingers").checked || !data.fine_joints.includes(joint));
  if (person && order.column) {
    const key = (joint) => person[order.column][joint] ?? -1;
    rows.sort((a, b) => (order.falling ? key(b) - key(a) : key(a) - key(b)));
  }
  const body = element("table").tBodies[0];
  body.replaceChildren();
  for (const joint of person ? rows : []) {
    const row = make("tr", { tabindex: "0", class: joint === state.joint ? "marked" : "" });
    const name = make("th", { scope: "row" });
    const swatch = make("span", { class: "swatch" });
    swatch.style.background = css(colourOf(person.confidence[joint], data.confidence));
    name.append(swatch, capital(data.joint_names[joint]));
    row.append(name);
    for (const column of COLUMNS) {
      const value = person[column][joint];
      row.append(make("td", {}, column === "confidence"
        ? (value === null ? "–" : `${Math.round(100 * value)} %`) : number(value)));
    }
    const mark = () => choose({ joint: state.joint === joint ? -1 : joint });
    row.addEventListener("click", mark);
    row.addEventListener("keydown", (event) => event.key === "Enter" && mark());
    body.append(row);
  }
  for (const head of element("table").querySelectorAll("[data-column]")) {
    const chosen = head.dataset.column === order.column;
    head.setAttribute("aria-sort", !chosen ? "none" : order.falling ? "descending" : "ascending");
  }
}

// --- choices ---------------------------------------------------------------------------------

function choose(change) {
  const before = { ...state };
  Object.assign(state, change);
  const image = data.images[state.image];
  if (!image) return;
  if (image.people.includes(change.person)) state.track = data.people[change.person].person;
  else if (change.image !== undefined || !image.people.includes(state.person)) {
    // The person that was chosen last, by the track number, or else any.
    state.person = image.people.find((row) => data.people[row].person === state.track)
      ?? image.people[0] ?? -1;
    state.track ??= data.people[state.person]?.person ?? null;
  }
  const person = data.people[state.person];
  const last = person ? Math.max(0, person.poses - 1) : 0;
  state.pose = Math.min(state.pose, last);
  element("pose").max = last;
  element("pose").disabled = !last;
  element("pose").value = state.pose;
  element("pose-name").textContent = state.pose ? `Sample ${state.pose} of ${last}` : "Fit";
  element("time").value = state.image;
  element("image").value = state.image;
  element("image-name").textContent = image.name;
  element("people").replaceChildren(...(image.people.length > 1 ? image.people.map((row) => {
    const button = make("button", { "aria-pressed": row === state.person },
      `Person ${data.people[row].person + 1}`);
    button.addEventListener("click", () => choose({ person: row }));
    return button;
  }) : []));
  element("facts").textContent = person ? factsOf(person) : "Nobody in this image";
  showPhoto();
  showTable();
  if (before.image !== state.image || before.person !== state.person)
    if (data.skin && data.people[before.person]?.person === person?.person)
      follow(data.people[before.person], person);
    else lookAtPerson();
  showBody();
}

function factsOf(person) {
  const error = person.reprojection_px === null ? "" :
    `, reprojection error ${number(person.reprojection_px, 1)} px`;
  const density = person.log_prob === null ? "" :
    `, log-density ${number(person.log_prob, 1)} nats`;
  const hands = person.hands ? `, left hand ${person.hands[0]}, right hand ${person.hands[1]}` : "";
  return `Fit: ${(person.status || "done").replaceAll("_", " ")}${error}${density}${hands}`;
}

function theme() {
  const style = getComputedStyle(document.documentElement);
  if (!scene) return;
  scene.background = rgb(style.getPropertyValue("--stage").trim());
  scene.draw();
}

function listen() {
  element("pose").addEventListener("input", (event) => choose({ pose: +event.target.value }));
  for (const name of ["joints", "samples", "spread", "keypoints", "zoom"])
    element(name).addEventListener("change", () => {
      element("spread-legend").hidden = !element("spread").checked;
      choose({});
    });
  const views = { camera: [0, 0], side: [Math.PI / 2, 0], back: [Math.PI, 0], top: [0, -1.5] };
  for (const [name, [yaw, pitch]] of Object.entries(views))
    element(`view-${name}`).addEventListener("click", () => {
      if (!scene) return;
      lookAtPerson();
      scene.look(yaw, pitch);
    });
  for (const side of ["left", "right"]) {
    element(`view-${side}`).hidden = !data.hands;
    element(`view-${side}`).addEventListener("click", () => lookAtHand(side));
  }
  element("fingers").parentElement.hidden = !data.hands;
  element("fingers").addEventListener("change", showTable);
  for (const head of element("table").querySelectorAll("[data-column]"))
    head.querySelector("button").addEventListener("click", () => {
      const column = head.dataset.column;
      order = { column, falling: order.column === column ? !order.falling
        : column !== "confidence" };
      showTable();
    });
  element("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = getComputedStyle(root).colorScheme === "dark";
    root.dataset.theme = dark ? "light" : "dark";
    theme();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", theme);
  listenToTime();
}

// Several images: a list, a slider and a button that plays them in order.
function listenToTime() {
  const count = data.images.length;
  element("timeline").hidden = count < 2;
  element("time").max = count - 1;
  data.images.forEach((image, place) =>
    element("image").append(make("option", { value: place }, image.name)));
  const stop = () => {
    cancelAnimationFrame(playing);
    playing = 0;
    element("play").textContent = "Play";
  };
  let playing = 0;
  element("time").addEventListener("input", (event) => choose({ image: +event.target.value }));
  element("image").addEventListener("change", (event) => choose({ image: +event.target.value }));
  element("play").addEventListener("click", () => {
    if (playing) return stop();
    element("play").textContent = "Pause";
    // By the clock: a slow computer leaves out images.
    const [first, start] = [state.image, performance.now()];
    const step = (now) => {
      const passed = Math.floor((now - start) * data.images_per_second / 1000);
      const image = (first + Math.max(0, passed)) % count;
      if (image !== state.image) choose({ image });
      playing = requestAnimationFrame(step);
    };
    playing = requestAnimationFrame(step);
    return undefined;
  });
}

try {
  scene = new Scene(element("canvas"));
} catch (error) {
  element("canvas").hidden = true;
  element("no-webgl").hidden = false;
  element("no-webgl").textContent = `No 3D view: ${error.message}`;
}
listen();
theme();
choose({ image: 0 });
