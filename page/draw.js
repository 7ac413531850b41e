'use strict';
// The drawings: pure functions from numbers to SVG. What they show also stands
// beside them in words.

function shape(tag, attributes, text) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// frame empties a drawing and returns where in it the data goes. One unit is one
// pixel, so that lines are sharp and letters keep their size at any width.
function frame(svg, left) {
  const width = svg.clientWidth || 320, height = svg.clientHeight || 150;
  svg.replaceChildren();
  return {left, top: 10, right: width - 12, bottom: height - 22};
}

// round returns the least number of the form 1, 2 or 5 times a power of ten that is
// not smaller than n.
function round(n) {
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map((step) => step * power).find((top) => top >= n * 0.999999);
}

function axis(svg, f, top, words) {
  for (const share of [0, 0.5, 1]) {
    const y = f.bottom - share * (f.bottom - f.top);
    svg.append(
      shape('path', {class: 'grid', d: `M${f.left} ${y}H${f.right}`}),
      shape('text', {class: 'label', x: f.left - 6, y: y + 4, 'text-anchor': 'end'}, words(share * top)),
    );
  }
}

// drawThroughput draws the last minutes: bytes a second as a line over its area, and
// a cross on the axis where pushes failed.
function drawThroughput(svg, history) {
  const f = frame(svg, 62), values = history.bytes_per_second, n = values.length;
  const top = round(Math.max(1e6, ...values)), x = (i) => f.left + i / n * (f.right - f.left);
  const y = (v) => f.bottom - v / top * (f.bottom - f.top);
  axis(svg, f, top, (v) => v === 0 ? '0' : (top >= 1e9 ? +(v / 1e9).toFixed(2) + ' GB/s' : +(v / 1e6).toFixed(2) + ' MB/s'));

  const minutes = n * history.step_seconds / 60;
  for (let back = 0; back <= minutes; back += 5) {
    const at = f.right - back / minutes * (f.right - f.left);
    const anchor = back === 0 ? 'end' : back === minutes ? 'start' : 'middle';
    svg.append(
      shape('path', {class: 'grid', d: `M${at} ${f.bottom}v4`}),
      shape('text', {class: 'label', x: at, y: f.bottom + 17, 'text-anchor': anchor}, back === 0 ? 'now' : '−' + back + (back === minutes ? ' min' : '')),
    );
  }
  const line = values.map((v, i) => `${i ? 'V' : 'M' + x(0).toFixed(1) + ' '}${y(v).toFixed(1)}H${x(i + 1).toFixed(1)}`).join('');
  svg.append(
    shape('path', {class: 'area', d: `${line}V${f.bottom}H${f.left}z`}),
    shape('path', {class: 'curve', d: line}),
  );
  history.failed_per_second.forEach((failed, i) => {
    if (failed > 0) svg.append(shape('path', {class: 'cross', d: `M${x(i + 0.5) - 4} ${f.bottom - 4}l8 8m0-8l-8 8`}));
  });
}

// drawTimes draws how many pushes took how long, each bar between two bounds, and
// a line at the deadline; what is beyond it has another fill.
function drawTimes(svg, times, deadline) {
  const f = frame(svg, 42), n = times.pushes.length, wide = (f.right - f.left) / n;
  const least = round(Math.max(1, ...times.pushes)), top = least + least % 2; // half a push is none
  axis(svg, f, top, count);
  const limit = deadline > 0 ? times.bounds_seconds.findIndex((bound) => bound >= deadline) : -1; // 0: there is none
  const edge = (i) => f.left + (i + 1) * wide; // where the bar below bound i ends

  times.pushes.forEach((pushes, i) => {
    if (pushes === 0) return;
    const high = Math.max(5, pushes / top * (f.bottom - f.top));
    svg.append(shape('rect', {
      class: limit >= 0 && i > limit ? 'beyond' : 'intime',
      x: f.left + i * wide + 1, y: f.bottom - high, width: Math.max(1, wide - 2), height: high,
    }));
  });

  // The deadline always has its label; the others where there is room.
  const taken = [];
  const label = (i, emphatic) => {
    const at = edge(i), words = brief(times.bounds_seconds[i]), half = words.length * 3.6 + 3;
    if (taken.some((other) => Math.abs(other.at - at) < other.half + half)) return;
    taken.push({at, half});
    svg.append(shape('text', {class: emphatic ? 'label limit' : 'label', x: at, y: f.bottom + 17, 'text-anchor': 'middle'}, words));
  };
  if (limit >= 0) {
    svg.append(shape('path', {class: 'deadline', d: `M${edge(limit)} ${f.top - 8}V${f.bottom + 4}`}));
    label(limit, true);
  }
  for (let i = 0; i < times.bounds_seconds.length; i++) label(i, false);
}

// brief says a bound in as few letters as there can be.
function brief(s) {
  if (s < 1) return +(s * 1000).toPrecision(3) + ' ms';
  if (s < 60) return +s.toPrecision(3) + ' s';
  return s < 3600 ? +(s / 60).toPrecision(3) + ' min' : +(s / 3600).toPrecision(3) + ' h';
}

// drawTiming draws where the time of one push went, as parts of one bar.
function drawTiming(svg, parts) {
  svg.replaceChildren();
  const whole = parts.reduce((sum, part) => sum + part.seconds, 0) || 1;
  let before = 0;
  for (const {key, seconds} of parts) {
    if (seconds <= 0) continue;
    svg.append(shape('rect', {
      class: 'part ' + key, x: before / whole * 100 + '%', y: 0, width: seconds / whole * 100 + '%', height: '100%',
    }));
    before += seconds;
  }
}
