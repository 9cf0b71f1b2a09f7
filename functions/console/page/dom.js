// Elements and dialogs. Text is only ever set as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

// Characters that are not seen, or turn the direction of what follows: in a file's name they could deceive.
const UNSEEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;
const visible = (text) => text.replace(UNSEEN, (each) => `\\u{${each.codePointAt(0).toString(16)}}`);

/** Return an element. `properties`: attributes; `on…` are listeners, `data` and `style` are mappings. */
export function el(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** Return an SVG element, in the same way. */
export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    // The content security policy forbids the attribute, and not the property.
    else if (name === "style")
      for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(
    ...children
      .flat(Infinity)
      .filter(isShown)
      .map((child) => (child.nodeType ? child : visible(String(child)))),
  );
  return element;
}

const isShown = (child) => child !== null && child !== undefined && child !== false && child !== "";

/** Let an element contain these children; those that it has already stay, with their focus and their listeners. */
export function fill(element, ...children) {
  const next = [...el("div", {}, ...children).childNodes];
  next.forEach((node, index) => {
    const present = element.childNodes[index];
    if (!present) element.append(node);
    else if (!present.isEqualNode(node)) present.replaceWith(node);
  });
  while (element.childNodes.length > next.length) element.lastChild.remove();
}

let ids = 0;

/** Return a label and its control, which gets an id; `hint` is read with it. */
export function field(label, control, hint) {
  control.id ||= `field-${++ids}`;
  const help = hint ? el("p", { class: "hint", id: `${control.id}-hint` }, hint) : null;
  if (help) control.setAttribute("aria-describedby", help.id);
  return el("div", { class: "field" }, el("label", { for: control.id }, label), control, help);
}

export function select(options, value, properties = {}) {
  const items = options.map(([key, text]) => el("option", { value: key, selected: key === value }, text));
  return el("select", properties, items);
}

export function panel(title, ...children) {
  const id = `panel-${++ids}`;
  return el("section", { class: "panel", "aria-labelledby": id }, el("h2", { id }, title), ...children);
}

/** Return a message. kind: "bad", "good", or "" for a warning. */
export const banner = (kind, ...text) => el("p", { class: `banner ${kind}` }, ...text);

const busy = new WeakSet();

/** Do what a button is for, once at a time; what goes wrong is said in `status`. */
export async function act(button, status, action) {
  if (busy.has(button)) return;
  busy.add(button);
  // One in a table would be replaced at the next update, and lose the focus.
  const isAlone = !button.closest("table");
  if (isAlone) button.disabled = true;
  status.replaceChildren();
  try {
    await action();
  } catch (error) {
    status.replaceChildren(banner("bad", error.message));
  } finally {
    busy.delete(button);
    if (isAlone) button.disabled = false;
    keepFocus(button, status);
  }
}

/** Where the focus was lost, with what was disabled or removed, give it back, or to what is said. */
function keepFocus(button, status) {
  if (document.activeElement !== document.body) return;
  status.tabIndex = -1;
  const isThere = button.isConnected && !button.disabled && button.checkVisibility();
  (isThere ? button : status).focus({ preventScroll: true });
}

/**
 * Ask for a confirmation, perhaps with fields; resolve to their values, or to null. `submit` is given the values,
 * and what it resolves to is the answer; while it fails, the dialog stays open and says why.
 */
export function ask({ title, text = [], fields = {}, action, danger = false, submit = (values) => values }) {
  return new Promise((resolve) => {
    const id = `dialog-${++ids}`;
    const controls = Object.values(fields);
    const close = el("button", { type: "button", onclick: () => dialog.close() }, "Go back");
    const go = el("button", { class: danger ? "danger" : "main" }, action);
    const problem = el("div", { role: "alert" });
    const form = el(
      "form",
      {},
      el("h2", { id }, title),
      ...text,
      controls.map(({ label, control, hint }) => field(label, control, hint)),
      problem,
      el("div", { class: "buttons" }, close, go),
    );
    const dialog = el("dialog", { "aria-labelledby": id }, form);
    let answer = null;
    // What is being done would be done, and nobody would see the answer.
    dialog.addEventListener("cancel", (event) => go.disabled && event.preventDefault());
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (go.disabled) return;
      go.disabled = close.disabled = true;
      try {
        answer = await submit(
          Object.fromEntries(Object.entries(fields).map(([name, { control }]) => [name, control.value])),
        );
        dialog.close();
      } catch (error) {
        problem.replaceChildren(banner("bad", error.message));
        go.disabled = close.disabled = false;
        go.focus();
      }
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Close whatever asks for something, as if the user had gone back. */
export function closeDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
}

/** Let the browser keep a text as a file: what it contains is not shown here, and runs nothing here. */
export function download(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}
