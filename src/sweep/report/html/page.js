
"use strict";
// Opens what a link leads to, even if it is closed or filtered out.
const reveal = () => {
  const target = document.getElementById(location.hash.slice(1));
  if (target && target.matches(".finding")) {
    target.hidden = false;
    document.getElementById("show-" + target.classList[1]).checked = true;
  }
  for (let part = target; part; part = part.parentElement) {
    if (part.tagName === "DETAILS") part.open = true;
  }
  for (const cell of document.querySelectorAll(".cell:popover-open")) cell.hidePopover();
  if (target) target.scrollIntoView({ block: "center" });
};
addEventListener("hashchange", reveal);
for (const link of document.querySelectorAll('a[href^="#"]')) {
  link.addEventListener("click", () => setTimeout(reveal));
}
if (location.hash) reveal();

for (const command of document.querySelectorAll(".command")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    const code = command.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  command.append(button);
}

const search = document.getElementById("search");
if (search) {
  search.hidden = false;
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/);
    for (const finding of document.querySelectorAll(".finding")) {
      const text = finding.textContent.toLowerCase();
      finding.hidden = !words.every((word) => text.includes(word));
    }
  });
}
