"use strict";
// A small WebGL 2 renderer for bodies: triangle meshes with one colour per vertex, lit from above
// the viewer's left shoulder, seen by a camera that orbits a point. Coordinates are those of the
// photo's camera: x right, y down, z forward.

const VERTEX_SHADER = `#version 300 es
in vec3 position;
in vec3 normal;
in vec3 colour;
uniform mat3 turn;
uniform vec3 target;
uniform float away;
uniform vec2 focal;
out vec3 facing;
out vec3 paint;
void main() {
  vec3 seen = turn * (position - target) + vec3(0.0, 0.0, away);
  facing = turn * normal;
  paint = colour;
  float near = 0.05, far = 200.0;
  gl_Position = vec4(
    focal.x * seen.x, -focal.y * seen.y,
    ((far + near) * seen.z - 2.0 * far * near) / (far - near), seen.z);
}`;

const FRAGMENT_SHADER = `#version 300 es
precision highp float;
in vec3 facing;
in vec3 paint;
out vec4 result;
void main() {
  vec3 n = normalize(facing);
  n = n.z > 0.0 ? -n : n;
  float light = 0.42 + 0.58 * max(dot(n, normalize(vec3(-0.45, -0.65, -0.75))), 0.0);
  result = vec4(paint * light, 1.0);
}`;

const HALF_VIEW = Math.tan((35 / 2) * (Math.PI / 180));

class Scene {
  // Throws an Error where the browser has no WebGL 2.
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl2", { antialias: true });
    if (!this.gl) throw new Error("this browser has no WebGL 2");
    this.layers = [new Map(), new Map()]; // the second is drawn over the first
    this.target = [0, 0, 3];
    this.yaw = 0;
    this.pitch = 0;
    this.distance = 4;
    this.background = [1, 1, 1];
    this.waiting = false;
    this.start();
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => {
      this.start();
      for (const layer of this.layers)
        for (const mesh of layer.values()) mesh.buffers = null;
      this.draw();
    });
    new ResizeObserver(() => this.draw()).observe(canvas);
    this.listen();
  }

  start() {
    const gl = this.gl;
    this.program = gl.createProgram();
    for (const [kind, source] of [
      [gl.VERTEX_SHADER, VERTEX_SHADER],
      [gl.FRAGMENT_SHADER, FRAGMENT_SHADER],
    ]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(this.program, shader);
    }
    ["position", "normal", "colour"].forEach((name, place) =>
      gl.bindAttribLocation(this.program, place, name));
    gl.linkProgram(this.program);
    if (!gl.getProgramParameter(this.program, gl.LINK_STATUS) && !gl.isContextLost())
      throw new Error(gl.getProgramInfoLog(this.program));
    this.uniforms = {};
    for (const name of ["turn", "target", "away", "focal"])
      this.uniforms[name] = gl.getUniformLocation(this.program, name);
  }

  // Adds or replaces a mesh. positions: Float32Array (V*3); colours: Float32Array (V*3) in 0..1;
  // faces: Uint32Array (F*3).
  set(layer, name, positions, colours, faces) {
    const old = this.layers[layer].get(name);
    if (old) this.free(old);
    const normals = vertexNormals(positions, faces);
    this.layers[layer].set(name, { positions, normals, colours, faces, buffers: null });
    this.draw();
  }

  remove(layer, name) {
    const mesh = this.layers[layer].get(name);
    if (!mesh) return;
    this.free(mesh);
    this.layers[layer].delete(name);
    this.draw();
  }

  free(mesh) {
    if (!mesh.buffers) return;
    mesh.buffers.arrays.forEach((buffer) => this.gl.deleteBuffer(buffer));
    this.gl.deleteVertexArray(mesh.buffers.vao);
  }

  upload(mesh) {
    const gl = this.gl;
    const vao = gl.createVertexArray();
    gl.bindVertexArray(vao);
    const arrays = [mesh.positions, mesh.normals, mesh.colours].map((array, place) => {
      const buffer = gl.createBuffer();
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ARRAY_BUFFER, array, gl.STATIC_DRAW);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 0, 0);
      return buffer;
    });
    const indices = gl.createBuffer();
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, indices);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, mesh.faces, gl.STATIC_DRAW);
    gl.bindVertexArray(null);
    mesh.buffers = { vao, arrays: [...arrays, indices] };
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.drawNow();
    });
  }

  drawNow() {
    const gl = this.gl;
    if (gl.isContextLost()) return;
    const sharp = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(this.canvas.clientWidth * sharp));
    const height = Math.max(1, Math.round(this.canvas.clientHeight * sharp));
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    gl.viewport(0, 0, width, height);
    gl.clearColor(...this.background, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.useProgram(this.program);
    const shorter = Math.min(width, height);
    gl.uniformMatrix3fv(this.uniforms.turn, true, this.rotation());
    gl.uniform3fv(this.uniforms.target, this.target);
    gl.uniform1f(this.uniforms.away, this.distance);
    gl.uniform2f(this.uniforms.focal, shorter / width / HALF_VIEW, shorter / height / HALF_VIEW);
    this.metresPerPixel = (2 * this.distance * HALF_VIEW * sharp) / shorter;
    for (const layer of this.layers) {
      gl.clear(gl.DEPTH_BUFFER_BIT);
      for (const mesh of layer.values()) {
        if (!mesh.buffers) this.upload(mesh);
        gl.bindVertexArray(mesh.buffers.vao);
        gl.drawElements(gl.TRIANGLES, mesh.faces.length, gl.UNSIGNED_INT, 0);
      }
    }
    gl.bindVertexArray(null);
  }

  // From the photo's axes to those of the view, row by row.
  rotation() {
    const [c, s] = [Math.cos(this.yaw), Math.sin(this.yaw)];
    const [p, q] = [Math.cos(this.pitch), Math.sin(this.pitch)];
    return [c, 0, s, -q * s, p, q * c, -p * s, -q, p * c];
  }

  look(yaw, pitch) {
    this.yaw = yaw;
    this.pitch = Math.max(-1.55, Math.min(1.55, pitch));
    this.draw();
  }

  zoom(factor) {
    this.distance = Math.max(0.5, Math.min(60, this.distance * factor));
    this.draw();
  }

  pan(right, down) {
    const turn = this.rotation();
    const scale = this.metresPerPixel || 0;
    for (let axis = 0; axis < 3; axis++)
      this.target[axis] -= scale * (right * turn[axis] + down * turn[3 + axis]);
    this.draw();
  }

  // One pointer turns, two pointers or a held Shift key move and zoom, the wheel zooms; arrow keys
  // turn, + and - zoom.
  listen() {
    const canvas = this.canvas;
    const pointers = new Map();
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const now = [event.clientX, event.clientY];
      const [right, down] = [now[0] - before[0], now[1] - before[1]];
      if (pointers.size === 1 && !event.shiftKey && event.buttons !== 2) {
        this.look(this.yaw - right * 0.01, this.pitch - down * 0.01);
      } else {
        const others = [...pointers].filter(([id]) => id !== event.pointerId);
        if (others.length === 1) {
          const other = others[0][1];
          const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
          if (apart(now) > 10) this.zoom(apart(before) / apart(now));
        }
        this.pan(right / pointers.size, down / pointers.size);
      }
      pointers.set(event.pointerId, now);
    });
    for (const end of ["pointerup", "pointercancel"])
      canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.002));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const turns = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1],
        ArrowDown: [0, -0.1] };
      if (turns[event.key])
        this.look(this.yaw + turns[event.key][0], this.pitch + turns[event.key][1]);
      else if (event.key === "+") this.zoom(0.9);
      else if (event.key === "-") this.zoom(1.1);
      else return;
      event.preventDefault();
    });
  }
}

function vertexNormals(positions, faces) {
  const normals = new Float32Array(positions.length);
  for (let start = 0; start < faces.length; start += 3) {
    const [a, b, c] = [3 * faces[start], 3 * faces[start + 1], 3 * faces[start + 2]];
    const u = [0, 1, 2].map((axis) => positions[b + axis] - positions[a + axis]);
    const v = [0, 1, 2].map((axis) => positions[c + axis] - positions[a + axis]);
    const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    for (const corner of [a, b, c])
      for (let axis = 0; axis < 3; axis++) normals[corner + axis] += n[axis];
  }
  return normals;
}

// Spheres and bones as one mesh. spheres: [centre, radius, colour]; bones: [from, to, radius,
// colour]; colours are [r, g, b] in 0..1. Returns the arguments of Scene.set after the name.
function sticks(spheres, bones) {
  const positions = [], colours = [], faces = [];
  for (const [centre, radius, colour] of spheres) {
    const first = positions.length / 3;
    for (const corner of BALL.corners) {
      for (let axis = 0; axis < 3; axis++) positions.push(centre[axis] + radius * corner[axis]);
      colours.push(...colour);
    }
    for (const corner of BALL.faces) faces.push(first + corner);
  }
  for (const [from, to, radius, colour] of bones) {
    const along = [0, 1, 2].map((axis) => to[axis] - from[axis]);
    const length = Math.hypot(...along);
    if (length < 1e-6) continue;
    const least = along.map(Math.abs).indexOf(Math.min(...along.map(Math.abs)));
    const side = [0, 0, 0];
    side[least] = 1;
    const u = unit(cross(along, side));
    const v = unit(cross(along, u));
    const first = positions.length / 3;
    for (let step = 0; step < 6; step++) {
      const [c, s] = [Math.cos((step * Math.PI) / 3), Math.sin((step * Math.PI) / 3)];
      for (const end of [from, to]) {
        for (let axis = 0; axis < 3; axis++)
          positions.push(end[axis] + radius * (c * u[axis] + s * v[axis]));
        colours.push(...colour);
      }
      const [a, b] = [first + 2 * step, first + 2 * ((step + 1) % 6)];
      faces.push(a, a + 1, b, b, a + 1, b + 1);
    }
  }
  return [new Float32Array(positions), new Float32Array(colours), new Uint32Array(faces)];
}

function cross(a, b) {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}

function unit(vector) {
  const length = Math.hypot(...vector) || 1;
  return vector.map((value) => value / length);
}

const BALL = ball(6, 10);

function ball(rings, sides) {
  const corners = [], faces = [];
  for (let ring = 0; ring <= rings; ring++)
    for (let side = 0; side < sides; side++) {
      const [down, round] = [(ring * Math.PI) / rings, (side * 2 * Math.PI) / sides];
      corners.push([Math.sin(down) * Math.cos(round), Math.cos(down),
        Math.sin(down) * Math.sin(round)]);
      if (ring === rings) continue;
      const [a, b] = [ring * sides + side, ring * sides + ((side + 1) % sides)];
      faces.push(a, b, a + sides, b, b + sides, a + sides);
    }
  return { corners, faces };
}
