"use strict";
// The test turns side by side and the whole dialogues. Texts only ever go through textContent.
const TURNS_A_PAGE = 8;
const HISTORY_SHOWN = 3;

function parsed(id) {
  const element = document.getElementById(id);
  return element && JSON.parse(element.textContent);
}

const turnData = parsed("turn-data");
const searched = parsed("dialogue-data");
let first = 0;

function columns() {
  return [...document.querySelectorAll("#turn-tools .column")].map((column) => ({
    cell: Number(column.querySelector(".cell").value),
    verdict: column.querySelector(".verdict").value,
  }));
}

function verdict(turn, reply) {
  if (!reply) return "none";
  return reply[0] === -1 ? "unparsed" : reply[0] === turnData.turns[turn][2] ? "right" : "wrong";
}

function matching(shown) {
  const strategy = document.getElementById("turn-strategy").value;
  const word = document.getElementById("turn-word").value.trim().toLowerCase();
  return turnData.turns.map((_, turn) => turn).filter((turn) => {
    const [dialogue, , gold, text] = turnData.turns[turn];
    if (strategy !== "" && gold !== Number(strategy)) return false;
    const replies = shown.map(({ cell }) => turnData.replies[cell][turn]);
    if (!shown.every((column, i) => {
      const found = verdict(turn, replies[i]);
      return !column.verdict || column.verdict === found || (column.verdict === "wrong" && found === "unparsed");
    })) return false;
    if (!word) return true;
    const { id, scene, description } = turnData.dialogues[dialogue];
    return [id, scene, description, text, ...replies.map((reply) => reply?.[1])].join(" ").toLowerCase().includes(word);
  });
}

function strategyName(place) {
  return place === -1 ? "no known strategy" : turnData.strategies[place];
}

function utterance([, speaker, strategy, text, emotion]) {
  const name = speaker === "seeker" ? "Seeker" : "Supporter";
  return said(name, strategy === null || strategy === undefined ? emotion || "" : strategyName(strategy), text);
}

function history(turn) {
  const [dialogue, position] = turnData.turns[turn];
  const before = turnData.dialogues[dialogue].turns.filter(([place]) => place < position);
  const box = make("div", "history");
  const earlier = before.slice(0, -HISTORY_SHOWN);
  if (earlier.length) {
    const folded = make("details");
    folded.append(make("summary", "", `${earlier.length} earlier utterances`), ...earlier.map(utterance));
    box.append(folded);
  }
  box.append(...before.slice(-HISTORY_SHOWN).map(utterance));
  return box;
}

function replyBox(title, kind, strategy, text, word) {
  const box = make("div", `reply ${kind}`);
  const head = make("h4", "", title);
  const choice = make("p");
  choice.append(make("b", "", strategy));
  if (word) choice.append(" ", make("span", word === "right" ? "right" : "wrong-word", word));
  box.append(head, choice, make("p", "text", text));
  return box;
}

function turnCard(turn, shown) {
  const [dialogue, position, gold, text] = turnData.turns[turn];
  const { id, scene } = turnData.dialogues[dialogue];
  const card = make("article", "turn");
  card.append(make("h3", "", [id, `turn ${position}`, scene].filter(Boolean).join(" · ")), history(turn));
  const replies = make("div", "replies");
  replies.append(replyBox("gold", "gold", strategyName(gold), text));
  for (const { cell } of shown) {
    const reply = turnData.replies[cell][turn];
    const found = verdict(turn, reply);
    replies.append(reply
      ? replyBox(turnData.cells[cell].name, found, strategyName(reply[0]), reply[1], found)
      : replyBox(turnData.cells[cell].name, "", "no prediction of this turn", ""));
  }
  card.append(replies);
  return card;
}

function showTurns() {
  const shown = columns();
  const found = matching(shown);
  first = Math.max(0, Math.min(first, found.length - 1));
  first -= first % TURNS_A_PAGE;
  const part = found.slice(first, first + TURNS_A_PAGE);
  document.getElementById("turn-list").replaceChildren(...part.map((turn) => turnCard(turn, shown)));
  document.getElementById("turns-shown").textContent = part.length
    ? `${first + 1} to ${first + part.length} of ${found.length}` : "no turn is like that";
  document.getElementById("turns-back").disabled = first === 0;
  document.getElementById("turns-on").disabled = first + TURNS_A_PAGE >= found.length;
}

function table(headers, rows) {
  const body = make("tbody");
  for (const cells of rows) {
    const row = make("tr");
    row.append(...cells.map((cell) => (cell instanceof Node ? cell : make("td", "", cell ?? ""))));
    body.append(row);
  }
  const head = make("tr");
  head.append(...headers.map((header) => make("th", "", header)));
  const whole = make("table", "whole");
  whole.append(make("thead"), body);
  whole.tHead.append(head);
  const box = make("div", "wide");
  box.append(whole);
  return box;
}

function background({ id, scene, description, notice }) {
  const lines = [make("h3", "", id)];
  if (notice) lines.push(make("p", "notice", `${notice[0].toUpperCase()}${notice.slice(1)}.`));
  if (scene) lines.push(make("p", "", `Scene: ${scene}`));
  if (description) lines.push(make("p", "description", description));
  return lines;
}

function searchedDialogue(dialogue) {
  const rows = dialogue.turns.map(([speaker, strategy, text, source, q, given]) => [
    speaker === "seeker" ? "Seeker" : "Supporter", strategy || "", text, source, q === null ? "" : q.toFixed(2),
    ...Object.keys(CRITERIA).map((key) => given?.[key] ?? (speaker === "seeker" ? "" : "–")),
  ]);
  return table(["Role", "Strategy", "Utterance", "from", "Q", ...Object.values(CRITERIA)], rows);
}

function testDialogue(place) {
  const shown = columns();
  const at = new Map(turnData.turns.map((turn, number) => [turn, number]).filter(([turn]) => turn[0] === place).map(([turn, number]) => [turn[1], number]));
  const rows = turnData.dialogues[place].turns.map(([position, speaker, strategy, text, emotion]) => [
    speaker === "seeker" ? "Seeker" : "Supporter",
    strategy === null || strategy === undefined ? emotion || "" : strategyName(strategy),
    text,
    ...shown.map(({ cell }) => chosen(at.get(position), cell)),
  ]);
  return table(["Role", "Emotion / strategy", "Utterance", ...shown.map(({ cell }) => turnData.cells[cell].name)], rows);
}

function chosen(turn, cell) {
  const reply = turn === undefined ? undefined : turnData.replies[cell][turn];
  if (!reply) return "";
  const found = verdict(turn, reply);
  const field = make("td");
  field.append(make("span", found === "right" ? "right" : "", strategyName(reply[0])), ` ${found === "right" ? "(right)" : ""}`);
  return field;
}

function showDialogue() {
  const [kind, place] = document.getElementById("dialogue-choice").value.split(" ");
  const dialogue = (kind === "searched" ? searched : turnData.dialogues)[place];
  const box = document.getElementById("dialogue-shown");
  box.replaceChildren(...background(dialogue), kind === "searched" ? searchedDialogue(dialogue) : testDialogue(Number(place)));
}

if (turnData) {
  const tools = document.getElementById("turn-tools");
  const changed = () => { first = 0; showTurns(); if (searched) showDialogue(); };
  tools.addEventListener("change", changed);
  document.getElementById("turn-word").addEventListener("input", changed);
  document.getElementById("turns-back").addEventListener("click", () => { first -= TURNS_A_PAGE; showTurns(); });
  document.getElementById("turns-on").addEventListener("click", () => { first += TURNS_A_PAGE; showTurns(); });
  showTurns();
}
if (searched) {
  const choice = document.getElementById("dialogue-choice");
  const group = (name, kind, dialogues) => {
    if (!dialogues.length) return;
    const box = make("optgroup");
    box.label = name;
    dialogues.forEach((dialogue, place) => box.append(new Option([dialogue.id, dialogue.scene].filter(Boolean).join(" · "), `${kind} ${place}`)));
    choice.append(box);
  };
  group("Searched dialogues", "searched", searched);
  group("Test dialogues", "test", turnData ? turnData.dialogues : []);
  choice.addEventListener("change", showDialogue);
  showDialogue();
}
