"use strict";
const dialogues = [...document.querySelectorAll(".dialogue")];
if (dialogues.length === 1) dialogues[0].open = true;

document.getElementById("filter").addEventListener("input", (event) => {
  const word = event.target.value.trim().toLowerCase();
  for (const dialogue of dialogues) {
    const texts = [".id", ".scene", ".description"].map((part) => dialogue.querySelector(part).textContent);
    dialogue.hidden = !texts.join(" ").toLowerCase().includes(word);
  }
  const left = dialogues.filter((dialogue) => !dialogue.hidden).length;
  document.getElementById("shown").textContent = word ? `${left} of ${dialogues.length}` : "";
});
