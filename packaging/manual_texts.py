"""What the manual says of each program beside its options: environment, files, exit codes, examples."""

from __future__ import annotations

from dataclasses import dataclass


class Code(str):
    """Lines that are to be typed, or stand in a file."""


Definition = tuple[str, str]
Block = str | Code | Definition


@dataclass(frozen=True)
class Program:
    """A program: its page, and where its options are: a click command, or a function that returns an
    argparse parser."""

    name: str
    section: int
    summary: str
    source: str
    more: dict[str, list[Block]]
    see_also: tuple[str, ...] = ()


_EXITS: list[Block] = [
    ("0", "done"),
    ("1", "failed"),
    ("2", "the command line is wrong, or what was asked for can't be"),
    ("3", "the configuration, or a sandbox file, is refused"),
    ("4", "the daemon can't be reached"),
    ("5", "not permitted"),
]

_BROWSER_VARIABLES: list[Block] = [
    ("OQTO_BROWSER_SOCKET", "The daemon's socket. Who finds it set starts no daemon."),
    ("OQTO_BROWSER_START", "A socket of whoever can start the daemon; asked where there is none."),
    ("AGENT_BROWSER_SOCKET_DIR", "The folder of sockets: yours, with mode 0700."),
    ("AGENT_BROWSER_STREAM_PORT", "A stream on this port of 127.0.0.1 too, for who brings the token."),
]

_CONFIG_FILES: list[Block] = [
    (
        "/etc/oqto/config.toml",
        "The configuration, where there is neither --config nor OQTO_CONFIG nor a file of one's own.",
    ),
    ("$XDG_CONFIG_HOME/oqto/config.toml", "A file of one's own; XDG_CONFIG_HOME is ~/.config if unset."),
    ("/etc/oqto/sandbox.toml", "What sessions may see and do."),
]

_CONFIG_ENVIRONMENT: list[Block] = [
    ("OQTO_CONFIG", "The configuration file."),
    (
        "OQTO__SECTION__KEY",
        "Sets a key of the configuration, as OQTO__SERVER__PORT=9000. Written as in TOML.",
    ),
    ("OQTO_LOG, RUST_LOG", "The log level: error, warn, info, debug or trace."),
]

PROGRAMS = [
    Program(
        "oqtod",
        8,
        "terminals, files and browsers for the people and agents of one host",
        "oqtod.commands.main:main",
        {
            "EXIT STATUS": _EXITS,
            "ENVIRONMENT": [
                *_CONFIG_ENVIRONMENT,
                ("OQTO_DATABASE_PATH", "The database; else oqto.db in paths.data_dir."),
                ("OQTO_FRONTEND_DIR", "Folder of the web page."),
                ("NO_COLOR", "No colours, whatever the terminal."),
            ],
            "FILES": [
                *_CONFIG_FILES,
                ("/var/lib/oqtod/", "The database. Of the account oqtod, 0700."),
                ("/var/lib/oqtod-supervisor/", "Which accounts were made, and every uid ever given out."),
                ("/run/oqto/supervisor.sock", "Where the supervisor answers the gateway."),
                ("/run/oqto/oqtoctl.sock", "Where the gateway answers oqtoctl."),
                ("/run/oqto/runner-sockets/ACCOUNT/", "Where systemd listens for an account's runner."),
            ],
            "SIGNALS": [
                (
                    "SIGHUP",
                    "Read the configuration again: the log level and file change, everything else with a "
                    "restart. systemctl reload oqtod sends it.",
                ),
                ("SIGTERM, SIGINT", "End in order. Sessions go on in host mode, and end in personal mode."),
            ],
            "EXAMPLES": [
                "To try it as yourself, without root, systemd or a configuration file:",
                Code("oqtod serve --personal"),
                "To start it on a server, and to see what runs:",
                Code("systemctl start oqtod\nsystemctl status oqto.slice\njournalctl -u 'oqto*'"),
            ],
        },
        ("oqtoctl(8)", "oqto-runner(8)", "oqto-config.toml(5)", "systemctl(1)", "journalctl(1)"),
    ),
    Program(
        "oqtoctl",
        8,
        "administer oqtod",
        "oqtod.admin.oqtoctl:main",
        {
            "OUTPUT": [
                "On a terminal, tables have colours and fit its width. Elsewhere they are aligned text with "
                "a heading, one row a line, nothing cut, and - where there is nothing to say. With --json, "
                "standard output is the document that the API answers with, and errors are documents on "
                "standard error with error, error_code and, where there is one, hint. Fields are added in "
                "later versions, never renamed or dropped.",
            ],
            "WHERE OQTOD IS": [
                "The first of these that is given: --admin-socket or --server on the command line, "
                "OQTO_ADMIN_SOCKET, OQTO_SERVER_URL. Else the first where somebody listens: "
                "server.admin_socket_path of the configuration, /run/oqto/oqtoctl.sock, and oqtoctl.sock in "
                "one's own paths.state_dir, which is where oqtod serve --personal listens. A socket that was "
                "not named is used only if root or yourself listen there.",
                "Who may use the admin socket: root, and members of the group oqto-admin. Membership is "
                "looked up each time. To let somebody in, and out again:",
                Code("adduser alice oqto-admin\ndeluser alice oqto-admin"),
                "With --server, a token is needed: an API key with the scope admin. It is sent over https, "
                "or to this host.",
            ],
            "EXIT STATUS": _EXITS,
            "ENVIRONMENT": [
                ("OQTO_ADMIN_SOCKET", "Use this admin socket."),
                ("OQTO_SERVER_URL", "Use the server there, with a token."),
                ("OQTO_TOKEN", "The token, where there is no --token-file."),
                *_CONFIG_ENVIRONMENT[:2],
                ("NO_COLOR", "No colours, whatever the terminal."),
            ],
            "FILES": [
                ("/run/oqto/oqtoctl.sock", "The admin socket. oqtod:oqto-admin, 0660."),
                *_CONFIG_FILES,
            ],
            "EXAMPLES": [
                "A course of many people, from a file with the columns username, email and password:",
                Code("oqtoctl user create --from course.csv --provision"),
                "Who uses most of the host, and ending that:",
                Code("oqtoctl session top\noqtoctl session stop brave-otter-4711"),
                "Somebody has left:",
                Code("oqtoctl user disable alice\noqtoctl user delete alice --remove-home"),
                "For a monitoring system:",
                Code("oqtoctl status --json || echo 'oqtod is not well'"),
            ],
        },
        ("oqtod(8)", "oqto-sandbox(1)", "oqto-config.toml(5)", "adduser(8)"),
    ),
    Program(
        "oqto-runner",
        8,
        "run the oqtod sessions of one account",
        "runner.main:parser",
        {
            "EXIT STATUS": _EXITS[:4],
            "ENVIRONMENT": [
                ("LISTEN_FDS, LISTEN_PID", "The socket that systemd passes, see sd_listen_fds(3)."),
                ("RUNTIME_DIRECTORY", "Where sessions have their sockets, see systemd.exec(5)."),
                ("OQTO_RUNNER_ID", "What names this runner to people; else the host's name."),
                ("OQTO_LOG", "The log level: error, warn, info, debug or trace."),
            ],
            "FILES": [
                ("/run/oqto/runner-sockets/ACCOUNT/oqto-runner.sock", "Where systemd listens for it."),
                ("/run/oqto/runners/ACCOUNT/", "Its sessions' sockets, and what the next runner must know."),
            ],
            "NOTES": [
                "In host mode systemd starts it when its socket is first used: oqto-runner@ACCOUNT.socket. A "
                "runner that ends, crashes or is replaced leaves its sessions running, each in a control "
                "group of its own, and the next one takes them over. To start one anew:",
                Code("oqtoctl runner restart ACCOUNT"),
            ],
        },
        ("oqtod(8)", "oqtoctl(8)", "oqto-sandbox(1)", "systemd.resource-control(5)"),
    ),
    Program(
        "oqto-files",
        1,
        "serve the files of one folder over HTTP",
        "runner.files.main:parser",
        {
            "EXIT STATUS": _EXITS[:3],
            "NOTES": [
                "It asks nobody who they are: put it on a Unix socket, which only its own account can open, "
                "or on loopback where everybody on the host may see the files. Nothing outside the folder is "
                "reached, symbolic links included.",
            ],
            "EXAMPLES": [
                Code("oqto-files --root ~/project --socket /run/user/1000/files.sock"),
                Code("curl --unix-socket /run/user/1000/files.sock 'http://localhost/tree?path=.&depth=2'"),
            ],
        },
        ("oqtod(8)",),
    ),
    Program(
        "oqto-ttyd",
        1,
        "serve a terminal to browsers, which outlives their connections",
        "runner.terminal.main:parser",
        {
            "EXIT STATUS": _EXITS[:3],
            "EXAMPLES": [
                Code("oqto-ttyd -W -p 7681 bash -l"),
                Code("oqto-ttyd -W -i /run/user/1000/terminal.sock -w ~/project bash -l"),
            ],
        },
        ("oqtod(8)", "ttyd(1)", "tmux(1)"),
    ),
    Program(
        "oqto-browserd",
        1,
        "run the browser of a session, show it, and have it driven",
        "runner.browser.main:parser",
        {
            "EXIT STATUS": _EXITS[:3],
            "ENVIRONMENT": _BROWSER_VARIABLES,
            "EXAMPLES": [Code("oqto-browserd --session shop serve --socket /run/user/1000/shop.sock")],
        },
        ("oqto-browser(1)", "oqtod(8)", "chromium(1)"),
    ),
    Program(
        "oqto-browser",
        1,
        "drive the browser of the session that one is in",
        "runner.browser.main:client_parser",
        {
            "EXIT STATUS": _EXITS[:3],
            "ENVIRONMENT": _BROWSER_VARIABLES,
            "EXAMPLES": [
                Code("oqto-browser open http://localhost:$PORT/"),
                Code("oqto-browser snapshot -i"),
                Code("oqto-browser click text=Save"),
            ],
        },
        ("oqto-browserd(1)", "oqtod(8)"),
    ),
    Program(
        "oqto-sandbox",
        1,
        "run a program as a session of oqtod would, and ask what that means",
        "runner.sandbox.main:parser",
        {
            "FILES": [
                ("/etc/oqto/sandbox.toml", "Rules, in host mode."),
                ("~/.config/oqto/sandbox.toml", "Tightens them; rules in personal mode."),
                ("DIR/.oqto/sandbox.toml", "Tightens them for one workspace."),
            ],
            "EXAMPLES": [
                Code("oqto-sandbox -- make test"),
                Code("oqto-sandbox explain ~/.ssh ./src"),
                Code("oqto-sandbox --workspace ~/project --json show"),
            ],
        },
        ("oqtoctl(8)", "bwrap(1)"),
    ),
]
"""Every program that has a page. The manual is made of this, and so is docs/commands.md."""
