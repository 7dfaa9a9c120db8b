"use strict";
const all = (selector) => Array.from(document.querySelectorAll(selector));
const over = document.getElementById("over");
const legend = document.getElementById("legend");
const atRest = legend ? legend.textContent : "";

// One object at a time: its layer on the picture, its facts, its maps.
function choose(key) {
  for (const element of all("[data-object]")) element.classList.toggle("away", element.dataset.object !== key);
  for (const button of all("[data-choose]")) button.setAttribute("aria-pressed", String(button.dataset.choose === key));
  rest();
}

// One part at a time: its map lies over the picture, its dot and its bars stand out.
function show(key) {
  for (const element of all("[data-part]")) element.classList.toggle("on", element.dataset.part === key);
  const map = document.querySelector(`button[data-part="${key}"] img`);
  over.src = map.src;
  over.classList.remove("away");
  legend.textContent = map.alt;
}

function rest() {
  for (const element of all(".on")) element.classList.remove("on");
  over.classList.add("away");
  legend.textContent = atRest;
}

for (const button of all("[data-choose]")) button.addEventListener("click", () => choose(button.dataset.choose));
for (const element of all("[data-part]")) {
  element.addEventListener("pointerenter", () => show(element.dataset.part));
  element.addEventListener("pointerleave", rest);
  element.addEventListener("focus", () => show(element.dataset.part));
  element.addEventListener("blur", rest);
}
const first = document.querySelector("[data-choose]");
if (first) choose(first.dataset.choose);
