// The sheet: strokes from mouse, finger, pen or keys, and the picture they make.

const PEN_WIDTH = 0.068; // of the sheet's side
const PICTURE_SIDE = 140; // pixels of the picture that is sent: five for each one the network sees
const KEY_STEP = 0.04; // of the sheet's side

/** Draw strokes, lists of points from 0 to 1, on a square canvas. */
function drawStrokes(canvas, strokes, ink) {
  const pen = canvas.getContext("2d");
  const side = canvas.width;
  pen.strokeStyle = ink;
  pen.lineWidth = PEN_WIDTH * side;
  pen.lineCap = "round";
  pen.lineJoin = "round";
  for (const stroke of strokes) {
    const points = stroke.map(([x, y]) => [x * side, y * side]);
    pen.beginPath();
    pen.moveTo(...points[0]);
    // Curves through the middles of the lines between points: what a hand draws has no corners.
    for (let index = 1; index < points.length - 1; index += 1) {
      const [x, y] = points[index];
      const [nextX, nextY] = points[index + 1];
      pen.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
    }
    pen.lineTo(...points.at(-1));
    pen.stroke();
  }
}

/** The PNG file (Blob) that strokes make: dark ink on white paper. */
export function pictureOf(strokes) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = PICTURE_SIDE;
  // Without transparency the file is smaller, and nothing about it has to be guessed.
  const paper = canvas.getContext("2d", { alpha: false });
  paper.fillStyle = "#fff";
  paper.fillRect(0, 0, PICTURE_SIDE, PICTURE_SIDE);
  drawStrokes(canvas, strokes, "#111");
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** A canvas that is drawn on; `onChange` is called with every change of its strokes. */
export class Pad {
  constructor(canvas, pen, onChange) {
    this.strokes = [];
    this.#canvas = canvas;
    this.#pen = pen;
    this.#onChange = onChange;
    canvas.addEventListener("pointerdown", (event) => this.#press(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => this.#lift(event));
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#hidePen());
    new ResizeObserver(() => this.redraw()).observe(canvas);
  }

  #canvas;
  #pen;
  #onChange;
  #pointer = null; // id of the pointer that draws
  #keys = { x: 0.3, y: 0.2, down: false };
  #playing = null;

  /** Take every stroke away. */
  clear() {
    this.#stop();
    this.strokes = [];
    this.#changed();
  }

  /** Take the last stroke back. */
  undo() {
    this.#stop();
    this.strokes.pop();
    this.#changed();
  }

  /** Draw given strokes before the visitor's eyes. */
  play(strokes) {
    this.clear();
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.strokes = strokes.map((stroke) => [...stroke]);
      this.#changed();
      return;
    }
    const points = strokes.flatMap((stroke, index) => stroke.map((point) => [index, point]));
    let done = 0;
    const step = () => {
      for (const [stroke, point] of points.slice(done, done + 2)) {
        (this.strokes[stroke] ??= []).push(point);
      }
      done += 2;
      this.#changed();
      this.#playing = done < points.length ? requestAnimationFrame(step) : null;
    };
    this.#playing = requestAnimationFrame(step);
  }

  /** Draw the strokes at the size the sheet has now. */
  redraw() {
    const side = Math.round(this.#canvas.clientWidth * devicePixelRatio);
    if (side) this.#canvas.width = this.#canvas.height = side;
    drawStrokes(this.#canvas, this.strokes, getComputedStyle(this.#canvas).color);
  }

  #changed() {
    this.redraw();
    this.#onChange();
  }

  /** End what plays, and the stroke of a pointer that is still down. */
  #stop() {
    cancelAnimationFrame(this.#playing);
    this.#playing = null;
    this.#pointer = null;
  }

  #place(event) {
    const box = this.#canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  #press(event) {
    if (this.#pointer !== null || event.button !== 0) return;
    this.#stop();
    this.#pointer = event.pointerId;
    this.#canvas.setPointerCapture(event.pointerId);
    this.strokes.push([this.#place(event)]);
    this.#changed();
  }

  #move(event) {
    if (event.pointerId !== this.#pointer) return;
    // A fast hand makes several moves between two frames.
    const events = event.getCoalescedEvents?.() ?? [];
    this.strokes.at(-1).push(...(events.length ? events : [event]).map((each) => this.#place(each)));
    this.#changed();
  }

  #lift(event) {
    if (event.pointerId === this.#pointer) this.#pointer = null;
  }

  #key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const keys = this.#keys;
    if (event.key in moves) {
      const [right, down] = moves[event.key];
      keys.x = Math.min(0.95, Math.max(0.05, keys.x + right * KEY_STEP));
      keys.y = Math.min(0.95, Math.max(0.05, keys.y + down * KEY_STEP));
      if (keys.down && this.strokes.length) this.strokes.at(-1).push([keys.x, keys.y]);
    } else if (event.key === " ") {
      keys.down = !keys.down;
      if (keys.down) this.strokes.push([[keys.x, keys.y]]);
    } else if (event.key === "Backspace" || event.key === "Escape") {
      keys.down = false;
      if (event.key === "Escape") this.clear();
      else this.undo();
    } else {
      return;
    }
    event.preventDefault();
    this.#pen.hidden = false;
    this.#pen.classList.toggle("down", keys.down);
    this.#pen.style.left = `${100 * keys.x}%`;
    this.#pen.style.top = `${100 * keys.y}%`;
    this.#changed();
  }

  #hidePen() {
    this.#keys.down = false;
    this.#pen.hidden = true;
  }
}
