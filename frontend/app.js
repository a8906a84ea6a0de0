// The console: what is shown, and the calls to /api behind it.
"use strict";

const LIST_EVERY_MS = 10_000; // how often the list of sessions is asked for while somebody looks
const LIVE = new Set(["pending", "starting", "running"]);
const CHANGING = new Set(["pending", "starting", "stopping"]);

const element = (id) => document.getElementById(id);

const browser = new BrowserView(element("browser-pane"), { call, linkTo: linkToDownload });

const state = {
  user: null,
  sessions: [],
  opened: null, // id of the session that is shown
  framed: null, // id of the session whose terminal is in the frame
  folder: [], // names from the workspace down
  entries: [],
  pane: "terminal", // what is shown, beside the files where there is room
  hasBrowser: false, // whether sessions have one here
  listing: 0, // counts listings, so that a late answer doesn't replace a newer one
};

// --- the API -----------------------------------------------------------------------------------------------------

/** An answer that isn't a success, in words for a person. */
class ApiError extends Error {
  constructor(status, body) {
    const text = body?.error || (status ? `The server answered with status ${status}.` : "The server can’t be reached.");
    super(body?.hint ? `${text} ${body.hint}` : text);
    this.status = status;
  }
}

async function call(method, path, { json, query } = {}) {
  const address = query ? `${path}?${new URLSearchParams(query)}` : path;
  const options = { method, headers: { Accept: "application/json" } };
  if (json !== undefined) {
    options.body = JSON.stringify(json);
    options.headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new ApiError(0, { hint: "Check the connection and try again." });
  }
  const text = await response.text();
  let body = null;
  try {
    body = text ? JSON.parse(text) : null;
  } catch {
    // Not ours: a proxy's page, perhaps. The status says enough.
  }
  if (!response.ok) {
    if (response.status === 401 && path !== "/api/auth/login") showLogin();
    throw new ApiError(response.status, body);
  }
  return body;
}

const sessionPath = (id, rest = "") => `/api/sessions/${encodeURIComponent(id)}${rest}`;
const filePath = (rest) => sessionPath(state.opened, `/files/${rest}`);

// --- small parts ---------------------------------------------------------------------------------------------------

function make(tag, { text, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

const ICONS = {
  directory: "M2.5 5.5A1.5 1.5 0 0 1 4 4h3.6l1.9 2H16a1.5 1.5 0 0 1 1.5 1.5V14a1.5 1.5 0 0 1-1.5 1.5H4A1.5 1.5 0 0 1 2.5 14z",
  file: "M5 2.5h6.5l4 4v11H5zM11.5 2.5v4h4",
};

function icon(type) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const path = document.createElementNS(space, "path");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("aria-hidden", "true");
  if (type === "directory") svg.setAttribute("class", "folder");
  path.setAttribute("d", ICONS[type] ?? ICONS.file);
  svg.append(path);
  return svg;
}

function size(bytes) {
  if (!Number.isFinite(bytes)) return "";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${bytes >= 10 || unit === 0 ? Math.round(bytes) : bytes.toFixed(1)} ${units[unit]}`;
}

function ago(time) {
  const then = Date.parse(time ?? "");
  if (Number.isNaN(then)) return "";
  const seconds = (then - Date.now()) / 1000;
  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  for (const [unit, length] of [["day", 86_400], ["hour", 3_600], ["minute", 60]]) {
    if (Math.abs(seconds) >= length) return words.format(Math.round(seconds / length), unit);
  }
  return "just now";
}

function problem(error) {
  element("problem").hidden = error === null;
  element("problem-text").textContent = error === null ? "" : error.message;
}

/** Do something for a button: it is off meanwhile, and what goes wrong is told. */
async function busy(button, action) {
  button.disabled = true;
  problem(null);
  try {
    await action();
  } catch (error) {
    if (!(error instanceof ApiError)) console.error(error);
    if (error.status !== 401) problem(error);
  } finally {
    button.disabled = false;
  }
}

/** Ask before something is done. Resolves to the text typed (true without an input), or null for no. */
function ask({ title, text = "", yes, input = null }) {
  const dialog = element("dialog");
  const field = element("dialog-input");
  element("dialog-title").textContent = title;
  element("dialog-text").textContent = text;
  element("dialog-yes").textContent = yes;
  field.hidden = input === null;
  field.value = input ?? "";
  dialog.returnValue = "";
  dialog.showModal();
  if (input !== null) field.focus();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => resolve(dialog.returnValue === "yes" ? (input === null ? true : field.value) : null),
      { once: true },
    );
  });
}

// --- logging in ----------------------------------------------------------------------------------------------------

function showLogin() {
  state.user = null;
  state.sessions = [];
  closeTerminal();
  element("console").hidden = true;
  if (!element("login").hidden) return;
  element("login").hidden = false;
  element("username").focus();
}

function showConsole(user) {
  state.user = user;
  const name = user.display_name || user.name || user.username || user.id || "";
  element("who").textContent = name;
  element("greeting").textContent = name ? `Hello, ${name}` : "Your workspace";
  element("login").hidden = true;
  element("login-error").hidden = true;
  element("console").hidden = false;
}

async function logIn(event) {
  event.preventDefault();
  const button = event.submitter ?? event.target.querySelector("button");
  const password = element("password");
  const failed = element("login-error");
  failed.hidden = true;
  button.disabled = true;
  try {
    const answer = await call("POST", "/api/auth/login", {
      json: { username: element("username").value.trim(), password: password.value },
    });
    password.value = "";
    showConsole(answer?.user ?? (await call("GET", "/api/me")));
    await route();
  } catch (error) {
    failed.textContent = error.message;
    failed.hidden = false;
    password.select();
  } finally {
    button.disabled = false;
  }
}

async function logOut() {
  await call("POST", "/api/auth/logout");
  location.hash = "#/";
  showLogin();
}

// --- sessions ------------------------------------------------------------------------------------------------------

async function loadSessions() {
  const answer = await call("GET", "/api/sessions");
  state.sessions = (Array.isArray(answer) ? answer : (answer?.sessions ?? [])).toSorted((one, other) =>
    String(other.created_at ?? "").localeCompare(String(one.created_at ?? "")),
  );
  drawSessions();
  if (state.opened !== null) drawSession();
}

function nameOf(session) {
  return session.readable_id || session.id;
}

function stateLabel(session) {
  return make("span", { className: `state ${session.status}`, text: session.status });
}

function drawSessions() {
  const list = element("sessions");
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  list.replaceChildren(...state.sessions.map(sessionRow));
  element("no-sessions").hidden = state.sessions.length > 0;
  if (focused) [...list.querySelectorAll("button")].find((button) => button.dataset.key === focused)?.focus();
}

function sessionRow(session) {
  const action = (label, does, { primary = false, danger = false } = {}) => {
    const button = make("button", { type: "button", text: label });
    button.className = primary ? "primary" : danger ? "danger" : "";
    button.setAttribute("aria-label", `${label} ${nameOf(session)}`);
    button.dataset.key = `${session.id} ${label}`;
    button.addEventListener("click", () => busy(button, () => does(session)));
    return button;
  };
  const actions = [];
  if (LIVE.has(session.status)) {
    actions.push(action("Stop", stopSession), action("Open", openSession, { primary: true }));
  } else if (session.status !== "stopping") {
    actions.push(action("Delete", deleteSession, { danger: true }), action("Resume", resumeSession));
  }
  const times = [
    session.created_at && `created ${ago(session.created_at)}`,
    session.last_activity_at && `last used ${ago(session.last_activity_at)}`,
  ];
  const about = make("div", { className: "about" }, make("div", { className: "name", text: nameOf(session) }));
  const detail = [session.workspace_path, ...times].filter(Boolean).join(" · ");
  about.append(make("div", { className: "detail", text: detail, title: detail }));
  if (session.error_message) about.append(make("div", { className: "trouble", text: session.error_message }));
  return make("li", {}, about, stateLabel(session), make("div", { className: "actions" }, ...actions));
}

function openSession(session) {
  location.hash = `#/sessions/${encodeURIComponent(session.id)}`;
}

async function startSession(path) {
  const session = await call("POST", path, { json: {} });
  state.sessions = [session, ...state.sessions.filter((other) => other.id !== session.id)];
  openSession(session);
}

async function resumeSession(session) {
  await call("POST", sessionPath(session.id, "/resume"));
  await loadSessions();
  openSession(session);
}

async function stopSession(session) {
  const sure = await ask({
    title: `Stop ${nameOf(session)}?`,
    text: "What runs in it is ended. Its files stay, and you can resume it later.",
    yes: "Stop",
  });
  if (sure === null) return;
  await call("POST", sessionPath(session.id, "/stop"));
  await loadSessions();
}

async function deleteSession(session) {
  const sure = await ask({
    title: `Delete ${nameOf(session)}?`,
    text: "The session is removed from the list.",
    yes: "Delete",
  });
  if (sure === null) return;
  await call("DELETE", sessionPath(session.id));
  await loadSessions();
}

// --- one session -----------------------------------------------------------------------------------------------------

function opened() {
  return state.sessions.find((session) => session.id === state.opened) ?? null;
}

function drawSession() {
  const session = opened();
  if (session === null) {
    problem(new Error("This session doesn’t exist any more."));
    location.hash = "#/";
    return;
  }
  const runs = session.status === "running";
  const label = element("session-state");
  element("session-name").textContent = nameOf(session);
  document.title = `${nameOf(session)} · oqto`;
  label.textContent = session.status;
  label.className = `state ${session.status}`;
  element("session-stop").hidden = !LIVE.has(session.status);
  element("workspace").hidden = !runs;
  element("asleep").hidden = runs;
  element("pop-out").hidden = !runs;
  element("pop-out").href = terminalAddress(session);
  if (runs) {
    openTerminal(session);
  } else {
    closeTerminal();
    const changing = CHANGING.has(session.status);
    element("asleep-title").textContent = changing ? `This session is ${session.status}…` : `This session is ${session.status}`;
    element("asleep-detail").textContent =
      session.error_message || (changing ? "It takes a moment." : "Your files are kept. Resume it to go on.");
    element("session-resume").hidden = changing;
  }
}

function terminalAddress(session) {
  return sessionPath(session.id, "/terminal/");
}

function openTerminal(session) {
  if (state.framed === session.id) return;
  const frame = make("iframe", { title: "Terminal", src: terminalAddress(session), allow: "clipboard-read; clipboard-write" });
  element("terminal-pane").replaceChildren(frame);
  state.framed = session.id;
  state.folder = [];
  void listFiles();
  showBrowser();
}

function closeTerminal() {
  element("terminal-pane").replaceChildren();
  state.framed = null;
  browser.close();
}

function showPane(name) {
  state.pane = name;
  for (const pane of ["terminal", "files", "browser"]) {
    element("workspace").classList.toggle(`${pane}-only`, name === pane);
    element(`show-${pane}`).setAttribute("aria-pressed", String(name === pane));
  }
  element("browser-pane").hidden = name !== "browser";
  element("pop-out").classList.toggle("elsewhere", name !== "terminal");
  showBrowser();
  if (name === "files") void listFiles();
}

/** Watch the browser of the session that is shown, for as long as it is: watching keeps it running. */
function showBrowser() {
  if (state.pane === "browser" && state.framed !== null) browser.open(state.framed);
  else browser.close();
}

/** Where the page's own server has a downloaded file; null for one outside of the workspace. */
function linkToDownload(path) {
  const workspace = `${opened()?.workspace_path}/`;
  if (!path?.startsWith(workspace)) return null;
  return `${filePath("file")}?${new URLSearchParams({ path: path.slice(workspace.length) })}`;
}

// --- files -------------------------------------------------------------------------------------------------------------

const inFolder = (name) => [...state.folder, name].join("/");
const folderPath = () => state.folder.join("/") || ".";

function note(text, { bad = false } = {}) {
  element("files-note").textContent = text;
  element("files-note").classList.toggle("bad", bad);
  element("files-note").hidden = !text;
}

async function listFiles() {
  const session = state.opened;
  const listing = ++state.listing;
  drawCrumbs();
  try {
    const query = { path: folderPath(), depth: "1", show_hidden: String(element("hidden-files").checked) };
    const answer = await call("GET", filePath("tree"), { query });
    if (listing !== state.listing || session !== state.opened) return;
    state.entries = (Array.isArray(answer) ? answer : []).toSorted(
      (one, other) =>
        Number(other.type === "directory") - Number(one.type === "directory") ||
        one.name.localeCompare(other.name, undefined, { numeric: true }),
    );
    drawEntries("This folder is empty.");
    if (element("files-note").classList.contains("bad")) note("");
  } catch (error) {
    if (listing !== state.listing || session !== state.opened) return;
    state.entries = [];
    drawEntries("");
    note(error.message, { bad: true });
  }
}

function drawCrumbs() {
  const parts = [];
  ["workspace", ...state.folder].forEach((name, depth) => {
    const crumb = make("button", { type: "button", text: name, title: name });
    if (depth === state.folder.length) crumb.setAttribute("aria-current", "page");
    crumb.addEventListener("click", () => {
      state.folder = state.folder.slice(0, depth);
      void listFiles();
    });
    if (depth > 0) parts.push(make("span", { text: "/" }));
    parts.push(crumb);
  });
  element("crumbs").replaceChildren(...parts);
}

function drawEntries(empty) {
  element("entries").replaceChildren(...state.entries.map(entryRow));
  element("no-entries").textContent = empty;
  element("no-entries").hidden = state.entries.length > 0 || !empty;
}

function entryRow(entry) {
  const isFolder = entry.type === "directory";
  const inside = [
    icon(entry.type),
    make("span", { className: "label", text: entry.name, title: entry.name }),
    make("span", { className: "meta", text: isFolder ? "" : size(entry.size) }),
  ];
  let main;
  if (isFolder) {
    main = make("button", { type: "button", className: "entry" }, ...inside);
    main.addEventListener("click", () => {
      state.folder = [...state.folder, entry.name];
      void listFiles();
    });
  } else {
    const address = `${filePath("file")}?${new URLSearchParams({ path: inFolder(entry.name) })}`;
    main = make("a", { className: "entry", href: address, download: entry.name }, ...inside);
  }
  const modified = ago(typeof entry.modified === "number" ? new Date(entry.modified * 1000).toISOString() : entry.modified);
  main.title = `${isFolder ? "Open" : "Download"} ${entry.name}${modified ? `, changed ${modified}` : ""}`;
  const remove = make("button", { type: "button", className: "remove", text: "✕" });
  remove.setAttribute("aria-label", `Delete ${entry.name}`);
  remove.title = "Delete";
  remove.addEventListener("click", () => busy(remove, () => removeEntry(entry)));
  return make("li", {}, main, remove);
}

async function removeEntry(entry) {
  const sure = await ask({
    title: `Delete ${entry.name}?`,
    text: entry.type === "directory" ? "The folder goes with everything in it. This can’t be undone." : "This can’t be undone.",
    yes: "Delete",
  });
  if (sure === null) return;
  await call("DELETE", filePath("file"), { query: { path: inFolder(entry.name) } });
  await listFiles();
}

async function makeFolder() {
  const name = await ask({ title: "New folder", yes: "Create", input: "" });
  if (name === null || !name.trim()) return;
  await call("PUT", filePath("mkdir"), { query: { path: inFolder(name.trim()) } });
  await listFiles();
}

async function uploadAll(files) {
  const taken = files.filter((file) => state.entries.some((entry) => entry.name === file.name));
  if (taken.length > 0) {
    const sure = await ask({
      title: taken.length === 1 ? `Replace ${taken[0].name}?` : `Replace ${taken.length} files?`,
      text: "There is one of that name already.",
      yes: "Replace",
    });
    if (sure === null) return;
  }
  // Where they go is fixed now; the person may well walk on meanwhile.
  const targets = files.map((file) => [file, `${filePath("file")}?${new URLSearchParams({ path: inFolder(file.name) })}`]);
  try {
    for (const [file, address] of targets) await upload(file, address);
    note(files.length === 1 ? `Uploaded ${files[0].name}.` : `Uploaded ${files.length} files.`);
    setTimeout(() => element("files-note").classList.contains("bad") || note(""), 4_000);
  } finally {
    await listFiles();
  }
}

/** PUT one file. XMLHttpRequest, because fetch doesn't tell how far an upload has come. */
function upload(file, address) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const failed = (status, body) => {
      const error = new ApiError(status, body);
      note("");
      reject(Object.assign(error, { message: `${file.name} was not uploaded: ${error.message}` }));
    };
    note(`Uploading ${file.name}…`);
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) note(`Uploading ${file.name}… ${Math.floor((event.loaded / event.total) * 100)} %`);
    });
    request.addEventListener("load", () => {
      if (request.status >= 200 && request.status < 300) return resolve();
      let body = null;
      try {
        body = JSON.parse(request.responseText);
      } catch {
        // The status says enough.
      }
      return failed(request.status, body);
    });
    request.addEventListener("error", () => failed(0, null));
    request.open("PUT", address);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.send(file);
  });
}

// --- what is shown -------------------------------------------------------------------------------------------------------

async function route() {
  if (state.user === null) return;
  const [, id] = /^#\/sessions\/([^/]+)$/.exec(location.hash) ?? [];
  state.opened = id === undefined ? null : decodeURIComponent(id);
  element("overview").hidden = state.opened !== null;
  element("session").hidden = state.opened === null;
  if (state.opened === null) {
    document.title = "oqto";
    closeTerminal();
  } else if (opened() !== null) {
    problem(null);
    showPane("terminal");
    drawSession();
  }
  try {
    await loadSessions();
  } catch (error) {
    if (error.status !== 401) problem(error);
  }
}

async function keepUp() {
  if (state.user === null || document.hidden) return;
  try {
    await loadSessions();
  } catch {
    // The next round may do better; what the person does themselves is told.
  }
}

function connectButtons() {
  const on = (id, action) => element(id).addEventListener("click", (event) => busy(event.currentTarget, action));
  element("login-form").addEventListener("submit", logIn);
  on("logout", logOut);
  on("open", () => startSession("/api/sessions/get-or-create"));
  on("create", () => startSession("/api/sessions"));
  on("session-stop", () => stopSession(opened()));
  on("session-resume", () => resumeSession(opened()));
  on("refresh", listFiles);
  on("new-folder", makeFolder);
  element("hidden-files").addEventListener("change", listFiles);
  element("show-terminal").addEventListener("click", () => showPane("terminal"));
  element("show-files").addEventListener("click", () => showPane("files"));
  element("show-browser").addEventListener("click", () => showPane("browser"));
  element("problem-close").addEventListener("click", () => problem(null));
  element("dialog-cancel").addEventListener("click", () => element("dialog").close());
  element("upload").addEventListener("click", () => element("upload-input").click());
  element("upload-input").addEventListener("change", (event) => {
    const files = [...event.target.files];
    event.target.value = "";
    void busy(element("upload"), () => uploadAll(files));
  });
  const pane = element("files-pane");
  // What a program in the terminal made is there when somebody comes to look. No timer asks: that would count as use.
  pane.addEventListener("pointerenter", () => state.framed !== null && void listFiles());
  pane.addEventListener("dragover", (event) => {
    event.preventDefault();
    pane.classList.add("drop");
  });
  pane.addEventListener("dragleave", () => pane.classList.remove("drop"));
  pane.addEventListener("drop", (event) => {
    event.preventDefault();
    pane.classList.remove("drop");
    const files = [...event.dataTransfer.files];
    if (files.length > 0) void busy(element("upload"), () => uploadAll(files));
  });
  window.addEventListener("hashchange", route);
  setInterval(keepUp, LIST_EVERY_MS);
}

async function start() {
  connectButtons();
  try {
    showConsole(await call("GET", "/api/me"));
  } catch (error) {
    showLogin();
    if (error.status !== 401) {
      element("login-error").textContent = error.message;
      element("login-error").hidden = false;
    }
    return;
  }
  await route();
}

/** Offer what this host offers. */
async function learnFeatures() {
  try {
    state.hasBrowser = (await call("GET", "/api/features"))?.agent_browser_enabled === true;
  } catch {
    // Then there is nothing more to offer.
  }
  element("show-browser").hidden = !state.hasBrowser;
  element("session").classList.toggle("has-browser", state.hasBrowser);
}

void learnFeatures();
void start();
