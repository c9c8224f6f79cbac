// Time-weighted exponential moving average, debiased: a point counts less the further back it lies on the x axis,
// not the more points came since. Source: W&B, "Line plot smoothing", time-weighted EMA (viewport scale 1,000).
const VIEWPORT_SCALE = 1000;

/**
 * Smooths `ys` over `xs`. `smoothing` is 0 (off) to 1; `range` is the width of the x axis in view.
 * A value that is not finite gives null and leaves the average as it was, so that a gap stays a gap.
 */
export function twema(xs, ys, smoothing, range = span(xs)) {
  if (!(smoothing > 0)) return ys.map((y) => (Number.isFinite(y) ? y : null));
  const weight = Math.min(Math.sqrt(smoothing), 0.999);
  let sum = 0;
  let total = 0;
  let previous = null;
  return ys.map((y, i) => {
    if (!Number.isFinite(y)) return null;
    const distance = previous === null || !(range > 0) ? 0 : ((xs[i] - previous) / range) * VIEWPORT_SCALE;
    const decay = weight ** Math.max(distance, 0);
    sum = sum * decay + y;
    total = total * decay + 1;
    previous = xs[i];
    return sum / total;
  });
}

/** Width of sorted `xs`; 0 for fewer than two. */
export function span(xs) {
  return xs.length > 1 ? xs[xs.length - 1] - xs[0] : 0;
}
