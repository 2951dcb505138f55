// Light, dark, or as the system has it. The choice is kept in this browser.
import { byId } from "./dom.js";

const CHOICES = {
  system: { next: "light", icon: "◐", label: "Colours: as the system has them" },
  light: { next: "dark", icon: "☀", label: "Colours: light" },
  dark: { next: "system", icon: "☾", label: "Colours: dark" },
};

function show(choice) {
  if (choice === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = choice;
  const button = byId("theme-button");
  button.textContent = CHOICES[choice].icon;
  button.setAttribute("aria-label", CHOICES[choice].label);
  button.title = CHOICES[choice].label;
  document.dispatchEvent(new CustomEvent("theme"));
}

export function startTheme() {
  let choice = localStorage.getItem("theme");
  if (!(choice in CHOICES)) choice = "system";
  show(choice);
  byId("theme-button").addEventListener("click", () => {
    choice = CHOICES[choice].next;
    localStorage.setItem("theme", choice);
    show(choice);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show(choice));
}

/** A colour of the style sheet, as it is now. */
export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
