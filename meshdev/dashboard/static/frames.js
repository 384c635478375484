// Everything is drawn in animation frames: however often something changes, it is drawn once a frame at most, and in a
// tab that nobody sees not at all.

const waiting = new Set();
let planned = false;

function draw() {
  planned = false;
  const views = [...waiting];
  waiting.clear();
  for (const view of views) view.draw();
}

/** Have *view*.draw() called in the next frame. */
export function drawSoon(view) {
  waiting.add(view);
  if (!planned) {
    planned = true;
    requestAnimationFrame(draw);
  }
}
