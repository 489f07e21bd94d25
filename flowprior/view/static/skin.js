"use strict";
// Bodies of sequences: one shape per track, and the rotations of each frame, which are posed here
// by linear blend skinning. The data are those of skinned.py.

const shapes = new Map();

function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

// 16-bit numbers, low byte first.
function shortsOf(text, signed) {
  const view = new DataView(bytesOf(text).buffer);
  return Float32Array.from({ length: view.byteLength / 2 }, (_, place) =>
    (signed ? view.getInt16(2 * place, true) : view.getUint16(2 * place, true)));
}

// What all frames of a track share.
function shapeOf(track) {
  if (shapes.has(track)) return shapes.get(track);
  const { skin } = data;
  if (!shapes.has("weights")) {
    shapes.set("joints", bytesOf(skin.joints));
    shapes.set("weights", shortsOf(skin.weights, false).map((value) => value / skin.weight));
  }
  const own = skin.tracks[track];
  const vertices = shortsOf(own.vertices, true).map((value) => value * skin.rest_step_m);
  const shape = { vertices, rest: own.joints };
  shapes.set(track, shape);
  return shape;
}

// The matrix of a rotation vector, by rows.
function matrixOf(x, y, z) {
  const angle = Math.hypot(x, y, z);
  const s = angle < 1e-6 ? 1 : Math.sin(angle) / angle;
  const c = angle < 1e-6 ? 0.5 : (1 - Math.cos(angle)) / (angle * angle);
  const d = 1 - c * angle * angle;
  return [
    d + c * x * x, c * x * y - s * z, c * x * z + s * y,
    c * x * y + s * z, d + c * y * y, c * y * z - s * x,
    c * x * z - s * y, c * y * z + s * x, d + c * z * z,
  ];
}

function product(a, b) {
  const result = new Array(9);
  for (let row = 0; row < 3; row++)
    for (let column = 0; column < 3; column++)
      result[3 * row + column] = a[3 * row] * b[column] + a[3 * row + 1] * b[3 + column]
        + a[3 * row + 2] * b[6 + column];
  return result;
}

function turned(a, [x, y, z]) {
  return [0, 3, 6].map((row) => a[row] * x + a[row + 1] * y + a[row + 2] * z);
}

// Rotation and place of each joint in a pose of a person.
function jointMotions(person, pose) {
  const { rest } = shapeOf(person.person);
  const count = rest.length;
  person.turns ??= shortsOf(person.mesh, true);
  const motions = [];
  for (let joint = 0; joint < count; joint++) {
    const start = 3 * (pose * count + joint);
    const own = matrixOf(...person.turns.subarray(start, start + 3)
      .map((value) => value * data.skin.turn_step));
    const parent = data.parents[joint];
    if (parent < 0) {
      motions.push({ turn: own, place: person.origin });
      continue;
    }
    const above = motions[parent];
    const offset = rest[joint].map((value, axis) => value - rest[parent][axis]);
    const moved = turned(above.turn, offset);
    motions.push({
      turn: product(above.turn, own),
      place: moved.map((value, axis) => value + above.place[axis]),
    });
  }
  return motions;
}

// Positions of the vertices in a pose of a person.
function skinned(person, pose) {
  const { vertices, rest } = shapeOf(person.person);
  const [joints, weights] = [shapes.get("joints"), shapes.get("weights")];
  const { influences } = data.skin;
  // Each motion as a matrix and a shift: R v + (place - R rest).
  const moves = jointMotions(person, pose).map(({ turn, place }, joint) => {
    const back = turned(turn, rest[joint]);
    return [...turn, ...place.map((value, axis) => value - back[axis])];
  });
  const result = new Float32Array(vertices.length);
  const blend = new Float64Array(12);
  for (let vertex = 0; 3 * vertex < vertices.length; vertex++) {
    blend.fill(0);
    for (let each = 0; each < influences; each++) {
      const weight = weights[influences * vertex + each];
      if (!weight) continue;
      const move = moves[joints[influences * vertex + each]];
      for (let entry = 0; entry < 12; entry++) blend[entry] += weight * move[entry];
    }
    const [x, y, z] = vertices.subarray(3 * vertex, 3 * vertex + 3);
    for (let axis = 0; axis < 3; axis++)
      result[3 * vertex + axis] = blend[3 * axis] * x + blend[3 * axis + 1] * y
        + blend[3 * axis + 2] * z + blend[9 + axis];
  }
  return result;
}
