"use strict";
// A dialogue's tree is parsed when the dialogue is unfolded, and a node's children are made when the node is: however large
// the search, the page holds little more than what is looked at. Texts only ever go through textContent.

// The order of a row's values as written by tree_page.py; a node that was not expanded has the first three.
const FIELDS = ["parent", "strategy", "prior", "mark", "q", "n", "gold", "end", "supporter", "seeker", "scores"];
const CRITERIA = { E: "Empathy", I: "Information", H: "Humanoid", S: "Strategy" };

function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

function readTree(text) {
  const { strategies, rows } = JSON.parse(text);
  const nodes = rows.map((row, id) => {
    const node = { id, children: [], expanded: row.length > 3 };
    FIELDS.forEach((field, i) => { node[field] = row[i]; });
    node.strategy = strategies[node.strategy];
    return node;
  });
  for (const node of nodes) if (node.parent !== null) nodes[node.parent].children.push(node);
  return nodes;
}

// Preferred last: unfolded, it is the conversation going on, and its siblings stand beside it instead of at the far end.
function order(a, b) {
  return (a.mark === "preferred") - (b.mark === "preferred") || b.n - a.n || b.prior - a.prior;
}

function said(speaker, source, text) {
  const line = make("p", `said ${speaker.toLowerCase()}`);
  const who = make("span", "who", speaker);
  who.append(" ", make("span", "source", source));
  line.append(who, make("span", "text", text));
  return line;
}

function utterances(node, players) {
  const source = node.gold || node.parent === null ? "corpus" : players;
  const lines = [];
  if (node.supporter) lines.push(said("Supporter", source, node.supporter));
  if (node.seeker) lines.push(said("Seeker", source, node.seeker));
  return lines;
}

function scores(node) {
  const line = make("p", "scores");
  if (!node.scores) line.append("Not judged.");
  for (const [key, value] of Object.entries(node.scores || {})) {
    const score = make("span", "", `${CRITERIA[key] || key} `);
    score.append(make("b", "", value));
    line.append(score);
  }
  return line;
}

function summary(node) {
  const line = make("summary");
  const title = make("span", "title");
  title.append(make("b", "", node.strategy), make("span", `mark ${node.mark.replace(" ", "-")}`, node.mark));
  if (node.gold) title.append(make("span", "tag", "corpus"));
  if (node.end) title.append(make("span", "tag", "end"));
  const numbers = make("span", "numbers");
  const unscored = node.mark === "not scored";
  for (const [name, value, long] of [
    ["P", node.prior.toFixed(2), "prior of the strategy among its siblings"],
    ["Q", unscored ? "–" : node.q.toFixed(2), "mean reward"],
    ["N", node.n, "visits"],
  ]) {
    const number = make("span", "", `${name} `);
    number.title = long;
    number.append(make("b", "", value));
    numbers.append(number);
  }
  numbers.append(make("span", "number", `#${node.id}`));
  line.append(title, numbers, make("span", "preview", node.supporter));
  return line;
}

function children(node, players) {
  const box = make("div", "children");
  const tried = node.children.filter((child) => child.expanded).sort(order);
  const rest = node.children.filter((child) => !child.expanded).sort((a, b) => b.prior - a.prior);
  if (rest.length) {
    const line = make("p", "untried", "Not expanded: ");
    line.append(...rest.map((child) => make("span", "", `${child.strategy} (P ${child.prior.toFixed(2)})`)));
    box.append(line);
  } else if (!tried.length) {
    box.append(make("p", "untried", node.end ? "The conversation ends here." : "Nothing was looked at beyond this turn."));
  }
  box.append(...tried.map((child) => folded(child, players)));
  return box;
}

function folded(node, players) {
  const details = make("details", `node ${node.mark.replace(" ", "-")}`);
  details.dataset.node = node.id;
  details.append(summary(node));
  details.fill = () => {
    details.fill = () => {};
    const body = make("div", "body");
    body.append(...utterances(node, players));
    if (node.scores || !node.gold) body.append(scores(node)); // turns of the corpus are never judged
    body.append(children(node, players));
    details.append(body);
  };
  details.node = node;
  details.addEventListener("toggle", () => { if (details.open) details.fill(); });
  return details;
}

function unfold(box, wanted) {
  for (const details of box.querySelectorAll(":scope > .children > .node")) {
    details.open = wanted(details.node);
    if (details.open) {
      details.fill();
      unfold(details.querySelector(":scope > .body"), wanted);
    } else {
      const body = details.querySelector(":scope > .body");
      if (body) unfold(body, wanted);
    }
  }
}

function setUp(dialogue) {
  const body = dialogue.querySelector(".body");
  const fill = () => {
    if (body.querySelector(".children")) return;
    const [root] = readTree(document.getElementById(dialogue.dataset.tree).textContent);
    body.append(...utterances(root, dialogue.dataset.players), children(root, dialogue.dataset.players));
  };
  dialogue.addEventListener("toggle", () => { if (dialogue.open) fill(); });
  const wanted = { preferred: (node) => node.mark === "preferred", gold: (node) => Boolean(node.gold), "": () => false };
  for (const button of dialogue.querySelectorAll("[data-unfold]")) {
    button.addEventListener("click", () => unfold(body, wanted[button.dataset.unfold]));
  }
}

document.querySelectorAll(".dialogue").forEach(setUp);
