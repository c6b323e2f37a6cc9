const M = JSON.parse(document.getElementById("model").textContent);
function floats(text) {  // base64 of float16, little-endian
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  return Float32Array.from(new Uint16Array(bytes.buffer), h => {
    const exponent = h >> 10 & 31, fraction = h & 1023;
    const size = exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction;
    return h >> 15 ? -size : size;
  });
}
const A = Object.fromEntries(Object.entries(M.arrays).map(([name, text]) => [name, floats(text)]));
const d = M.width, C = M.classes.length, ids = new Map(M.words.map((word, id) => [word, id]));
const pattern = new RegExp(M.word, "gu"), utf8 = new TextEncoder();
const ranks = new Map(M.merges.map((pair, rank) => [pair, rank]));
function merge(word) {  // [spelling, id] of the byte pairs of a word
  const letters = Array.from(word), parts = letters.flatMap((letter, at) =>
    Array.from(utf8.encode(letter), byte => ({name: M.bytes[byte], start: at, end: at + 1})));
  for (;;) {
    let best, least = Infinity;
    for (let i = 1; i < parts.length; i++) {
      const rank = ranks.get(`${parts[i - 1].name} ${parts[i].name}`);
      if (rank < least) [best, least] = [i - 1, rank];
    }
    if (best === undefined)
      return parts.map(p => [letters.slice(p.start, p.end).join(""), ids.get(p.name)]);
    const [a, b] = parts.slice(best, best + 2);
    parts.splice(best, 2, {name: a.name + b.name, start: a.start, end: b.end});
  }
}
function lookUp(word) {  // [spelling, id]; 1 is the unknown word
  return [[word, ids.get(Array.from(word, c => c.toLowerCase()).join("")) ?? 1]];
}
function cut(text) {  // [spelling, id] of all tokens
  return Array.from(text.matchAll(pattern)).flatMap(([word]) => (M.bytes ? merge : lookUp)(word));
}
function read(text) {  // [spelling, id, position] of each token that the model counts
  let found = cut(text);
  if (M.drop_unknown) found = found.filter(([, id]) => id != 1);
  const left = M.padding == "left";
  found = left ? found.slice(-M.max_len) : found.slice(0, M.max_len);
  const length = M.full ? M.max_len : Math.max(1, found.length);
  const padding = Array(M.unmasked ? length - found.length : 0).fill([M.pad, 0]);
  found = left ? [...padding, ...found] : [...found, ...padding];
  const first = left ? length - found.length : 0;
  return found.map(([word, id], t) => [word, id, first + t]);
}
function times(W, x) {  // W @ x
  return Float64Array.from({length: W.length / d}, (_, i) => {
    let sum = 0;
    for (let j = 0; j < d; j++) sum += W[i * d + j] * x[j];
    return sum;
  });
}
function layers(id, position) {  // the token's vector after each layer
  const row = (table, i) => table.subarray(i * d, i * d + d), e = row(A.embedding, id);
  if (!A.project) return [e];
  const p = row(A.positions, position);
  const placed = e.map((x, j) => M.adds ? x + p[j] : x * (p[j] + M.offset));
  return [e, placed, times(A.project, placed).map(z => Math.max(0, z))];
}
function pairRow(a, b) {  // which row of the bag votes for a pair of words
  let pair = (BigInt(a) << 24n) + BigInt(b);
  for (const [shift, factor] of M.rounds)
    pair = BigInt.asUintN(64, (pair ^ (pair >> BigInt(shift))) * BigInt(factor));
  return M.words.length + Number((pair >> 31n) % BigInt(M.rows));
}
function addVotes(tokens, shares) {  // a token's own, and half of each pair that it is part of
  const scale = Math.sqrt(Math.max(1, 2 * tokens.length - 1)), outputs = A.bias.length;
  const vote = (t, row, part) => shares[t].forEach((_, c) =>
    shares[t][c] += part / scale * A.bag[row * outputs + c]);
  tokens.forEach(([, id], t) => {
    vote(t, id, 1);
    if (t) for (const end of [t - 1, t]) vote(end, pairRow(tokens[t - 1][1], id), 0.5);
  });
}
const known = new Map();
function update() {
  const tokens = read(element("text").value), scale = Math.max(1, tokens.length) ** M.power;
  const paths = tokens.map(([, id, t]) => {
    const key = id * M.max_len + t;
    if (!known.has(key)) known.set(key, layers(id, t));
    return known.get(key);
  });
  const shares = paths.map(path => times(A.head, path.at(-1)).map(s => s / scale));
  if (A.bag) addVotes(tokens, shares);
  const all = s => [...Array(C - A.bias.length).fill(0), ...s];  // two may share one logit
  const words = tokens.map(([word]) => word);
  showDecision(M.classes, words, shares.map(all), all(A.bias), M.temperature);
  if (A.axes) drawPaths(words, paths.map(path => path.map(inPlane)));
}
function inPlane(vector) {
  return Array.from(times(A.axes, vector), (along, k) => along - M.origin[k]);
}
