"use strict";
// Conversations side by side by seeker. The data are read when the section comes near the window, and a seeker's conversations are made
// when it is unfolded, so that many of them cost little. Texts only ever go through textContent.
const SEEKERS_A_PAGE = 10;

const talks = { data: null, first: 0, unfolded: new Set() };

function drawn(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function share(intensity) {
  const [low, high] = talks.data.scale;
  return (intensity - low) / (high - low);
}

function chosenCells() {
  return [...document.querySelectorAll("#seeker-tools .column")].map((column) => ({
    cell: Number(column.querySelector(".cell").value),
    ending: column.querySelector(".ending").value,
  }));
}

function talkOf(cell, seeker) {
  return talks.data.held[cell][seeker];
}

function matchingSeekers(shown) {
  const value = (id) => document.getElementById(id).value;
  const persona = value("seeker-persona");
  const strategy = value("seeker-strategy");
  const word = value("seeker-word").trim().toLowerCase();
  const harmful = document.getElementById("seeker-harm").checked;
  return talks.data.seekers.map((_, seeker) => seeker).filter((seeker) => {
    const card = talks.data.seekers[seeker];
    if (persona && card.persona !== persona) return false;
    const held = shown.map(({ cell }) => talkOf(cell, seeker));
    if (!held.some(Boolean)) return false;
    if (!shown.every(({ ending }, i) => !ending || held[i]?.[0] === ending)) return false;
    const turns = held.flatMap((talk) => (talk ? talk[2] : []));
    if (strategy !== "" && !turns.some((turn) => turn[0] === Number(strategy))) return false;
    if (harmful && !turns.some((turn) => turn[4].length)) return false;
    if (!word) return true;
    const texts = [card.card, card.scene, card.description, card.opening, ...turns.flatMap((turn) => [turn[1], turn[2]])];
    return texts.join(" ").toLowerCase().includes(word);
  });
}

function endingText([ending, cutBy, turns]) {
  const many = `${turns.length} turn${turns.length === 1 ? "" : "s"}`;
  if (ending === "out_of_turns") return `not relieved in ${many}`;
  if (ending === "cut") return `cut after ${many}: the ${cutBy} had no words${cutBy === "seeker" ? ", so it counts nowhere" : ""}`;
  return `${ending} after ${many}`;
}

function badge(talk) {
  const tone = { relieved: "right", hurt: "wrong-word" }[talk[0]] || "";
  return make("b", `ending ${tone}`, endingText(talk));
}

// The whole course of a conversation at a glance, as wide as the longest one shown would be.
function sparkline(start, turns, threshold) {
  const step = 100 / talks.data.longest;
  const points = [start, ...turns.map((turn) => turn[3])].map((intensity, turn) => `${turn * step},${20 - 20 * share(intensity)}`);
  const picture = drawn("svg", { class: "sparkline", viewBox: "0 -1 100 22", preserveAspectRatio: "none", "aria-hidden": "true" });
  const level = 20 - 20 * share(threshold);
  picture.append(drawn("line", { class: "threshold", x1: 0, y1: level, x2: 100, y2: level }), drawn("polyline", { points: points.join(" ") }));
  return picture;
}

// A strip beside a turn, and its number: from the intensity before it (top) to that after it (bottom); strips of turns join into one curve.
function strip(before, after, threshold) {
  const box = make("div", "strip");
  const picture = drawn("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  const [top, bottom, level] = [before, after, threshold].map((intensity) => 100 * share(intensity));
  picture.append(
    drawn("polygon", { points: `0,0 ${top},0 ${bottom},100 0,100` }),
    drawn("line", { class: "threshold", x1: level, y1: 0, x2: level, y2: 100 }),
    drawn("line", { class: "course", x1: top, y1: 0, x2: bottom, y2: 100 }),
  );
  box.append(picture);
  return [box, make("span", "intensity", after.toFixed(1))];
}

function row(words, ...intensities) {
  const box = make("div", "exchange");
  box.append(words, ...strip(...intensities));
  return box;
}

function spoken(name, strategy, text, more = []) {
  const line = make("p", `spoken ${name.toLowerCase()}`);
  line.append(make("span", "who", name));
  if (strategy) line.append(" ", make("b", "", strategy));
  line.append(...more.flatMap((part) => [" ", part]), make("span", "text", text));
  return line;
}

function exchangeRow([strategy, text, answer, intensity, harm, scores], before, threshold) {
  const words = make("div", "words");
  const marks = harm.map((kind) => make("span", "mark dispreferred", `harmful: ${kind}`));
  if (scores) marks.push(make("span", "judged", talks.data.criteria.map((name, i) => `${name} ${scores[i]}`).join(" ")));
  words.append(spoken("Supporter", strategy === -1 ? "no known strategy" : talks.data.strategies[strategy], text, marks));
  if (answer !== null) words.append(spoken("Seeker", "", answer));
  return row(words, before, intensity, threshold);
}

function talkBox(cell, seeker, rows) {
  const box = make("article", "talk");
  box.style.gridRow = `span ${rows}`;
  box.append(make("h4", "", talks.data.cells[cell]));
  const talk = talkOf(cell, seeker);
  if (!talk) {
    box.append(make("p", "", "no conversation with this seeker"));
    return box;
  }
  const card = talks.data.seekers[seeker];
  const opening = make("div", "words");
  opening.append(spoken("Seeker", "", card.opening));
  const threshold = talks.data.thresholds[cell];
  box.append(row(opening, card.intensity, card.intensity, threshold));
  let before = card.intensity;
  for (const turn of talk[2]) {
    box.append(exchangeRow(turn, before, threshold));
    before = turn[3];
  }
  const end = make("p");
  end.append(badge(talk));
  box.append(end);
  return box;
}

function seekerBody(seeker, shown) {
  const body = make("div", "body");
  body.append(make("p", "description", talks.data.seekers[seeker].description));
  const sides = make("div", "sides");
  const longest = Math.max(...shown.map(({ cell }) => talkOf(cell, seeker)?.[2].length || 0));
  sides.append(...shown.map(({ cell }) => talkBox(cell, seeker, longest + 3)));
  body.append(sides);
  return body;
}

function seekerItem(seeker, shown) {
  const card = talks.data.seekers[seeker];
  const item = make("details", "dialogue seeker-item");
  const head = make("summary");
  head.append(make("b", "", `Seeker ${card.number}`), " ", make("span", "mark", card.persona), make("span", "scene", card.scene));
  const courses = make("span", "courses");
  for (const { cell } of shown) {
    const course = make("span", "course");
    const talk = talkOf(cell, seeker);
    course.append(make("span", "cell-name", talks.data.cells[cell]), " ");
    course.append(...(talk ? [sparkline(card.intensity, talk[2], talks.data.thresholds[cell]), " ", badge(talk)] : ["no conversation"]));
    courses.append(course);
  }
  head.append(courses);
  item.append(head);
  item.addEventListener("toggle", () => {
    talks.unfolded[item.open ? "add" : "delete"](seeker);
    if (item.open && !item.querySelector(".body")) item.append(seekerBody(seeker, shown));
  });
  if (talks.unfolded.has(seeker)) {
    item.append(seekerBody(seeker, shown));
    item.open = true;
  }
  return item;
}

function showSeekers() {
  const shown = chosenCells();
  const matching = matchingSeekers(shown);
  talks.first = Math.max(0, Math.min(talks.first, matching.length - 1));
  talks.first -= talks.first % SEEKERS_A_PAGE;
  const part = matching.slice(talks.first, talks.first + SEEKERS_A_PAGE);
  document.getElementById("seeker-list").replaceChildren(...part.map((seeker) => seekerItem(seeker, shown)));
  document.getElementById("seekers-shown").textContent = part.length
    ? `${talks.first + 1} to ${talks.first + part.length} of ${matching.length}` : "no seeker is like that";
  document.getElementById("seekers-back").disabled = talks.first === 0;
  document.getElementById("seekers-on").disabled = talks.first + SEEKERS_A_PAGE >= matching.length;
}

function startSeekers() {
  if (talks.data) return;
  talks.data = parsed("seeker-data");
  talks.unfolded.add(0);
  const turned = (by) => () => { talks.first += by; showSeekers(); };
  const changed = () => { talks.first = 0; showSeekers(); };
  document.getElementById("seeker-tools").addEventListener("change", changed);
  document.getElementById("seeker-word").addEventListener("input", changed);
  document.getElementById("seekers-back").addEventListener("click", turned(-SEEKERS_A_PAGE));
  document.getElementById("seekers-on").addEventListener("click", turned(SEEKERS_A_PAGE));
  showSeekers();
}

{
  const list = document.getElementById("seeker-list");
  if (list) {
    const nearby = new IntersectionObserver((entries) => {
      if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
      nearby.disconnect();
      startSeekers();
    }, { rootMargin: "500px" });
    nearby.observe(list);
    addEventListener("beforeprint", startSeekers);
  }
}
