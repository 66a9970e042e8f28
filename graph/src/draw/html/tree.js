// What is drawn, without drawing it: scopes as a tree of groups that are open or closed, and for any such state which edges
// are seen between what is seen. Knows nothing of pages, sizes or places, so that it runs anywhere.
"use strict";

// The lanes of a picture: what is computed forward, its gradients as a mirror beside it, and what becomes of variables.
const LANES = ["forward", "backward", "update"];

// Boxes of a lane that are seen before anybody opens one.
const MOST_AT_FIRST = 24;

function makeTree(page) {
  const root = { id: "root", name: page.title, children: [], open: true, parent: null, depth: 0 };
  const byId = new Map();
  const group = (parent, name, id) => {
    let found = parent.children.find((c) => c.id === id);
    if (!found) {
      found = { id, name, children: [], open: false, parent, depth: parent.depth + 1 };
      parent.children.push(found);
      byId.set(id, found);
    }
    return found;
  };
  for (const lane of LANES) {
    const nodes = page.nodes.filter((n) => n.lane === lane);
    if (nodes.length === 0) continue;
    const top = group(root, lane, lane);
    top.lane = lane;
    top.open = true;
    for (const node of nodes) {
      let at = top;
      let path = lane;
      for (const name of node.scope) {
        path += "/" + name;
        at = group(at, name, path);
      }
      const leaf = { id: node.id, name: node.label, node, parent: at, depth: at.depth + 1 };
      at.children.push(leaf);
      byId.set(leaf.id, leaf);
    }
  }
  const count = (item) => {
    item.leaves = item.children ? item.children.reduce((sum, c) => sum + count(c), 0) : 1;
    item.parameters = item.children ? item.children.reduce((sum, c) => sum + c.parameters, 0) : item.node.parameters;
    return item.leaves;
  };
  count(root);
  stack(root, byId);
  root.children.filter((c) => c.lane !== "update").forEach(openAtFirst);
  return { root, byId, edges: page.edges };
}

// Opens of a lane what a person takes in at a glance: the outermost groups first, as long as there are few boxes.
function openAtFirst(lane) {
  let boxes = lane.children.length;
  let groups = lane.children.filter((c) => c.children && !c.stacked);
  while (groups.length) {
    const next = [];
    for (const group of groups) {
      if (boxes + group.children.length > MOST_AT_FIRST) continue;
      group.open = true;
      boxes += group.children.length;
      next.push(...group.children.filter((c) => c.children && !c.stacked));
    }
    groups = next;
  }
}

// What a group is made of, whatever it is called: equal for layers that are alike.
function signature(item) {
  if (!item.children) return item.node.kind + " " + item.node.op + " " + item.node.types.join(",");
  return "(" + item.children.map(signature).join(";") + ")";
}

// Three and more alike groups whose names count up (`h0`, `h1`, …) become one that holds them: `h0 … h11`.
function stack(item, byId) {
  if (!item.children) return;
  item.children.forEach((child) => stack(child, byId));
  const out = [];
  let run = [];
  const number = (c) => /^(.*?)(\d+)$/.exec(c.name);
  const close = () => {
    if (run.length < 3) {
      out.push(...run);
    } else {
      const [first, last] = [run[0], run[run.length - 1]];
      const stacked = {
        id: first.id + "…" + last.name, name: first.name + " … " + last.name, children: run, open: false, parent: item,
        depth: item.depth + 1, stacked: run.length, leaves: run.reduce((n, c) => n + c.leaves, 0),
        parameters: run.reduce((n, c) => n + c.parameters, 0),
      };
      const deeper = (c) => {
        c.depth += 1;
        (c.children || []).forEach(deeper);
      };
      run.forEach((c) => {
        c.parent = stacked;
        deeper(c);
      });
      byId.set(stacked.id, stacked);
      out.push(stacked);
    }
    run = [];
  };
  for (const child of item.children) {
    const [now, before] = [child.children && number(child), run.length && number(run[run.length - 1])];
    const follows = now && before && now[1] === before[1] && +now[2] === +before[2] + 1;
    if (!(follows && signature(child) === signature(run[0]))) close();
    if (now) run.push(child);
    else out.push(child);
  }
  close();
  item.children = out;
}

// What stands for an item: the outermost closed group around it, or itself.
function seen(item) {
  let shown = item;
  for (let at = item.parent; at; at = at.parent) if (!at.open) shown = at;
  return shown;
}

function ancestors(item) {
  const path = [];
  for (let at = item; at; at = at.parent) path.push(at);
  return path.reverse();
}

// The edges between what is seen. Several tensors between the same two are one edge. An edge has a leg in every group that it
// crosses: out of those around where it begins, through the innermost that holds both ends, into those around where it ends. A leg
// goes from child to child of its group; where it comes in or goes out, there is no child on that side.
function seenEdges(tree) {
  const edges = new Map();
  for (const edge of tree.edges) {
    const [from, to] = [seen(tree.byId.get(edge.from)), seen(tree.byId.get(edge.to))];
    if (from === to) continue;
    const key = from.id + "→" + to.id + (edge.next ? "!" : "");
    const known = edges.get(key);
    if (known) {
      known.labels.push(edge.label);
      continue;
    }
    const [a, b] = [ancestors(from), ancestors(to)];
    let k = 0;
    while (a[k] === b[k]) k += 1;
    const legs = [{ within: a[k - 1], a: a[k], b: b[k] }];
    for (let i = k; i + 1 < a.length; i += 1) legs.unshift({ within: a[i], a: a[i + 1], b: null });
    for (let i = k; i + 1 < b.length; i += 1) legs.push({ within: b[i], a: null, b: b[i + 1] });
    const crossesLanes = a[k - 1] === tree.root;
    edges.set(key, { from, to, legs, routed: !edge.next && !crossesLanes, next: edge.next, labels: [edge.label] });
  }
  return [...edges.values()];
}

// Opens whatever hides an item.
function reveal(item) {
  for (let at = item.parent; at; at = at.parent) at.open = true;
}

if (typeof module !== "undefined") module.exports = { makeTree, seen, seenEdges, reveal };
