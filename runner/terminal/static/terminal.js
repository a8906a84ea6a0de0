// The page of a terminal: xterm.js on one side, the ttyd protocol on the WebSocket beside this page on the other.
"use strict";

(() => {
  // ttyd protocol: each message is one of these characters and its argument.
  const SERVER = { output: 0x30, title: 0x31, preferences: 0x32 };
  const CLIENT = { input: 0x30, resize: "1", pause: "2", resume: "3" };

  // Bytes given to xterm.js and not drawn yet. Above the first the server is told to pause, below the second to go on.
  const HIGH_WATER = 512 * 1024;
  const LOW_WATER = 64 * 1024;

  // A paste is sent in pieces, because the server takes messages of up to 1 MiB.
  const PIECE = 256 * 1024;

  // A server may set these options of xterm.js, and no others: some of the rest are functions or change what is sent.
  const PREFERENCES = new Set([
    "cursorBlink", "cursorStyle", "cursorWidth", "drawBoldTextInBrightColors", "fontFamily", "fontSize", "fontWeight",
    "fontWeightBold", "letterSpacing", "lineHeight", "macOptionIsMeta", "minimumContrastRatio", "rightClickSelectsWord",
    "screenReaderMode", "scrollback", "scrollSensitivity", "smoothScrollDuration", "tabStopWidth", "theme",
    "wordSeparator",
  ]);

  const element = (id) => document.getElementById(id);
  const encoder = new TextEncoder();
  const decoder = new TextDecoder();

  const terminal = new Terminal({
    cursorBlink: true,
    fontFamily: 'ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace',
    fontSize: 14,
    scrollback: 5000,
    theme: {
      background: "#10151c",
      foreground: "#dbe3ec",
      cursor: "#7cb7ff",
      cursorAccent: "#10151c",
      selectionBackground: "#2f4a6b",
      black: "#1d2530",
      red: "#f0787a",
      green: "#8fcf8a",
      yellow: "#e6c67a",
      blue: "#7cb7ff",
      magenta: "#c9a3f5",
      cyan: "#75d3d0",
      white: "#c9d3de",
      brightBlack: "#66758a",
      brightRed: "#ff9a9b",
      brightGreen: "#aee4a8",
      brightYellow: "#f5da9a",
      brightBlue: "#a5cfff",
      brightMagenta: "#dec3ff",
      brightCyan: "#9ae6e3",
      brightWhite: "#f4f7fa",
    },
  });
  const fit = new FitAddon.FitAddon();
  terminal.loadAddon(fit);
  terminal.open(element("terminal"));

  let socket = null;
  let undrawn = 0;
  let paused = false;
  let serverTitle = "Terminal";
  let titleIsFixed = false;

  function address() {
    const url = new URL("ws", location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    url.search = location.search;
    return url;
  }

  function isOpen() {
    return socket !== null && socket.readyState === WebSocket.OPEN;
  }

  function command(character, argument = "") {
    if (isOpen()) socket.send(encoder.encode(character + argument));
  }

  function sendInput(bytes) {
    if (!isOpen()) return;
    for (let start = 0; start < bytes.length; start += PIECE) {
      const piece = bytes.subarray(start, start + PIECE);
      const message = new Uint8Array(piece.length + 1);
      message[0] = CLIENT.input;
      message.set(piece, 1);
      socket.send(message);
    }
  }

  function draw(bytes) {
    const from = socket;
    undrawn += bytes.length;
    if (!paused && undrawn > HIGH_WATER) {
      paused = true;
      command(CLIENT.pause);
    }
    terminal.write(bytes, () => {
      if (from !== socket) return; // drawn for a connection that is gone
      undrawn -= bytes.length;
      if (paused && undrawn < LOW_WATER) {
        paused = false;
        command(CLIENT.resume);
      }
    });
  }

  function applyPreferences(values) {
    for (const [key, value] of Object.entries(values)) {
      if (key === "titleFixed" && typeof value === "string" && value) {
        titleIsFixed = true;
        document.title = value;
      } else if (PREFERENCES.has(key)) {
        try {
          terminal.options[key] =
            key === "theme" && value !== null && typeof value === "object" ? { ...terminal.options.theme, ...value } : value;
        } catch (error) {
          console.warn(`terminal option ${key} is not usable:`, error);
        }
      }
    }
    fit.fit();
  }

  function receive(event) {
    const bytes = new Uint8Array(event.data);
    const argument = bytes.subarray(1);
    switch (bytes[0]) {
      case SERVER.output:
        draw(argument);
        break;
      case SERVER.title:
        serverTitle = decoder.decode(argument);
        if (!titleIsFixed) document.title = serverTitle;
        break;
      case SERVER.preferences:
        try {
          applyPreferences(JSON.parse(decoder.decode(argument)));
        } catch (error) {
          console.warn("the server's preferences are not usable:", error);
        }
        break;
    }
  }

  function notice(title, detail, { busy = false } = {}) {
    element("notice-title").textContent = title;
    element("notice-detail").textContent = detail;
    element("reconnect").disabled = busy;
    element("notice").hidden = false;
  }

  // Waits before the attempts to connect again, in ms; after the last one it is the person's turn. A connection that
  // lasted counts as a success, so that a shell which ends at once isn't started over and over.
  const RETRIES = [300, 1000, 2000, 4000, 8000, 15000, 15000, 15000];
  const LASTED = 10000;
  let failures = 0;
  let retry = null;

  function reconnectSoon() {
    if (failures >= RETRIES.length) return false;
    clearTimeout(retry);
    // A page that nobody looks at connects when somebody does.
    retry = document.hidden ? null : setTimeout(connect, RETRIES[failures]);
    failures += 1;
    return true;
  }

  function reconnectNow() {
    if (!document.hidden && !element("notice").hidden && element("reconnect").disabled) connect();
  }

  function ended(event, wasOpen) {
    if (event.code === 1000) {
      notice("The shell has ended", event.reason || "This terminal was closed by its program.");
    } else if (reconnectSoon()) {
      notice("Connection lost", "Connecting again…", { busy: true });
    } else if (wasOpen) {
      notice("Connection lost", event.reason || "");
    } else {
      notice("Can’t connect", "The terminal did not answer. The session may be stopped, or you may be logged out.");
    }
  }

  function connect() {
    clearTimeout(retry);
    if (socket !== null && socket.readyState !== WebSocket.CLOSED) return;
    const attempt = new WebSocket(address(), ["tty"]);
    let opened = null;
    attempt.binaryType = "arraybuffer";
    socket = attempt;
    undrawn = 0;
    paused = false;
    const slow = setTimeout(() => notice("Connecting…", "", { busy: true }), 700);

    attempt.addEventListener("open", () => {
      opened = performance.now();
      clearTimeout(slow);
      element("notice").hidden = true;
      terminal.reset();
      terminal.options.disableStdin = false;
      fit.fit();
      attempt.send(encoder.encode(JSON.stringify({ AuthToken: "", columns: terminal.cols, rows: terminal.rows })));
      terminal.focus();
    });
    attempt.addEventListener("message", receive);
    attempt.addEventListener("close", (event) => {
      clearTimeout(slow);
      terminal.options.disableStdin = true;
      if (opened !== null && performance.now() - opened > LASTED) failures = 0;
      ended(event, opened !== null);
      // Whoever typed here goes on with the keyboard; a frame must not take the focus from the page around it.
      if (document.hasFocus()) element("reconnect").focus();
    });
  }

  function connectByHand() {
    failures = 0;
    connect();
  }

  terminal.onData((text) => sendInput(encoder.encode(text)));
  terminal.onBinary((text) => sendInput(Uint8Array.from(text, (character) => character.charCodeAt(0))));
  terminal.onResize(({ cols, rows }) => command(CLIENT.resize, JSON.stringify({ columns: cols, rows })));
  terminal.onTitleChange((title) => {
    if (!titleIsFixed) document.title = title || serverTitle;
  });
  element("reconnect").addEventListener("click", connectByHand);
  document.addEventListener("visibilitychange", reconnectNow);
  window.addEventListener("online", reconnectNow);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !element("notice").hidden) {
      event.preventDefault();
      connectByHand();
    }
  });
  // A frame that isn't shown has no size, and would make the terminal two columns wide.
  new ResizeObserver(() => {
    if (element("terminal").clientWidth > 0) fit.fit();
  }).observe(element("terminal"));

  fit.fit();
  connect();
})();
