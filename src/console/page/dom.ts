/** What an element is given: an attribute's value, true for a bare attribute, or a listener under the name of its event. */
type Attribute = string | number | boolean | null | undefined | ((event: never) => unknown);
export type Child = Node | string | number | null | undefined | false;

/**
 * An element. Text only ever becomes text: there is no way in for markup, because what spans say is nobody's word but
 * their writers'. (The page's policy refuses it as well.)
 */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, Attribute> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for what is drawn. */
export function svg<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Record<string, Attribute> = {},
  ...children: Child[]
): SVGElementTagNameMap[K] {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

function fill<E extends Element>(element: E, attributes: Record<string, Attribute>, children: Child[]): E {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(name, value as (event: Event) => unknown);
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? '' : String(value));
    }
  }
  element.append(...present(children));
  return element;
}

/** What is filled in, under its label. */
export function field(label: string, control: HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement): HTMLElement {
  control.id = `field-${control.name}`;
  return h('div', { class: 'field' }, h('label', { for: control.id }, label), control);
}

/** Put these in the place of all that an element holds. */
export function put(element: Element, ...children: Child[]): void {
  element.replaceChildren(...present(children));
}

function present(children: Child[]): (Node | string)[] {
  return children.flatMap((child) => (child === null || child === undefined || child === false ? [] : [asNode(child)]));
}

function asNode(child: Node | string | number): Node | string {
  return typeof child === 'number' ? String(child) : child;
}
