// Elements without markup: text is set as text, so nothing that a request or a name contains becomes an element.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value);
  element.append(...children);
  return element;
}

/** An HTML element. Children are elements or texts. */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Change an attribute where it differs; null removes it. */
export function setAttribute(element, name, value) {
  if (value === null || value === undefined) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, value);
  }
}

/** Change the text where it differs: what is selected, or read aloud, stays. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Show or hide. */
export function setHidden(element, hidden) {
  if (element.hidden !== hidden) element.hidden = hidden;
}

export const byId = (id) => document.getElementById(id);

/** Children of one parent that stand for items with a key: made, changed, moved and removed as the items are. */
export class Keyed {
  /** *create* makes the element of a key; *update* gets it with each new item. */
  constructor(parent, create, update) {
    this.parent = parent;
    this.create = create;
    this.update = update;
    this.elements = new Map();
  }

  /** Show these [key, item] pairs, in this order. */
  show(pairs) {
    const wanted = new Set(pairs.map(([key]) => key));
    for (const [key, element] of this.elements) {
      if (!wanted.has(key)) {
        element.remove();
        this.elements.delete(key);
      }
    }
    let next = this.parent.firstChild;
    for (const [key, item] of pairs) {
      let element = this.elements.get(key);
      if (element === undefined) {
        element = this.create(item);
        this.elements.set(key, element);
      }
      if (element === next) next = next.nextSibling;
      else this.parent.insertBefore(element, next);
      this.update(element, item);
    }
  }
}
