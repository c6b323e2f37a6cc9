const element = name => document.getElementById(name);
const make = (kind, properties = {}) => Object.assign(document.createElement(kind), properties);
let asked = null;  // the class whose shares are shown; null is the likeliest
// tokens (n) as spelled; shares (n, C), what each adds to each class's logit; bias (C).
function showDecision(classes, tokens, shares, bias, temperature) {
  const C = classes.length, mean = s => s.reduce((a, b) => a + b) / C;
  const logits = classes.map((_, c) => shares.reduce((sum, s) => sum + s[c], bias[c]));
  const top = Math.max(...logits), powers = logits.map(l => Math.exp((l - top) / temperature));
  const total = powers.reduce((a, b) => a + b), chosen = asked ?? logits.indexOf(top);
  const over = shares.map(s => s[chosen] - mean(s)), most = Math.max(1e-9, ...over.map(Math.abs));
  element("label").textContent = classes[chosen];
  element("words").replaceChildren(...tokens.map((word, i) => {
    const span = make("span"), side = over[i] > 0 ? "for" : "against";
    span.style.background = `rgba(var(--${side}), ${0.75 * Math.abs(over[i]) / most})`;
    span.dataset.share = over[i];
    span.append(word, make("small", {textContent: (over[i] > 0 ? "+" : "") + over[i].toFixed(2)}));
    return span;
  }));
  const rest = bias[chosen] - mean(bias), sum = over.reduce((a, b) => a + b, 0);
  element("sum").textContent =
    `Tokens ${sum.toFixed(3)}, bias ${rest.toFixed(3)}: together ${(sum + rest).toFixed(3)}.`;
  const order = classes.map((_, c) => c).sort((a, b) => powers[b] - powers[a]).slice(0, 20);
  element("classes").replaceChildren(...order.flatMap(c => {
    const share = `${(100 * powers[c] / total).toFixed(1)}%`, bar = make("div", {className: "bar"});
    const name = make("button", {textContent: classes[c], className: c == chosen ? "chosen" : ""});
    name.onclick = () => {
      asked = asked === c ? null : c;
      showDecision(classes, tokens, shares, bias, temperature);
    };
    bar.style.width = `${100 * powers[c] / total}%`;
    const p = make("div", {className: "p", textContent: share});
    p.dataset.p = powers[c] / total;
    return [name, bar, p];
  }));
}
