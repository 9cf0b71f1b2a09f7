// Elements and dialogs. Text is only ever set as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

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
    else if (name === "value" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/** Replace what an element contains, unless it is the same: what is focused or selected in it stays. */
export function fill(element, ...children) {
  const next = el("div", {}, ...children);
  const same =
    element.childNodes.length === next.childNodes.length &&
    [...next.childNodes].every((node, index) => node.isEqualNode(element.childNodes[index]));
  if (!same) element.replaceChildren(...next.childNodes);
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

/** Ask for a confirmation, perhaps with fields; resolve to their values, or to null. */
export function ask({ title, text = [], fields = {}, action, danger = false }) {
  return new Promise((resolve) => {
    const controls = Object.values(fields);
    const id = `dialog-${++ids}`;
    const dialog = el(
      "dialog",
      { "aria-labelledby": id },
      el(
        "form",
        { method: "dialog" },
        el("h2", { id }, title),
        ...text,
        controls.map(({ label, control, hint }) => field(label, control, hint)),
        el(
          "div",
          { class: "buttons" },
          el("button", { type: "button", onclick: () => dialog.close("") }, "Close"),
          el("button", { value: "yes", class: danger ? "danger" : "main" }, action),
        ),
      ),
    );
    dialog.addEventListener("close", () => {
      const values = Object.fromEntries(
        Object.entries(fields).map(([name, { control }]) => [name, control.value]),
      );
      dialog.remove();
      resolve(dialog.returnValue === "yes" ? values : null);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
