const COLOURS = ["#56B4E9", "#009E73", "#D55E00"], WIDTH = 760, HEIGHT = 360, MARGIN = 44;
const LABELS = 8;  // the tokens with the longest paths are named
// words (n) and paths (n, layers, 2): where each token is in the plane after each layer.
function drawPaths(words, paths) {
  const picture = element("paths");
  const add = (kind, attributes, text = "") => {
    const one = document.createElementNS(picture.namespaceURI, kind);
    Object.entries(attributes).forEach(([name, value]) => one.setAttribute(name, value));
    one.textContent = text;
    picture.append(one);
    return one;
  };
  picture.replaceChildren();
  if (!words.length) return;
  const scales = [0, 1].map(k => {
    const all = paths.flat().map(point => point[k]);
    const low = Math.min(...all), high = Math.max(...all);
    return {low, high, at: value => high > low ? (value - low) / (high - low) : 0.5};
  });
  const x = point => MARGIN + scales[0].at(point[0]) * (WIDTH - 2 * MARGIN);
  const y = point => HEIGHT - MARGIN - scales[1].at(point[1]) * (HEIGHT - 2 * MARGIN);
  const line = (path, width, opacity) => add("polyline", {
    points: path.map(point => `${x(point)},${y(point)}`).join(" "),
    fill: "none", stroke: "currentColor", "stroke-width": width, opacity,
  });
  const means = paths[0].map((_, k) =>
    [0, 1].map(j => paths.reduce((sum, path) => sum + path[k][j], 0) / paths.length));
  add("rect", {
    x: MARGIN - 6, y: MARGIN - 6, width: WIDTH - 2 * MARGIN + 12, height: HEIGHT - 2 * MARGIN + 12,
    fill: "none", stroke: "currentColor", opacity: 0.2,
  });
  paths.forEach(path => line(path, 1, 0.2));
  paths.forEach(path => path.forEach((point, k) =>
    add("circle", {cx: x(point), cy: y(point), r: 3.5, fill: COLOURS[k], "data-at": point})));
  line(means, 2.5, 1);
  means.forEach((point, k) => add("circle", {
    cx: x(point), cy: y(point), r: 7, fill: COLOURS[k], stroke: "currentColor", "stroke-width": 2.5,
  }));
  const label = (text, x, y, anchor) => add("text", {x, y, "text-anchor": anchor}, text);
  const named = paths.map((path, i) => ({
    word: words[i].trim(), end: path.at(-1),
    length: Math.hypot(...path.at(-1).map((value, k) => value - path[0][k])),
  }));
  named.sort((a, b) => b.length - a.length).slice(0, LABELS).forEach(({word, end}) =>
    label(word, x(end), y(end) - 8, "middle"));
  const [across, up] = scales;
  label(across.low.toFixed(2), MARGIN, HEIGHT - MARGIN + 22, "middle");
  label(across.high.toFixed(2), WIDTH - MARGIN, HEIGHT - MARGIN + 22, "middle");
  label("first principal component", WIDTH / 2, HEIGHT - MARGIN + 22, "middle");
  label(up.low.toFixed(2), MARGIN - 10, HEIGHT - MARGIN + 4, "end");
  label(up.high.toFixed(2), MARGIN - 10, MARGIN + 4, "end");
  const middle = label("second principal component", 0, 0, "middle");
  middle.setAttribute("transform", `translate(${MARGIN - 26} ${HEIGHT / 2}) rotate(-90)`);
}
