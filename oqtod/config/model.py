"""The configuration as typed structures: sections, keys, defaults, bounds and descriptions, nothing else.

A key is written down here (or, for what oqtod works with, in `oqtod.config.integrations`) and nowhere else.
Loading, checking, ``show``, ``init``, the JSON Schema and the tables of ``docs/configuration.md`` are all
made from these fields, by way of `oqtod.config.keys`.
"""

from typing import Annotated, Literal

from msgspec import Meta, field

from .integrations import AgentBrowser, Eavs, Feedback, OnboardingTemplates, Scaffold, Templates
from .metadata import PathText, Section, UrlText, Word, key

# `(?!\n)` as in `oqtod.config.metadata`.
_ACCOUNT_PREFIX = r"^[a-z_][a-z0-9_]*$(?!\n)"
_GROUP_NAME = r"^[a-z_][a-z0-9_-]*$(?!\n)"
_HOST = r"^[A-Za-z0-9_.:%-]+$(?!\n)"
_NETWORK = r"^[0-9a-fA-F.:]+(/[0-9]{1,3})?$(?!\n)"
_LOGIN_SHELL = r"^/[^\s:]+$(?!\n)"  # a colon or newline would end the field in /etc/passwd
_BCRYPT = r"^\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}$(?!\n)"


class Logging(Section, frozen=True):
    """What oqtod says about itself, where it says it, and the audit log."""

    level: Annotated[
        Literal["error", "warn", "info", "debug", "trace"],
        key("Log level: error, warn, info, debug, trace"),
    ] = "info"
    file: Annotated[
        PathText | None,
        key(
            "Optional log file path (supports ~ and env vars)",
            kind="path",
            shown="(none)",
            example="~/oqto.log",
        ),
    ] = None
    audit_enabled: Annotated[bool, key("Enable JSONL audit logging")] = True
    audit_file: Annotated[
        PathText | None,
        key(
            "Audit log path (default: `$XDG_STATE_HOME/oqto/audit.log.jsonl`), "
            "or `audit.log.jsonl` in `paths.state_dir` where that is set",
            kind="path",
            shown="(auto)",
            example="$XDG_STATE_HOME/oqto/audit.log.jsonl",
        ),
    ] = None


class Server(Section, frozen=True):
    """Where the gateway listens, and what it takes and serves."""

    max_upload_size_mb: Annotated[
        int, Meta(ge=1, le=1_048_576), key("Maximum file upload size in MB", unit="MB")
    ] = 100
    admin_socket_path: Annotated[PathText, key("Unix socket for oqtoctl", kind="path")] = (
        "/run/oqto/oqtoctl.sock"
    )
    host: Annotated[
        str,
        Meta(min_length=1, max_length=253, pattern=_HOST),
        key("Address to listen on", allowed="an IP address or a host name, without brackets and port"),
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535), key("TCP port to listen on; 0 takes any free one")] = 8080
    frontend_dir: Annotated[
        PathText | None,
        key(
            "Folder of the built web UI; without it the page that comes with oqtod is served",
            kind="path",
            shown="(built in)",
            example="/usr/share/oqto/frontend",
        ),
    ] = None
    trusted_proxies: Annotated[
        list[Annotated[str, Meta(max_length=64, pattern=_NETWORK)]],
        key(
            "Reverse proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed",
            kind="networks",
            example=["127.0.0.1"],
            allowed="IP addresses, or networks like 10.0.0.0/8",
        ),
    ] = field(default_factory=list)
    metrics: Annotated[
        bool,
        key("Serve `GET /metrics` on the TCP port too, to administrators; the admin socket always does"),
    ] = False


class Runtime(Section, frozen=True):
    """How oqtod works: its workers and its patience."""

    parallelism: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | None,
        key("Worker pool size", shown="(CPU count)", example=8),
    ] = None
    timeout: Annotated[int, Meta(ge=1, le=86_400), key("Operation timeout in seconds", unit="seconds")] = 60
    fail_fast: Annotated[bool, key("Fail fast on errors")] = True


class Paths(Section, frozen=True):
    """Where oqtod keeps what must last."""

    data_dir: Annotated[PathText, key("Persistent data directory", kind="path")] = "$XDG_DATA_HOME/oqto"
    state_dir: Annotated[PathText, key("Machine-specific state directory", kind="path")] = (
        "$XDG_STATE_HOME/oqto"
    )


class Container(Section, frozen=True):
    """Sessions in docker or podman, which is how they run while `local.enabled` is false."""

    runtime: Annotated[
        Literal["docker", "podman"] | None, key('"docker" or "podman"', shown="(auto)", example="podman")
    ] = None
    binary: Annotated[
        PathText | None,
        key(
            "Custom container runtime binary", kind="program", shown="(auto)", example="/usr/local/bin/docker"
        ),
    ] = None
    default_image: Annotated[Word, key("Container image for sessions")] = "oqto-dev:latest"
    base_port: Annotated[
        # The highest base still leaves one session its block of 13 ports.
        int, Meta(ge=1024, le=65_523), key("Starting port for session services")
    ] = 41820
    skel_path: Annotated[
        PathText | None,
        key("Skeleton directory for new user homes", kind="path", shown="(none)", example="./container/skel"),
    ] = None


class LinuxUsers(Section, frozen=True):
    """Host mode: each user gets a Linux account of their own, which the supervisor (root) makes."""

    enabled: Annotated[bool, key("Enable Linux user isolation")] = False
    prefix: Annotated[
        str,
        Meta(min_length=1, max_length=16, pattern=_ACCOUNT_PREFIX),
        key(
            "Username prefix",
            allowed="1 to 16 of a-z, 0-9 and _, not starting with a digit",
        ),
    ] = "oqto_"
    uid_start: Annotated[int, Meta(ge=1000, le=60_000), key("Starting UID")] = 2000
    group: Annotated[
        str,
        Meta(min_length=1, max_length=32, pattern=_GROUP_NAME),
        key(
            "Shared group",
            allowed="a group name: 1 to 32 of a-z, 0-9, _ and -, starting with a letter or _",
        ),
    ] = "oqto"
    shell: Annotated[
        str,
        Meta(max_length=255, pattern=_LOGIN_SHELL),
        key("User shell", allowed="an absolute path without blanks and colons"),
    ] = "/bin/bash"
    use_sudo: Annotated[bool, key("Use sudo for user creation")] = True
    create_home: Annotated[bool, key("Create home directories")] = True


class Local(Section, frozen=True):
    """Sessions on this host: as yourself (personal mode) or as Linux accounts (host mode)."""

    enabled: Annotated[bool, key("Enable local mode")] = False
    fileserver_binary: Annotated[PathText, key("Path to oqto-files", kind="program")] = "fileserver"
    ttyd_binary: Annotated[PathText, key("Path to ttyd", kind="program")] = "ttyd"
    workspace_dir: Annotated[
        PathText,
        key(
            "Workspace root (supports `{user_id}`); `~` and `$HOME` are those of the session's account",
            kind="account_path",
        ),
    ] = "$HOME/oqto/{user_id}"
    single_user: Annotated[bool, key("Single-user mode")] = False
    runner_socket_pattern: Annotated[
        PathText | None,
        key(
            "Runner socket path (supports `{user}`, `{uid}`)",
            kind="socket_pattern",
            shown="(none)",
            example="/run/oqto/runner-sockets/{user}/oqto-runner.sock",
        ),
    ] = None
    cleanup_on_startup: Annotated[bool, key("Kill sessions on backend start")] = False
    stop_sessions_on_shutdown: Annotated[bool, key("Kill sessions on backend stop")] = False
    linux_users: LinuxUsers = field(default_factory=LinuxUsers)


class Runner(Section, frozen=True):
    """The runner's name, and where the agents of an account keep their things."""

    runner_id: Annotated[
        Word | None, key("Human-readable runner ID", shown="(hostname)", example="workstation-1")
    ] = None
    pi_sessions_dir: Annotated[PathText, key("Pi session files directory", kind="account_path")] = (
        "~/.local/share/pi/sessions"
    )
    memories_dir: Annotated[PathText, key("Memories database directory", kind="account_path")] = (
        "~/.local/share/mmry"
    )


class DevUser(Section, frozen=True):
    """Somebody who can log in with a password that stands, hashed, in this file."""

    id: Annotated[
        str,
        Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x20/\\]+$(?!\n)"),
        key(
            "What the user is called inside oqtod",
            example="dev",
            allowed="1 to 64 characters, no blanks and slashes",
        ),
    ]
    name: Annotated[
        str, Meta(min_length=1, max_length=128), key("Name that is shown to people", example="Developer")
    ]
    email: Annotated[
        str,
        Meta(max_length=254, pattern=r"^[^@\s]+@[^@\s]+$(?!\n)"),
        key("E-mail address", example="dev@localhost", allowed="one address, like dev@localhost"),
    ]
    password_hash: Annotated[
        str,
        Meta(pattern=_BCRYPT),
        key(
            "bcrypt hash of the password, as `oqtoctl hash-password` prints it",
            kind="secret",
            example="$2b$12$...",
            allowed="a bcrypt hash ($2b$, $2a$ or $2y$, 60 characters), as `oqtoctl hash-password` prints it",
        ),
    ]
    role: Annotated[Literal["user", "admin", "service"], key("What the user may do")] = "user"


class Auth(Section, frozen=True):
    """Who may log in, and how that is proved."""

    dev_mode: Annotated[bool, key("Enable dev mode")] = True
    jwt_secret: Annotated[
        Annotated[str, Meta(min_length=32, max_length=4096)] | None,
        key(
            "JWT signing secret (32+ chars); required when `dev_mode` is false",
            kind="secret",
            shown="(required in prod)",
            example="env:AUTH_JWT_SECRET",
        ),
    ] = None
    oidc_issuer: Annotated[
        UrlText | None,
        key("OIDC provider URL", kind="url", shown="(none)", example="https://auth.example.com"),
    ] = None
    oidc_audience: Annotated[
        Word | None, key("OIDC audience/app ID", shown="(none)", example="your-app-id")
    ] = None
    oidc_client_secret: Annotated[
        Annotated[str, Meta(min_length=1, max_length=4096)] | None,
        key(
            "Secret of the app at the OIDC provider, where it wants one besides PKCE",
            kind="secret",
            shown="(none)",
            example="env:OIDC_CLIENT_SECRET",
        ),
    ] = None
    allowed_origins: Annotated[
        list[UrlText] | None,
        key(
            "CORS allowed origins, besides the server's own",
            kind="origins",
            shown="(auto in dev)",
            example=["https://your-domain.com"],
            allowed="origins as browsers send them, like https://example.com or http://localhost:3000: "
            "http or https, lower case, no path, no * and no null",
        ),
    ] = None
    dev_users: Annotated[
        list[DevUser], key("Users that log in with a password kept here; a `[[auth.dev_users]]` for each")
    ] = field(default_factory=list)


class Sessions(Section, frozen=True):
    """How many sessions a person has, and when one that nobody uses is stopped."""

    auto_attach: Annotated[
        Literal["off", "attach", "resume", "on"], key("Auto-attach behavior: off, attach, resume, on")
    ] = "on"
    auto_attach_scan: Annotated[bool, key("Scan running sessions before attaching")] = True
    max_concurrent_sessions: Annotated[int, Meta(ge=1, le=10_000), key("Max running sessions per user")] = 6
    idle_timeout_minutes: Annotated[
        float,
        Meta(ge=0, le=525_600),
        key("Idle timeout before stopping; fractions are fine, 0 is never", unit="minutes"),
    ] = 30
    idle_check_interval_seconds: Annotated[
        float,
        Meta(ge=0, le=86_400),
        key("Idle check interval; fractions are fine, 0 is never", unit="seconds"),
    ] = 300
    busy_cpu_percent: Annotated[
        float,
        Meta(gt=0, le=100),
        key("Above this CPU use, in percent of one core, a session counts as used", unit="percent"),
    ] = 5.0


class Limits(Section, frozen=True):
    """What one user may take of the host, all sessions together. Written as systemd writes it."""

    memory_max: Annotated[
        Annotated[str, Meta(pattern=r"^([1-9][0-9]*[KMGT]?|[1-9][0-9]?%|100%|infinity)$(?!\n)")] | None,
        key(
            "Memory per user (systemd's MemoryMax)",
            shown="(no limit)",
            example="4G",
            allowed="bytes, or a number with K, M, G, T or %, or infinity",
        ),
    ] = None
    tasks_max: Annotated[
        Annotated[int, Meta(ge=16, le=4_194_304)] | None,
        key(
            "Processes and threads per user (systemd's TasksMax)",
            unit="tasks",
            shown="(no limit)",
            example=1024,
        ),
    ] = None
    cpu_quota: Annotated[
        Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,5}%$(?!\n)")] | None,
        key(
            "CPU time per user, in percent of one core (systemd's CPUQuota)",
            shown="(no limit)",
            example="200%",
            allowed="a percentage like 200%, which is two cores",
        ),
    ] = None


class Config(Section, frozen=True):
    """The configuration of oqtod."""

    schema_url: Annotated[
        str | None,
        key(
            "Where an editor finds the JSON Schema of this file; `oqtod config schema` prints it",
            shown="(none)",
            example="./oqto.schema.json",
        ),
    ] = field(default=None, name="$schema")
    profile: Annotated[Word, key("Name of this configuration")] = "default"
    logging: Logging = field(default_factory=Logging)
    server: Server = field(default_factory=Server)
    runtime: Runtime = field(default_factory=Runtime)
    paths: Paths = field(default_factory=Paths)
    container: Container = field(default_factory=Container)
    local: Local = field(default_factory=Local)
    runner: Runner = field(default_factory=Runner)
    agent_browser: AgentBrowser = field(default_factory=AgentBrowser)
    eavs: Eavs = field(default_factory=Eavs)
    auth: Auth = field(default_factory=Auth)
    sessions: Sessions = field(default_factory=Sessions)
    limits: Limits = field(default_factory=Limits)
    templates: Templates = field(default_factory=Templates)
    onboarding_templates: OnboardingTemplates = field(default_factory=OnboardingTemplates)
    feedback: Feedback = field(default_factory=Feedback)
    scaffold: Scaffold = field(default_factory=Scaffold)
