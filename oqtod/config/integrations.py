"""The sections about what oqtod works with: browser, EAVS, templates, feedback, scaffolding."""

from typing import Annotated, Literal

from msgspec import Meta, field

from .metadata import PathText, Section, UrlText, Word, key


class AgentBrowser(Section, frozen=True):
    """A browser in each session, streamed to the person who watches."""

    enabled: Annotated[bool, key("Enable agent-browser integration")] = False
    binary: Annotated[PathText, key("Browser daemon binary", kind="program")] = "oqto-browserd"
    headed: Annotated[bool, key("Headed browser windows")] = False
    stream_port_base: Annotated[int, Meta(ge=1024, le=65_535), key("Screencast WebSocket base port")] = 30000
    stream_port_range: Annotated[
        int, Meta(ge=1, le=64_512), key("Port range for per-session streams", unit="ports")
    ] = 10000
    executable_path: Annotated[
        PathText | None,
        key("Custom Chromium path", kind="program", shown="(auto)", example="/usr/bin/chromium"),
    ] = None
    extensions: Annotated[list[PathText], key("Browser extensions to load", kind="path")] = field(
        default_factory=list
    )


class Eavs(Section, frozen=True):
    """EAVS, the proxy to language models: a budgeted key for each session."""

    enabled: Annotated[bool, key("Enable EAVS integration")] = True
    base_url: Annotated[UrlText, key("EAVS server URL", kind="url")] = "http://localhost:41800"
    container_url: Annotated[
        UrlText | None,
        key(
            "EAVS URL for containers",
            kind="url",
            shown="(none)",
            example="http://host.containers.internal:41800",
        ),
    ] = None
    master_key: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        key("EAVS admin master key", kind="secret", shown="(none)", example="env:EAVS_MASTER_KEY"),
    ] = None
    default_session_budget_usd: Annotated[
        float, Meta(ge=0, le=1_000_000), key("Default session budget", unit="USD")
    ] = 10.0
    default_session_rpm: Annotated[
        int, Meta(ge=1, le=1_000_000), key("Default rate limit", unit="requests per minute")
    ] = 60


class Templates(Section, frozen=True):
    """Project templates."""

    type: Annotated[Literal["remote", "local"], key('Template source: "remote" or "local"')] = "remote"
    repo_path: Annotated[
        PathText | None,
        key("Local path to templates repo", kind="path", shown="(none)", example="/path/to/oqto-templates"),
    ] = None
    sync_on_list: Annotated[bool, key("Sync before listing")] = True
    sync_interval_seconds: Annotated[
        int, Meta(ge=0, le=604_800), key("Min seconds between syncs", unit="seconds")
    ] = 120


class OnboardingTemplates(Section, frozen=True):
    """What a new user is greeted with."""

    sync_enabled: Annotated[bool, key("Fetch newer templates")] = True
    sync_interval_seconds: Annotated[
        int, Meta(ge=0, le=604_800), key("Min seconds between syncs", unit="seconds")
    ] = 300
    use_embedded_fallback: Annotated[
        bool, key("Use the templates that come with oqtod when none can be fetched")
    ] = True
    branch: Annotated[Word, key("Git branch to take them from")] = "main"
    subdirectory: Annotated[Word, key("Folder in the repository that holds them")] = "agents"


class Feedback(Section, frozen=True):
    """What users say about oqtod."""

    keep_public: Annotated[bool, key("Keep public feedback where everybody can read it")] = True
    sync_interval_seconds: Annotated[
        int, Meta(ge=0, le=604_800), key("Min seconds between syncs", unit="seconds")
    ] = 60


class Scaffold(Section, frozen=True):
    """The program that makes a project from a template, and how it wants its arguments."""

    binary: Annotated[PathText, key("Scaffolding tool binary", kind="program")] = "byt"
    subcommand: Annotated[Word, key("Subcommand to invoke")] = "new"
    template_arg: Annotated[Word, key("Template name argument")] = "--template"
    output_arg: Annotated[Word, key("Output directory argument")] = "--output"
    github_arg: Annotated[Word, key("GitHub repo creation argument")] = "--github"
    private_arg: Annotated[Word, key("Private repo argument")] = "--private"
    description_arg: Annotated[Word, key("Description argument")] = "--description"
