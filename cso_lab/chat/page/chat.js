"use strict";
// The conversation lives in this page alone: closing it ends it.
const talk = document.getElementById("talk"), form = document.getElementById("ask"), message = document.getElementById("message");
const strategy = document.getElementById("strategy"), controls = ["send", "undo", "new"].map(id => document.getElementById(id));
let turns = [];     // {speaker, text, strategy}
let shown = [];     // for each message that was answered, the elements it and its reply are shown in
let busy = false;

function make(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function show(element) {
  talk.append(element);
  element.scrollIntoView({block: "nearest"});
  return element;
}

function said(kind, who, text) {
  const turn = make("section", `turn ${kind}`);
  turn.append(make("div", "who", who), make("p", "text", text));
  return turn;
}

function help(paragraphs) {
  const box = make("section", "turn help");
  box.setAttribute("role", "alert");
  box.append(...paragraphs.map(text => make("p", "", text)));
  return box;
}

const percent = value => `${(100 * value).toFixed(1)}%`;

function likely(reply) {
  const part = make("details", "likely"), table = make("table");
  part.open = true;
  part.append(make("summary", "", "What the model itself would open with"), table);
  for (const [name, value] of reply.probabilities) {
    const row = make("tr", name === reply.strategy ? "chosen" : ""), head = make("th", "", name), bar = make("td", "bar"), fill = make("span");
    head.scope = "row";
    fill.style.width = percent(value);
    bar.append(fill);
    row.append(head, make("td", "value", percent(value)), bar);
    table.append(row);
  }
  part.append(make("p", "", reply.shares));
  return part;
}

function answer(reply, forced, after) {
  const turn = said("supporter", "Model", reply.text || "(without words)");
  const by = forced ? "asked for by you" : reply.strategy ? "chosen by the model" : "it named none of them";
  turn.querySelector(".who").append(make("span", "mark preferred", reply.strategy || "no strategy"), make("span", "source", by));
  if (after) turn.prepend(make("p", "after", after));
  turn.append(likely(reply));
  return turn;
}

async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    yield* parts.map(JSON.parse);
  }
}

async function ask(text) {
  const asked = [...turns, {speaker: "seeker", text, strategy: null}], wanted = strategy.value || null;
  const parts = [show(said("seeker", "You", text))], wait = show(make("p", "thinking", "thinking ..."));
  let after = null, answered = false;
  try {
    const response = await fetch("/reply", {
      method: "POST",
      headers: {"Content-Type": "application/json"},
      body: JSON.stringify({turns: asked, strategy: wanted}),
    });
    if (!response.ok) throw new Error(await response.text());
    for await (const line of lines(response)) {
      if (line.help) {
        parts.push(help(line.help));
        wait.before(parts.at(-1));
        parts.at(-1).scrollIntoView({block: "start"});
        after = line.after_help;
      }
      if (line.error) throw new Error(line.error);
      if (line.reply) {
        for (const earlier of talk.querySelectorAll(".likely")) earlier.open = false;
        parts.push(answer(line.reply, wanted, after));
        talk.append(parts.at(-1));
        // The pointer to human help stays where it is seen.
        if (after) parts.at(-2).scrollIntoView({block: "start"});
        else parts.at(-1).scrollIntoView({block: "nearest"});
        turns = [...asked, {speaker: "supporter", text: line.reply.text, strategy: line.reply.strategy}];
        shown.push(parts);
        answered = true;
      }
    }
    if (!answered) throw new Error("the program gave no reply; its own window says why");
  } catch (error) {
    // A message without a reply is no part of the conversation; it goes back to where it was typed.
    parts[0].remove();
    show(make("p", "turn failed", `Not answered: ${error.message}`));
    message.value = text;
  }
  wait.remove();
}

async function send() {
  const text = message.value.trim();
  if (!text || busy) return;
  busy = true;
  controls.forEach(button => { button.disabled = true; });
  talk.querySelectorAll(".failed").forEach(element => element.remove());
  message.value = "";
  await ask(text);
  busy = false;
  controls.forEach(button => { button.disabled = false; });
  message.focus({preventScroll: true});
}

form.addEventListener("submit", event => { event.preventDefault(); send(); });
message.addEventListener("keydown", event => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
});
document.getElementById("undo").addEventListener("click", () => {
  (shown.pop() || []).forEach(element => element.remove());
  turns = turns.slice(0, -2);
});
document.getElementById("new").addEventListener("click", () => { turns = []; shown = []; talk.replaceChildren(); });
