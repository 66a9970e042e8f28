// The picture: lays out what is seen, group by group, draws it as SVG, and lets a person open, search, move and ask. A group is
// laid out by itself and is then one box of the group around it, so that opening one costs what it holds and not all there is.
"use strict";

const page = JSON.parse(document.getElementById("graph").textContent);
const tree = makeTree(page);
const svg = document.getElementById("picture");
const details = document.getElementById("details");
const state = { selected: null, x: 20, y: 20, scale: 1, colour: "kind" };

const make = (name, attributes, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};
const html = (name, attributes, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
};
const grouped = (n) => n.toLocaleString("en-US");

// Layout.

const LINE = 14;
const HEAD = 24;
const PAD = 14;
const wide = (text, size) => text.length * size * 0.6;

function lines(item) {
  if (!item.children) return [item.name, ...(item.node.kind === "op" && item.node.name ? [`“${item.node.name}”`] : [])];
  const facts = [item.leaves === 1 ? "1 op" : `${item.leaves} ops`];
  if (item.parameters) facts.push(`${grouped(item.parameters)} parameters`);
  return [item.stacked ? `${item.name}  ×${item.stacked}` : item.name, facts.join(", ")];
}

function label(edge) {
  return edge.labels.length === 1 ? edge.labels[0] : `${edge.labels.length} tensors`;
}

// How many children stand one above the other over a child, so that what comes in does so above all of them; or below it.
function depths(legs, from, to) {
  const before = new Map();
  for (const { leg } of legs) {
    if (leg.a && leg.b) before.set(leg[to], [...(before.get(leg[to]) || []), leg[from]]);
  }
  const known = new Map();
  const depth = (child) => {
    if (!known.has(child)) {
      known.set(child, 0); // Where children need each other in a ring, one of them is first.
      known.set(child, Math.max(0, ...(before.get(child) || []).map((c) => 1 + depth(c))));
    }
    return known.get(child);
  };
  return depth;
}

// Sizes of an item and places of what it holds, relative to it.
function layout(item, legs) {
  if (!item.children || !item.open) {
    const text = lines(item);
    item.width = Math.max(60, ...text.map((t, i) => wide(t, i ? 10 : 12) + 20));
    item.height = text.length * LINE + 12;
    return;
  }
  item.children.forEach((child) => layout(child, legs));
  if (item === tree.root) {
    let x = 0;
    for (const lane of item.children) {
      [lane.x, lane.y] = [x, 0];
      x += lane.width + 60;
    }
    [item.width, item.height] = [x - 60, Math.max(0, ...item.children.map((c) => c.height))];
    return;
  }
  const g = new dagre.graphlib.Graph({ multigraph: true });
  const mirrored = ancestors(item)[1]?.lane === "backward";
  g.setGraph({ rankdir: mirrored ? "BT" : "TB", ranksep: 34, nodesep: 18, edgesep: 10 });
  item.children.forEach((c, i) => g.setNode(String(i), { width: c.width, height: c.height }));
  const place = new Map(item.children.map((c, i) => [c, String(i)]));
  // Where an edge comes in or goes out stands a port: it keeps a way free to where the edge ends.
  const port = (side, other) => {
    const id = `${side} ${other.id}`;
    if (!g.hasNode(id)) g.setNode(id, { width: 2, height: 2 });
    return id;
  };
  const mine = legs.get(item) || [];
  const [above, below] = [depths(mine, "a", "b"), depths(mine, "b", "a")];
  for (const { edge, leg } of mine) {
    const a = leg.a ? place.get(leg.a) : port("in", edge.from);
    const b = leg.b ? place.get(leg.b) : port("out", edge.to);
    const whole = leg.a === edge.from && leg.b === edge.to;
    leg.ends = [a, b, `${a} ${b}`];
    const known = g.edge(...leg.ends);
    const width = Math.max(known?.width || 0, whole ? wide(label(edge), 9) : 0);
    const minlen = leg.a && leg.b ? 1 : 1 + (leg.a ? below(leg.a) : above(leg.b));
    g.setEdge(a, b, { width, height: 12, labelpos: "c", minlen }, leg.ends[2]);
  }
  dagre.layout(g);
  item.children.forEach((c, i) => {
    const at = g.node(String(i));
    [c.x, c.y] = [at.x - c.width / 2 + PAD, at.y - c.height / 2 + HEAD];
  });
  for (const { leg } of mine) {
    const laid = g.edge(...leg.ends);
    leg.points = laid.points.map((p) => [p.x + PAD, p.y + HEAD]);
    leg.middle = [laid.x + PAD, laid.y + HEAD];
    // Between the border and a port there is nothing: to the side goes what has to, there.
    const [top, bottom] = mirrored ? [g.graph().height + HEAD + 4, HEAD - 4] : [HEAD - 4, g.graph().height + HEAD + 4];
    if (!leg.a) leg.points.unshift([leg.points[0][0], top]);
    if (!leg.b) leg.points.push([leg.points[leg.points.length - 1][0], bottom]);
  }
  const size = g.graph();
  item.width = Math.max(size.width + 2 * PAD, wide(item.name, 12) + 40);
  item.height = size.height + HEAD + PAD;
}

// From here on places are of the whole picture.
function settle(item, x, y) {
  [item.left, item.top] = [x, y];
  if (item.children && item.open) item.children.forEach((c) => settle(c, x + c.x, y + c.y));
}

// Drawing.

function hue(text) {
  let h = 7;
  for (const c of text) h = (h * 31 + c.codePointAt(0)) % 360;
  return h;
}

function colour(item) {
  const of = { op: (n) => n.op, device: (n) => n.pin, sharding: (n) => n.sharding }[state.colour];
  const said = of && !item.children && of(item.node);
  return said ? `hsl(${hue(said)} 60% 50% / 0.35)` : null;
}

function curve(points) {
  let d = `M${points[0]}`;
  for (let i = 1; i + 1 < points.length; i += 1) {
    const [a, b] = [points[i], points[i + 1]];
    const end = i + 2 === points.length ? b : [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    d += ` Q${a} ${end}`;
  }
  return points.length === 2 ? `${d} L${points[1]}` : d;
}

// An edge goes leg by leg from the item where it begins to that where it ends.
function path(edge) {
  if (!edge.routed) {
    // From lane to lane, or to the next step.
    const [a, b] = [edge.from, edge.to];
    const [from, to] = [[a.left + a.width / 2, a.top + a.height], [b.left + b.width / 2, b.top]];
    const [x, y] = [(to[0] - from[0]) / 2, 40];
    return `M${from} C${[from[0] + x / 2, from[1] + y]} ${[to[0] - x / 2, to[1] - y]} ${to}`;
  }
  const place = (leg) => leg.points.map(([x, y]) => [x + leg.within.left, y + leg.within.top]);
  // Where a leg meets the border of a box the next one begins inside it: one of both points is enough.
  return curve(edge.legs.flatMap((leg, i) => (i ? place(leg).slice(1) : place(leg))));
}

function box(item) {
  const isOpen = Boolean(item.children && item.open);
  const kind = item.children ? "group" : item.node.kind;
  const classes = ["item", kind, isOpen ? "open" : "closed", item === state.selected ? "selected" : ""];
  const g = make("g", { class: classes.join(" "), "data-id": item.id, tabindex: 0, role: item.children ? "group" : "img" });
  const [x, y, width, height] = [item.left, item.top, item.width, item.height];
  if (item.stacked && !isOpen) {
    for (const off of [6, 3]) g.append(make("rect", { x: x + off, y: y - off, width, height, rx: 6, class: "behind" }));
  }
  const rect = make("rect", { x, y, width, height, rx: kind === "op" || item.children ? 6 : 14 });
  const tint = colour(item);
  if (tint) rect.style.fill = tint;
  g.append(rect);
  const text = isOpen ? [item.name] : lines(item);
  text.forEach((line, i) => {
    const at = isOpen ? { x: x + 10, y: y + 16 } : { x: x + width / 2, y: y + 17 + i * LINE, "text-anchor": "middle" };
    g.append(make("text", { ...at, class: i ? "small" : "" }, line));
  });
  g.append(make("title", {}, item.children ? `${item.name}: ${item.leaves} ops` : `${item.name} ${item.node.types.join(", ")}`));
  return g;
}

function draw() {
  const all = seenEdges(tree);
  const legs = new Map();
  for (const edge of all.filter((e) => e.routed)) {
    for (const leg of edge.legs) {
      if (!legs.has(leg.within)) legs.set(leg.within, []);
      legs.get(leg.within).push({ edge, leg });
    }
  }
  layout(tree.root, legs);
  settle(tree.root, 0, 0);
  const camera = make("g", { id: "camera" });
  const boxes = (item) => {
    if (item !== tree.root) camera.append(box(item));
    if (item.children && item.open) item.children.forEach(boxes);
  };
  boxes(tree.root);
  const over = make("g", {});
  for (const edge of all) {
    const touches = edge.from === state.selected || edge.to === state.selected;
    // What crosses lanes is shown of what is asked for only: all of it at once is a tangle.
    if (!edge.routed && !touches) continue;
    const classes = ["edge", edge.next ? "next" : "", touches ? "touched" : "", edge.routed ? "" : "across"];
    const data = { "data-from": edge.from.id, "data-to": edge.to.id };
    const line = make("path", { d: path(edge), class: classes.join(" "), "marker-end": "url(#arrow)", ...data });
    line.append(make("title", {}, edge.labels.join("\n")));
    over.append(line);
    if (edge.routed && edge.legs.length === 1) {
      const [{ middle, within }] = edge.legs;
      const at = { x: middle[0] + within.left, y: middle[1] + within.top + 3, class: "type", "text-anchor": "middle" };
      over.append(make("text", at, label(edge)));
    }
  }
  camera.append(over);
  document.getElementById("camera").replaceWith(camera);
  move();
}

function move() {
  document.getElementById("camera").setAttribute("transform", `translate(${state.x} ${state.y}) scale(${state.scale})`);
}

function fit() {
  const { width, height } = svg.getBoundingClientRect();
  if (!width || !tree.root.width) return;
  state.scale = Math.min(1.25, (width - 40) / tree.root.width, (height - 40) / tree.root.height);
  state.scale = Math.max(state.scale, 0.35);
  state.x = Math.max(20, (width - tree.root.width * state.scale) / 2);
  state.y = 20;
  move();
}

// Asking.

function link(id) {
  const item = tree.byId.get(id);
  return html("a", { href: "#" + id, onclick: (e) => (e.preventDefault(), show(item)) }, item.name);
}

function row(name, ...values) {
  return values.length && values[0] !== "" && values[0] != null ? [html("dt", {}, name), html("dd", {}, ...values)] : [];
}

function between(ids) {
  return ids.flatMap((id, i) => (i ? [", ", link(id)] : [link(id)]));
}

function describe(item) {
  const facts = html("dl", {});
  if (item.children) {
    facts.append(...row("ops", grouped(item.leaves)), ...row("parameters", item.parameters ? grouped(item.parameters) : ""));
    facts.append(...row("alike", item.stacked ? `${item.stacked} layers` : ""));
  } else {
    const node = item.node;
    const reads = tree.edges.filter((e) => e.to === node.id && !e.next).map((e) => e.from);
    const readers = tree.edges.filter((e) => e.from === node.id && !e.next).map((e) => e.to);
    facts.append(
      ...row(node.types.length > 1 ? "results" : "type", node.types.join(", ")), ...row("op", node.kind === "op" ? node.op : ""),
      ...row("name", node.name), ...row("scope", node.scope.join(".")), ...row("stands for", node.origin),
      ...node.attrs.flatMap(([name, value]) => row(name, value)),
      ...row("reads", ...between(reads)), ...row("read by", ...between(readers)),
      ...row("parameters", node.parameters ? grouped(node.parameters) : ""), ...row("pinned", node.pin),
      ...row("spread", node.sharding), ...row("line", node.site), ...row("programs", node.programs.join(", ")),
    );
  }
  details.replaceChildren(html("h2", {}, item.name), facts);
  details.hidden = false;
}

function select(item) {
  state.selected = item;
  if (item) describe(item);
  else details.hidden = true;
  draw();
}

// Opens what hides an item, selects it, and brings it to the middle.
function show(item) {
  reveal(item);
  select(item);
  const { width, height } = svg.getBoundingClientRect();
  state.x = width / 2 - (item.left + item.width / 2) * state.scale;
  state.y = height / 2 - (item.top + item.height / 2) * state.scale;
  move();
}

// What was clicked stays where it is while all around it makes room.
function toggle(item) {
  const [x, y] = [item.left, item.top];
  item.open = !item.open;
  select(item);
  state.x -= (item.left - x) * state.scale;
  state.y -= (item.top - y) * state.scale;
  move();
}

function openAll(open) {
  const each = (item) => {
    if (!item.children) return;
    if (item.depth > 1) item.open = open;
    item.children.forEach(each);
  };
  each(tree.root);
  select(null);
  fit();
}

const search = document.getElementById("search");
const found = document.getElementById("found");
search.addEventListener("input", () => {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (i) => [i.id, i.name, i.node?.op, i.node?.name, i.node?.scope.join("."), i.node?.site].join(" ").toLowerCase();
  const hits = words.length ? [...tree.byId.values()].filter((i) => words.every((w) => text(i).includes(w))) : [];
  const entry = (item) => html("li", {}, link(item.id), " ", html("small", {}, item.node ? item.node.scope.join(".") : "group"));
  found.replaceChildren(...hits.slice(0, 40).map(entry));
  if (hits.length > 40) found.append(html("li", {}, `… and ${hits.length - 40} more`));
});
search.addEventListener("keydown", (e) => {
  if (e.key === "Enter") found.querySelector("a")?.click();
});
document.addEventListener("keydown", (e) => {
  const item = tree.byId.get(document.activeElement?.dataset?.id);
  if (e.key === "/" && document.activeElement !== search) {
    e.preventDefault();
    search.focus();
  } else if (e.key === "Escape") {
    search.value = "";
    found.replaceChildren();
    select(null);
  } else if (e.key === "Enter" && item) {
    if (item.children) toggle(item);
    else select(item);
    svg.querySelector(`[data-id="${CSS.escape(item.id)}"]`)?.focus();
  }
});

let drag = null;
svg.addEventListener("pointerdown", (e) => (drag = { x: e.clientX, y: e.clientY, moved: false }));
window.addEventListener("pointermove", (e) => {
  if (!drag) return;
  const [dx, dy] = [e.clientX - drag.x, e.clientY - drag.y];
  if (!drag.moved && Math.hypot(dx, dy) < 4) return;
  state.x += dx;
  state.y += dy;
  drag = { x: e.clientX, y: e.clientY, moved: true };
  move();
});
window.addEventListener("pointerup", (e) => {
  const clicked = drag && !drag.moved && svg.contains(e.target);
  drag = null;
  if (!clicked) return;
  const item = tree.byId.get(e.target.closest(".item")?.dataset.id);
  if (item?.children && item.depth > 1) toggle(item);
  else select(item?.children ? null : item || null);
});
svg.addEventListener("wheel", (e) => {
  // In a frame, as in a notebook, the wheel is the reader's way past the picture.
  if (window !== window.parent && !e.ctrlKey && !e.metaKey) return;
  e.preventDefault();
  const factor = Math.exp(-e.deltaY / 500);
  const { left, top } = svg.getBoundingClientRect();
  const [x, y] = [e.clientX - left, e.clientY - top];
  const scale = Math.min(3, Math.max(0.05, state.scale * factor));
  state.x = x - ((x - state.x) * scale) / state.scale;
  state.y = y - ((y - state.y) * scale) / state.scale;
  state.scale = scale;
  move();
}, { passive: false });

const choose = document.getElementById("colour");
const says = (of) => page.nodes.some(of);
for (const [name, there] of [["kind", true], ["op", true], ["device", says((n) => n.pin)], ["sharding", says((n) => n.sharding)]]) {
  if (there) choose.append(html("option", { value: name }, name));
}
choose.addEventListener("change", () => {
  state.colour = choose.value;
  draw();
});
document.getElementById("fit").addEventListener("click", fit);
document.getElementById("open").addEventListener("click", () => openAll(true));
document.getElementById("close").addEventListener("click", () => openAll(false));
window.addEventListener("resize", move);

draw();
fit();
if (location.hash === "#all") openAll(true);
else if (tree.byId.has(decodeURIComponent(location.hash.slice(1)))) show(tree.byId.get(decodeURIComponent(location.hash.slice(1))));
document.documentElement.dataset.ready = "yes";
