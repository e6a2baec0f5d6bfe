//! The page of the documentation that lists all keys.

use super::{Config, section::Key};

/// `docs/configuration.md`, made from the keys.
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    let mut section = None;
    for key in &Config::keys() {
        let (parent, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        if section != Some(parent.to_owned()) {
            let title = if parent.is_empty() { "Top level".to_owned() } else { format!("`[{parent}]`") };
            page.push_str(&format!(
                "\n## {title}\n\n| Key | Takes | Default | What it is |\n|---|---|---|---|\n"
            ));
            section = Some(parent.to_owned());
        }
        page.push_str(&row(name, key));
    }
    page
}

fn row(name: &str, key: &Key) -> String {
    let bounds = if key.bounds.is_empty() { String::new() } else { format!(", {}", key.bounds) };
    let star = if Key::reloadable(&key.path) { " ↻" } else { "" };
    let cell = |text: &str| text.replace('|', "\\|");
    format!(
        "| `{name}`{star} | {} | `{}` | {} |\n",
        cell(&(key.takes.to_owned() + &bounds)),
        key.default,
        cell(&key.text)
    )
}

const INTRODUCTION: &str = r#"# Configuration

This page is made from the source; `starling config explain KEY` says the same on the command line, and
`starling config show` prints the values in force with the source of each.

Values come from four layers, of which the later wins:

1. defaults, as below;
2. a TOML file, named by `--config FILE` or `STARLING_CONFIG`;
3. the environment: `limits.sm.ack_timeout` is `STARLING__LIMITS__SM__ACK_TIMEOUT` (an empty variable counts as not set);
4. the command line: `--set limits.sm.ack_timeout=30s`, which may be repeated.

An unknown key and a value out of bounds keep the server from starting; all mistakes are told at once.

- Durations are text with a unit: `"500ms"`, `"5s"`, `"15m"`, `"1h"`, `"2d"`. A bare number is seconds.
- Sizes and counts are whole numbers, or text with a unit: `"256KiB"`, `"4MiB"`, `"1GiB"`.
- Rates are `"20/s"`, `"200/min"`, `"20/h"`. A bare number is in the unit of the default.
- Lists may be given as `a,b` in the environment and by `--set`.
- Addresses are `"ip:port"`, a list of them, or `"off"`. Port 0 takes any free port, which is printed at the start.
- A domain in a key needs quotes: `tls.domains."example.org".cert`.

Keys with ↻ are read again on SIGHUP without a restart, and so are certificates whose files have changed. A file that is
wrong changes nothing then, and the log says why.

```toml
domains = ["example.org"]
data_dir = "/var/lib/starling"

[tls]
cert = "/etc/starling/fullchain.pem"
key = "/etc/starling/privkey.pem"
```

The standard `OTEL_*` variables are honoured and win over `[telemetry]`: `OTEL_SDK_DISABLED`, `OTEL_SERVICE_NAME`,
`OTEL_RESOURCE_ATTRIBUTES`, `OTEL_EXPORTER_OTLP_{ENDPOINT,PROTOCOL,HEADERS,TIMEOUT}` and their `_TRACES_` forms (gRPC only),
`OTEL_TRACES_EXPORTER` (`otlp`, `none`), `OTEL_TRACES_SAMPLER{,_ARG}`, `OTEL_BSP_*`. Trace context goes between the nodes of a
cluster in any case (`OTEL_PROPAGATORS=tracecontext`), and to nobody else.
"#;
