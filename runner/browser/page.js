// What commands do inside a page. Runs in an isolated world: the page's scripts can't see or change it.
// An expression: an object of functions; those about an element get it as `this`.
({
  // The first visible element that matches, else the first at all; open shadow roots are searched too.
  find(kind, what) {
    const found = kind === 'text' ? this.withText(what) : this.matching(what);
    return found.find((element) => this.isVisible(element)) ?? found[0] ?? null;
  },

  roots() {
    const roots = [document];
    for (let index = 0; index < roots.length; index++) {
      const walker = document.createTreeWalker(roots[index], NodeFilter.SHOW_ELEMENT);
      while (walker.nextNode()) if (walker.currentNode.shadowRoot) roots.push(walker.currentNode.shadowRoot);
    }
    return roots;
  },

  matching(selector) {
    return this.roots().flatMap((root) => [...root.querySelectorAll(selector)]);
  },

  // The innermost elements with this text; those that say exactly this and nothing else come first.
  withText(text) {
    const plain = (said) => (said ?? '').replace(/\s+/g, ' ').trim().toLowerCase();
    const wanted = plain(text);
    const says = (element) => {
      if (element.matches('input[type=button], input[type=submit], input[type=reset]')) return plain(element.value);
      return plain(element.innerText ?? element.textContent);
    };
    const skipped = 'script, style, noscript, head, title, meta, link, template';
    const found = [];
    for (const root of this.roots()) {
      for (const element of root.querySelectorAll('*')) {
        if (element.matches(skipped) || !says(element).includes(wanted)) continue;
        if (![...element.children].some((child) => !child.matches(skipped) && says(child).includes(wanted)))
          found.push(element);
      }
    }
    const exact = found.filter((element) => says(element) === wanted);
    return [...exact, ...found.filter((element) => !exact.includes(element))];
  },

  isVisible(element) {
    if (element.tagName === 'OPTION') return element.closest('select') !== null;
    const box = element.getBoundingClientRect();
    if (getComputedStyle(element).display === 'contents') return true;
    return box.width > 0 && box.height > 0 && element.checkVisibility({ visibilityProperty: true });
  },

  // What there is to know before something is done with an element.
  state(element) {
    const type = element.tagName === 'INPUT' ? element.type : '';
    const typed = ['text', 'search', 'url', 'tel', 'email', 'password', 'number'];
    const field = element.tagName === 'TEXTAREA' || typed.includes(type);
    return {
      connected: element.isConnected,
      visible: this.isVisible(element),
      disabled: element.matches(':disabled') || element.closest('[aria-disabled=true], [inert]') !== null,
      readOnly: element.readOnly === true,
      kind: field || element.isContentEditable ? 'text' : type || element.tagName.toLowerCase(),
      checked: element.checked ?? element.getAttribute('aria-checked') === 'true',
      said: this.describe(element),
    };
  },

  describe(element) {
    const name = element.id ? `#${element.id}` : [...element.classList].map((each) => `.${each}`).join('');
    return `<${element.tagName.toLowerCase()}${name}>`;
  },

  // What lies over the middle of an element, where a click would go; null if it is the element itself.
  covered(element) {
    const box = [...element.getClientRects()].find((each) => each.width > 0 && each.height > 0);
    if (!box) return 'nothing that could be clicked';
    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
    let hit = document.elementFromPoint(x, y);
    while (hit?.shadowRoot && hit !== element) {
      const inner = hit.shadowRoot.elementFromPoint(x, y);
      if (!inner || inner === hit) break;
      hit = inner;
    }
    if (!hit) return 'the edge of the page';
    const above = (inside, outside) => {
      for (let node = inside; node; node = node.assignedSlot ?? node.parentNode ?? node.host)
        if (node === outside) return true;
      return false;
    };
    const label = hit.closest('label');
    return above(hit, element) || above(element, hit) || label?.control === element ? null : this.describe(hit);
  },

  // Makes a field ready for text that replaces what is in it; returns whether it was written already.
  startFilling(element, text) {
    element.focus();
    if (element.isContentEditable) {
      getSelection().selectAllChildren(element);
      return false;
    }
    if (this.state(element).kind === 'text') {
      element.select();
      return false;
    }
    element.value = text;
    if (element.value !== text) throw new Error(`${this.describe(element)} does not take ${JSON.stringify(text)}`);
    this.announce(element);
    return true;
  },

  focus(element) {
    element.focus();
    if (element.isContentEditable) getSelection().selectAllChildren(element), getSelection().collapseToEnd();
    else if (typeof element.selectionStart === 'number')
      element.setSelectionRange(element.value.length, element.value.length);
  },

  announce(element) {
    for (const name of ['input', 'change']) element.dispatchEvent(new Event(name, { bubbles: true, composed: true }));
  },

  // Selects options by value or label; returns the values that are selected then, null if one isn't there.
  choose(element, wanted) {
    if (element.tagName !== 'SELECT') throw new Error(`${this.describe(element)} is no <select>`);
    const options = wanted.map((each) =>
      [...element.options].find((option) => option.value === each || option.label.trim() === each),
    );
    if (options.some((option) => !option)) return null;
    for (const option of element.options) option.selected = options.includes(option);
    this.announce(element);
    return [...element.selectedOptions].map((option) => option.value);
  },

  get(element, what, name) {
    if (what === 'html') return element.outerHTML;
    if (what === 'value') return element.value ?? null;
    if (what === 'attribute') return element.getAttribute(name);
    return element.innerText ?? element.textContent;
  },

  hasText(text) {
    return this.roots().some((root) => ((root.body ?? root).innerText ?? root.textContent ?? '').includes(text));
  },
})
