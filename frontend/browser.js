// The view of a session's browser: its picture on a canvas, and the person's mouse, keys and touches on their way to it.
"use strict";

const RESIZE_AFTER_MS = 200; // the page follows the view's size once that rests
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 15_000;
const HIDDEN_MS = 10_000; // in a tab that nobody looks at, watching ends after so long
const AGENT_SHOWN_MS = 8_000; // how long after its last command an agent is said to drive
const DOUBLE_CLICK_MS = 500;
const SMALLEST = 100; // pixels that the page has at least, and at most
const LARGEST = 4096;
const SENTINEL = "\u200b"; // what a soft keyboard's Backspace finds to delete

const IS_APPLE = /Mac|iPhone|iPad/.test(navigator.platform);
const BUTTONS = ["left", "middle", "right", "back", "forward"];
const LINE = 16; // pixels of a wheel's line

/** What was typed into the address bar as a URL, or null for what is none. */
function addressOf(typed) {
  const text = typed.trim();
  if (/^(https?|file|about|data|blob):/i.test(text)) return text;
  if (/^:\d{1,5}(\/|$)/.test(text)) return `http://localhost${text}`;
  if (/^(localhost|\d{1,3}(\.\d{1,3}){3}|\[[0-9a-f:]+\])(:\d+)?([/?#]|$)/i.test(text)) return `http://${text}`;
  if (/^[^\s/?#]+\.[^\s/?#.]+(:\d+)?([/?#].*)?$/.test(text)) return `https://${text}`;
  return null;
}

function modifiersOf(event) {
  const control = event.ctrlKey || (IS_APPLE && event.metaKey); // ⌘ does there what Control does in the session
  const meta = event.metaKey && !IS_APPLE;
  return (event.altKey ? 1 : 0) | (control ? 2 : 0) | (meta ? 4 : 0) | (event.shiftKey ? 8 : 0);
}

class BrowserView {
  /**
   * `call` asks the API. `told` gets the session's downloads as paths, and gives back a link to one that is in the
   * workspace, or null.
   */
  constructor(root, { call, linkTo }) {
    this.root = root;
    this.call = call;
    this.linkTo = linkTo;
    this.session = null;
    this.socket = null;
    this.size = [0, 0]; // of the page, in its own pixels
    this.wanted = null; // what we asked the page's size to be
    this.retry = FIRST_RETRY_MS;
    this.timers = {};
    this.decoding = false;
    this.waiting = null; // the newest frame while another is being decoded
    this.move = null;
    this.wheel = null;
    this.click = { at: 0, x: 0, y: 0, button: "", count: 0 };
    this.pressed = new Set();
    this.composing = false;
    this.lastCommand = null;
    this.part = (name) => root.querySelector(`[data-part="${name}"]`);
    this.screen = this.part("screen");
    this.canvas = this.part("canvas");
    this.keys = this.part("keys");
    this.address = this.part("address");
    this.connectControls();
    this.connectPointer();
    this.connectKeys();
    new ResizeObserver(() => this.later("resize", RESIZE_AFTER_MS, () => this.follow())).observe(this.screen);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.later("hidden", HIDDEN_MS, () => this.disconnect());
      else {
        this.never("hidden");
        if (this.session !== null && this.socket === null) this.connect();
      }
    });
  }

  // --- the stream --------------------------------------------------------------------------------------------------

  /** Show the browser of a session, which starts it. */
  open(session) {
    if (this.session === session) return;
    this.close();
    this.session = session;
    this.retry = FIRST_RETRY_MS;
    this.reset();
    this.connect();
  }

  /** Watch no more. */
  close() {
    this.session = null;
    this.disconnect();
    this.reset();
  }

  reset() {
    this.size = [0, 0];
    this.wanted = null;
    this.lastCommand = null;
    this.canvas.hidden = true;
    this.address.value = "";
    this.note("");
    this.driver(false);
    this.dialog(null);
    this.cover("Starting the browser…");
  }

  disconnect() {
    this.never("retry");
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }

  connect() {
    this.disconnect();
    const path = `/api/sessions/${encodeURIComponent(this.session)}/browser/stream`;
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}${path}`);
    let opened = false;
    this.socket = socket;
    socket.addEventListener("open", () => {
      opened = true;
      this.retry = FIRST_RETRY_MS;
      this.wanted = null;
      this.follow();
    });
    socket.addEventListener("message", (event) => {
      if (socket === this.socket) this.take(JSON.parse(event.data));
    });
    socket.addEventListener("close", () => {
      if (socket !== this.socket) return;
      this.socket = null;
      void this.lost(opened);
    });
  }

  async lost(opened) {
    this.dialog(null);
    this.driver(false);
    this.cover("The connection to the browser is lost. Trying again…");
    this.later("retry", this.retry * (0.75 + Math.random() / 2), () => this.connect());
    this.retry = Math.min(this.retry * 2, LONGEST_RETRY_MS);
    if (opened) return;
    const asked = this.session;
    try {
      const session = await this.call("GET", `/api/sessions/${encodeURIComponent(asked)}`);
      const reason = session?.services?.browser?.error;
      if (reason && asked === this.session && this.socket === null) this.cover(`The browser does not run: ${reason}`);
    } catch {
      // What the page says of the session elsewhere is enough.
    }
  }

  send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  take(message) {
    switch (message.type) {
      case "frame":
        this.waiting = message;
        if (!this.decoding) void this.draw();
        break;
      case "status":
        this.status(message);
        break;
      case "dialog":
        this.dialog(message);
        break;
      case "dialog_closed":
        this.dialog(null);
        break;
      case "clipboard":
        void this.copied(message.text);
        break;
      case "download":
        this.download(message);
        break;
      case "error":
        this.note(message.message, { bad: true });
        if (this.canvas.hidden) this.cover(message.message);
        break;
    }
  }

  async draw() {
    this.decoding = true;
    while (this.waiting !== null) {
      const frame = this.waiting;
      this.waiting = null;
      try {
        const bytes = Uint8Array.from(atob(frame.data), (letter) => letter.charCodeAt(0));
        const image = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
        if (this.session !== null && this.socket !== null) {
          if (this.canvas.width !== image.width) this.canvas.width = image.width;
          if (this.canvas.height !== image.height) this.canvas.height = image.height;
          this.canvas.getContext("2d").drawImage(image, 0, 0);
          this.size = [frame.metadata?.deviceWidth || image.width, frame.metadata?.deviceHeight || image.height];
          this.canvas.hidden = false;
          this.cover(null);
        }
        image.close();
      } catch (error) {
        console.error(error); // the next frame may be whole
      }
      if (frame.id !== undefined) this.send({ type: "ack", id: frame.id });
    }
    this.decoding = false;
  }

  status(message) {
    if (document.activeElement !== this.address && message.url !== undefined) {
      this.address.value = message.url === "about:blank" ? "" : message.url;
    }
    this.keys.setAttribute("aria-label", message.title ? `Page: ${message.title}` : "Page");
    if (message.browser === "crashed" || message.browser === "stopped") {
      this.canvas.hidden = true;
      const what = message.browser === "crashed" ? "The browser crashed." : "The browser is closed.";
      this.cover(`${what} Enter an address, or press here to open it again.`);
    } else if (message.browser === "starting") this.cover("Starting the browser…");
    if (this.wanted && message.viewportWidth !== this.wanted[0]) this.theirs = true;
    const command = message.lastCommandAt ?? 0;
    const isNew = this.lastCommand !== null && command !== this.lastCommand;
    if (isNew) this.driver(true);
    this.lastCommand = command;
  }

  // --- what is said ------------------------------------------------------------------------------------------------

  later(name, after, action) {
    this.never(name);
    this.timers[name] = setTimeout(action, after);
  }

  never(name) {
    clearTimeout(this.timers[name]);
  }

  cover(text) {
    this.part("cover").hidden = text === null;
    this.part("cover-text").textContent = text ?? "";
  }

  note(text, { bad = false, link = null } = {}) {
    const note = this.part("note");
    note.replaceChildren(text);
    if (link !== null) {
      const anchor = Object.assign(document.createElement("a"), { href: link, textContent: "Save", download: "" });
      note.append(" ", anchor);
    }
    note.classList.toggle("bad", bad);
    note.hidden = !text;
    if (text) this.later("note", bad ? 15_000 : 8_000, () => this.note(""));
  }

  driver(shown) {
    this.part("driver").hidden = !shown;
    this.root.classList.toggle("driven", shown);
    if (shown) this.later("driver", AGENT_SHOWN_MS, () => this.driver(false));
  }

  dialog(message) {
    const dialog = this.part("dialog");
    const field = this.part("dialog-input");
    const was = !dialog.hidden;
    dialog.hidden = message === null;
    if (message === null) {
      if (was) this.keys.focus({ preventScroll: true });
      return;
    }
    const leaves = message.kind === "beforeunload";
    this.part("dialog-text").textContent = leaves ? "Leave this page? What you entered may be lost." : message.message;
    field.hidden = message.kind !== "prompt";
    field.value = message.default ?? "";
    this.part("dialog-no").hidden = message.kind === "alert";
    this.part("dialog-yes").textContent = leaves ? "Leave" : "OK";
    (field.hidden ? this.part("dialog-yes") : field).focus();
  }

  download(message) {
    const name = String(message.path ?? "").split("/").pop() || "a file";
    if (message.state === "completed") this.note(`Downloaded ${name}.`, { link: this.linkTo(message.path) });
    else if (message.state === "started") this.note(`Downloading ${name}…`);
    else this.note(`The download of ${name} was ${message.state}${message.error ? `: ${message.error}` : ""}.`, { bad: true });
  }

  async copied(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without TLS browsers have no clipboard for pages; the old way works after a key.
      const value = this.keys.value;
      this.keys.value = text;
      this.keys.select();
      if (!document.execCommand("copy")) this.note("Your browser did not let this page copy.", { bad: true });
      this.keys.value = value;
    }
  }

  // --- the bar -----------------------------------------------------------------------------------------------------

  connectControls() {
    const on = (name, does) => this.part(name).addEventListener("click", does);
    on("back", () => this.act("back"));
    on("forward", () => this.act("forward"));
    on("reload", () => this.act("reload"));
    on("end", () => this.act("close"));
    on("keyboard", () => this.keys.focus({ preventScroll: true }));
    on("cover", () => this.socket === null ? this.session !== null && this.connect() : this.wake());
    this.part("bar").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.go();
    });
    this.address.addEventListener("focus", () => this.address.select());
    this.part("dialog").addEventListener("submit", (event) => {
      event.preventDefault();
      this.answer(true);
    });
    on("dialog-no", () => this.answer(false));
    this.part("dialog").addEventListener("keydown", (event) => event.key === "Escape" && this.answer(false));
  }

  answer(accept) {
    const field = this.part("dialog-input");
    this.send({ type: "dialog", accept, ...(accept && !field.hidden ? { text: field.value } : {}) });
  }

  /** Have a browser that was closed, or crashed, started again: any use does. */
  wake() {
    this.wanted = null;
    this.follow();
  }

  async go() {
    const url = addressOf(this.address.value);
    if (url === null) {
      this.note("That is no address. Write one like example.org, or :3000 for a port of this session.", { bad: true });
      return;
    }
    this.keys.focus({ preventScroll: true });
    this.address.value = url;
    const answer = await this.asked("/api/browser/start", { url, session_id: this.session });
    if (answer?.error) this.note(answer.error, { bad: true });
  }

  act(action) {
    return this.asked("/api/browser/action", { session_id: this.session, action });
  }

  async asked(path, json) {
    this.note("");
    try {
      return await this.call("POST", path, { json });
    } catch (error) {
      this.note(error.message, { bad: true });
      return null;
    }
  }

  /** Ask for a page as large as the view. Whoever looks last wins. */
  follow() {
    const { clientWidth, clientHeight } = this.screen;
    if (clientWidth === 0 || clientHeight === 0) return; // it isn't shown
    const within = (pixels) => Math.min(Math.max(Math.round(pixels), SMALLEST), LARGEST);
    const wanted = [within(clientWidth), within(clientHeight), Math.min(Math.max(devicePixelRatio || 1, 0.5), 2)];
    if (this.wanted !== null && wanted.every((pixels, index) => pixels === this.wanted[index])) return;
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    this.wanted = wanted;
    this.theirs = false;
    this.send({ type: "viewport", width: wanted[0], height: wanted[1], deviceScaleFactor: wanted[2] });
  }

  /** Another viewer had the page another size; who does something in it has it theirs. */
  reclaim() {
    if (!this.theirs) return;
    this.wanted = null;
    this.follow();
  }

  // --- mouse, wheel, touch -----------------------------------------------------------------------------------------

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const [width, height] = this.size;
    const within = (value, most) => Math.min(Math.max(value, 0), Math.max(most - 1, 0));
    return {
      x: within(((event.clientX - box.left) / box.width) * width, width),
      y: within(((event.clientY - box.top) / box.height) * height, height),
    };
  }

  mouse(eventType, event, more = {}) {
    const { buttons } = event;
    this.send({ type: "input_mouse", eventType, ...this.place(event), buttons, modifiers: modifiersOf(event), ...more });
  }

  connectPointer() {
    const canvas = this.canvas;
    const mouseOnly = (does) => (event) => event.pointerType !== "touch" && does(event);
    canvas.addEventListener("pointerdown", mouseOnly((event) => {
      event.preventDefault();
      this.keys.focus({ preventScroll: true });
      this.reclaim();
      canvas.setPointerCapture(event.pointerId);
      this.flush();
      const button = BUTTONS[event.button] ?? "left";
      const last = this.click;
      const near = Math.abs(event.clientX - last.x) < 5 && Math.abs(event.clientY - last.y) < 5;
      const again = last.button === button && near && event.timeStamp - last.at < DOUBLE_CLICK_MS;
      const count = again ? (last.count % 3) + 1 : 1;
      this.click = { at: event.timeStamp, x: event.clientX, y: event.clientY, button, count };
      this.mouse("mousePressed", event, { button, clickCount: count });
    }));
    canvas.addEventListener("pointerup", mouseOnly((event) => {
      this.flush();
      const button = BUTTONS[event.button] ?? "left";
      this.mouse("mouseReleased", event, { button, clickCount: this.click.count });
    }));
    canvas.addEventListener("pointermove", mouseOnly((event) => {
      this.move = event;
      this.soon();
    }));
    canvas.addEventListener("wheel", (event) => {
      if (event.ctrlKey) return; // zooming is this page's own
      event.preventDefault();
      const scale = event.deltaMode === 0 ? 1 : event.deltaMode === 1 ? LINE : this.size[1];
      const { deltaX = 0, deltaY = 0 } = this.wheel ?? {};
      this.wheel = { event, deltaX: deltaX + event.deltaX * scale, deltaY: deltaY + event.deltaY * scale };
      this.soon();
    }, { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    for (const kind of ["touchstart", "touchmove", "touchend", "touchcancel"]) {
      canvas.addEventListener(kind, (event) => this.touch(kind, event), { passive: false });
    }
  }

  /** Send moves and the wheel once a picture: there are more of them than anybody sees. */
  soon() {
    if (this.flushing) return;
    this.flushing = true;
    requestAnimationFrame(() => {
      this.flushing = false;
      this.flush();
    });
  }

  flush() {
    const { move, wheel } = this;
    this.move = this.wheel = null;
    if (move !== null) {
      const held = [[1, "left"], [2, "right"], [4, "middle"]].find(([bit]) => move.buttons & bit)?.[1] ?? "none";
      this.mouse("mouseMoved", move, { button: held });
    }
    if (wheel !== null) this.mouse("mouseWheel", wheel.event, { deltaX: wheel.deltaX, deltaY: wheel.deltaY });
  }

  touch(kind, event) {
    event.preventDefault();
    if (kind === "touchstart") this.reclaim();
    const eventType = { touchstart: "touchStart", touchmove: "touchMove", touchend: "touchEnd", touchcancel: "touchCancel" }[kind];
    const points = [...event.targetTouches].map((point) => ({ ...this.place(point), id: Math.abs(point.identifier) % 1024 }));
    this.send({ type: "input_touch", eventType, touchPoints: points, modifiers: modifiersOf(event) });
  }

  // --- keys --------------------------------------------------------------------------------------------------------

  connectKeys() {
    const keys = this.keys;
    keys.value = SENTINEL;
    keys.addEventListener("focus", () => this.reclaim());
    keys.addEventListener("keydown", (event) => this.keyDown(event));
    keys.addEventListener("keyup", (event) => this.keyUp(event));
    keys.addEventListener("blur", () => this.releaseAll());
    keys.addEventListener("compositionstart", () => {
      this.composing = true;
      keys.value = "";
    });
    keys.addEventListener("compositionupdate", (event) => {
      const end = event.data.length;
      this.send({ type: "input_composition", text: event.data, selectionStart: end, selectionEnd: end });
    });
    keys.addEventListener("compositionend", (event) => {
      this.composing = false;
      this.send({ type: "input_composition", text: event.data, commit: true });
      keys.value = SENTINEL;
    });
    keys.addEventListener("input", (event) => this.typed(event));
    keys.addEventListener("paste", (event) => {
      event.preventDefault();
      this.send({ type: "clipboard", eventType: "paste", text: event.clipboardData.getData("text/plain") });
    });
    for (const kind of ["copy", "cut"]) {
      keys.addEventListener(kind, (event) => {
        if (keys.selectionStart !== keys.selectionEnd) return; // our own, see `copied`
        event.preventDefault();
        this.send({ type: "clipboard", eventType: kind });
      });
    }
  }

  keyDown(event) {
    if (this.composing || event.isComposing || event.keyCode === 229) return; // an input method has it
    if (event.key === "Dead" || event.key === "Unidentified") return;
    const control = IS_APPLE ? event.metaKey : event.ctrlKey;
    const plain = control && !event.altKey && !event.shiftKey ? event.key.toLowerCase() : "";
    if (plain === "v") return; // `paste` brings the text
    const own = this.shortcut(event, plain);
    event.preventDefault();
    if (own !== null) {
      own();
      return;
    }
    const typed = event.key.length === 1 && (!(event.ctrlKey || event.metaKey) || event.getModifierState("AltGraph"));
    const text = typed ? event.key : event.key === "Enter" && !control ? "\r" : undefined;
    this.pressed.add(event.code);
    this.key("keyDown", event, text === undefined ? {} : { text });
  }

  /** What a key does here and not in the page; null for all others. */
  shortcut(event, plain) {
    if (plain === "c" || plain === "x") {
      return () => this.send({ type: "clipboard", eventType: plain === "c" ? "copy" : "cut" });
    }
    if (plain === "l" || event.key === "F6") return () => this.address.focus();
    if (plain === "r" || event.key === "F5") return () => void this.act("reload");
    if (event.altKey && event.key === "ArrowLeft") return () => void this.act("back");
    if (event.altKey && event.key === "ArrowRight") return () => void this.act("forward");
    if (event.shiftKey && event.key === "Escape") return () => this.address.focus();
    return null;
  }

  keyUp(event) {
    if (!this.pressed.delete(event.code)) return; // its press was an input method's, or ours
    event.preventDefault();
    this.key("keyUp", event);
  }

  key(eventType, event, more = {}) {
    const { key, code, keyCode, repeat, location } = event;
    const name = IS_APPLE && key === "Meta" ? "Control" : key;
    this.send({ type: "input_keyboard", eventType, key: name, code, keyCode, repeat, location, modifiers: modifiersOf(event), ...more });
  }

  /** Keys that are down while we lose the keyboard would stay down. */
  releaseAll() {
    for (const code of this.pressed) this.send({ type: "input_keyboard", eventType: "keyUp", code });
    this.pressed.clear();
  }

  /** Soft keyboards and dictation tell no keys, only what became of the text. */
  typed(event) {
    if (this.composing || event.isComposing) return;
    const press = (key, keyCode, text) => {
      const said = { type: "input_keyboard", key, code: key, keyCode };
      this.send({ ...said, eventType: "keyDown", ...(text ? { text } : {}) });
      this.send({ ...said, eventType: "keyUp" });
    };
    if (event.inputType === "deleteContentBackward") press("Backspace", 8);
    else if (event.inputType === "insertLineBreak") press("Enter", 13, "\r");
    else if (event.inputType !== "insertCompositionText") {
      const text = this.keys.value.replaceAll(SENTINEL, "");
      if (text) this.send({ type: "input_text", text });
    }
    this.keys.value = SENTINEL;
  }
}
