"use strict";
// Runs before anything is shown. The reader's choice is kept where the browser lets a page from disk keep anything.
{
  const root = document.documentElement;
  try { root.dataset.theme = localStorage.getItem("theme") || ""; } catch { root.dataset.theme = ""; }
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    button.hidden = false;
    button.addEventListener("click", () => {
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      try { localStorage.setItem("theme", root.dataset.theme); } catch { /* the choice lasts as long as the page */ }
      document.dispatchEvent(new Event("theme"));
    });
  });
}
