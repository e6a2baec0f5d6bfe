//! Log lines: for people on a terminal, JSON elsewhere.

use std::{
    fmt,
    io::{self, IsTerminal},
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::filter_fn,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer, time::FormatTime, time::SystemTime},
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

use super::TelemetryError;
use crate::config::{Log, LogFormat};

/// Changes the level while the server runs.
#[derive(Debug, Clone)]
pub(super) struct Level(reload::Handle<EnvFilter, Registry>);

impl Level {
    pub(super) fn set(&self, level: &str) -> Result<(), TelemetryError> {
        let filter = filter(level)?;
        self.0.reload(filter).map_err(|error| TelemetryError::Level(error.to_string()))
    }
}

/// Sets up the log of the process, on standard output.
pub(super) fn start(log: &Log) -> Result<Level, TelemetryError> {
    let (filter, handle) = reload::Layer::new(filter(&log.level)?);
    let terminal = io::stdout().is_terminal();
    let human = match log.format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let lines = if human {
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        tracing_subscriber::fmt::layer().with_ansi(colours).with_target(false).boxed()
    } else {
        tracing_subscriber::fmt::layer().event_format(Json).boxed()
    };
    let registry = tracing_subscriber::registry().with(filter).with(filter_fn(is_harmless)).with(lines);
    registry.try_init().map_err(|_| TelemetryError::LogsSetUp)?;
    Ok(Level(handle))
}

fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    let filter = EnvFilter::try_new(level).map_err(|error| TelemetryError::Level(error.to_string()))?;
    let asked = |(target, _): &&(&str, &str)| !level.contains(target);
    Ok(QUIET.iter().filter(asked).fold(filter, |filter, (target, least)| {
        match format!("{target}={least}").parse() {
            Ok(quiet) => filter.add_directive(quiet),
            Err(_) => filter,
        }
    }))
}

/// Who says too much, with what is heard of him where nobody asks for more.
const QUIET: [(&str, &str); 2] = [
    // For every message that does not arrive what the links say once.
    ("openraft", "off"),
    // Of every connection that it is not one to ScyllaDB.
    ("scylla", "warn"),
];

/// The database driver puts keys of rows, which have addresses in them, into what it traces: never shown, at any level.
fn is_harmless(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= tracing::Level::INFO || !metadata.target().starts_with("scylla")
}

/// One JSON object per line: `time` (RFC 3339, UTC), `level`, `target`, `message`, then the fields of the event.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let metadata = event.metadata();
        let level = metadata.level().as_str().to_lowercase();
        write!(writer, "{{\"time\":\"{time}\",\"level\":\"{level}\",\"target\":{}", text(metadata.target()))?;
        let mut fields = Fields { writer: writer.by_ref(), result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        writeln!(writer, "}}")
    }
}

/// Text as JSON.
fn text(text: &str) -> serde_json::Value {
    serde_json::Value::from(text)
}

/// Writes each field as it comes, so that lines keep the order of the source.
struct Fields<'a> {
    writer: Writer<'a>,
    result: fmt::Result,
}

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<serde_json::Value>) {
        if self.result.is_ok() {
            self.result = write!(self.writer, ",{}:{}", text(field.name()), value.into());
        }
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Memory {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn keys_of_rows_are_not_shown_at_any_level() {
        #[derive(Debug, Clone, Default)]
        struct Seen(Arc<Mutex<Vec<String>>>);
        impl<S: Subscriber> Layer<S> for Seen {
            fn on_event(&self, event: &Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
                let metadata = event.metadata();
                self.0.lock().push(format!("{} {}", metadata.level(), metadata.target()));
            }
        }
        let seen = Seen::default();
        let lines = tracing_subscriber::registry()
            .with(filter("trace").unwrap())
            .with(filter_fn(is_harmless))
            .with(seen.clone());
        tracing::subscriber::with_default(lines, || {
            tracing::trace!(target: "scylla::client", "key of a row");
            tracing::debug!(target: "scylla", "key of a row");
            tracing::warn!(target: "scylla::network", "connection lost");
            tracing::error!(target: "openraft::replication", "said a hundred times a second");
            tracing::trace!(target: "starling_router", "ours");
        });
        assert_eq!(*seen.0.lock(), ["WARN scylla::network", "TRACE starling_router"]);
        assert!(filter("info,openraft=warn").unwrap().to_string().contains("openraft=warn"));
    }

    #[test]
    fn a_json_line_has_its_fields_at_the_top() {
        let memory = Memory::default();
        let layer = tracing_subscriber::fmt::layer().event_format(Json).with_writer(memory.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(event = "listener_open", port = 5222, tls = true, why = ?Some("a\"b"), "listening");
        });
        let text = String::from_utf8(memory.0.lock().clone()).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(text.starts_with("{\"time\":\""), "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "info");
        assert_eq!(line["message"], "listening");
        assert_eq!(line["event"], "listener_open");
        assert_eq!(line["port"], 5222);
        assert_eq!(line["tls"], true);
        let time = line["time"].as_str().unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
    }

    #[test]
    fn a_level_that_is_none_is_refused() {
        assert!(filter("info,starling_edge=debug").is_ok());
        assert!(matches!(filter("starling=loud"), Err(TelemetryError::Level(_))));
    }
}
