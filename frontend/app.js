// The web page: log in, start a session, see its terminal and its files.
"use strict";

const element = (id) => document.getElementById(id);
let current = null;

async function api(method, path, content) {
  const options = { method, headers: {} };
  if (content !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(content);
  }
  const response = await fetch(path, options);
  const answer = response.status === 204 ? null : await response.json();
  if (!response.ok) {
    const error = new Error([answer.error, answer.hint].filter(Boolean).join(" — "));
    error.status = response.status;
    throw error;
  }
  return answer;
}

function button(text, action) {
  const made = document.createElement("button");
  made.textContent = text;
  made.addEventListener("click", () => attempt(action));
  return made;
}

async function attempt(action) {
  element("message").textContent = "";
  try {
    await action();
  } catch (error) {
    if (error.status === 401) showLogin();
    element("message").textContent = error.message;
  }
}

function showLogin() {
  element("login").hidden = false;
  for (const id of ["main", "new", "logout"]) element(id).hidden = true;
  element("who").textContent = "";
}

async function showSessions() {
  const me = await api("GET", "/api/me");
  element("who").textContent = me.display_name;
  element("login").hidden = true;
  for (const id of ["main", "new", "logout"]) element(id).hidden = false;
  const list = element("sessions");
  list.replaceChildren();
  for (const session of await api("GET", "/api/sessions")) {
    const item = document.createElement("li");
    const path = `/api/sessions/${session.id}`;
    if (session.status === "running") {
      item.append(button(session.readable_id, () => open(session)));
      item.append(button("Stop", () => change("POST", `${path}/stop`)));
    } else {
      item.append(`${session.readable_id} (${session.status})`);
      item.append(button("Resume", () => change("POST", `${path}/resume`)));
      item.append(button("Delete", () => change("DELETE", path)));
    }
    list.append(item);
  }
}

async function change(method, path) {
  await api(method, path);
  current = null;
  element("session").hidden = true;
  element("terminal").removeAttribute("src");
  await showSessions();
}

async function open(session) {
  current = session;
  element("session").hidden = false;
  element("terminal").src = session.urls.terminal;
  await showFolder(".");
}

async function showFolder(path) {
  const files = `/api/sessions/${current.id}/files`;
  const entries = await api("GET", `${files}/tree?depth=1&path=${encodeURIComponent(path)}`);
  element("folder").textContent = path === "." ? "Files" : path;
  const list = element("files");
  list.replaceChildren();
  const add = (child) => list.appendChild(document.createElement("li")).append(child);
  if (path !== ".") add(button("..", () => showFolder(path.split("/").slice(0, -1).join("/") || ".")));
  add(button("Refresh", () => showFolder(path)));
  for (const entry of entries) {
    if (entry.type === "directory") {
      add(button(`${entry.name}/`, () => showFolder(entry.path)));
    } else {
      const link = document.createElement("a");
      link.textContent = entry.name;
      link.href = `${files}/file?path=${encodeURIComponent(entry.path)}`;
      link.download = entry.name;
      add(link);
    }
  }
}

element("login").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(async () => {
    await api("POST", "/api/auth/login", Object.fromEntries(new FormData(event.target)));
    event.target.reset();
    await showSessions();
  });
});
element("new").addEventListener("click", () =>
  attempt(async () => {
    const session = await api("POST", "/api/sessions", {});
    await showSessions();
    await open(session);
  }),
);
element("logout").addEventListener("click", () =>
  attempt(async () => {
    await api("POST", "/api/auth/logout");
    element("session").hidden = true;
    showLogin();
  }),
);
showSessions().catch(showLogin);
