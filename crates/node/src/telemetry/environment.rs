//! The standard `OTEL_*` variables, as far as the SDK does not read them itself.
//!
//! Read here: `OTEL_SDK_DISABLED`, `OTEL_TRACES_EXPORTER`, `OTEL_EXPORTER_OTLP_ENDPOINT`,
//! `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG`, `OTEL_PROPAGATORS`,
//! `OTEL_BSP_MAX_QUEUE_SIZE`. Read by the SDK and the exporter: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
//! `OTEL_BSP_*`, `OTEL_EXPORTER_OTLP_{PROTOCOL,HEADERS,TIMEOUT,COMPRESSION,INSECURE}` and their `_TRACES_` forms.

use super::{StanzaKind, sampler::Sampler};
use crate::config::TelemetrySettings;

/// What the `OTEL_*` variables say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OtelEnvironment {
    /// `OTEL_SDK_DISABLED`, or `OTEL_TRACES_EXPORTER=none`: export nothing, whatever else is set.
    pub disabled: bool,
    /// The endpoint for spans.
    pub endpoint: Option<String>,
    /// One ratio for all kinds, from `OTEL_TRACES_SAMPLER`. The bucket of new traces bounds it still.
    pub ratio: Option<f64>,
    /// `OTEL_BSP_MAX_QUEUE_SIZE` is set, and wins over the settings.
    pub own_queue_size: bool,
    /// What was set and cannot be honoured.
    pub warnings: Vec<String>,
}

impl OtelEnvironment {
    /// Reads the variables.
    pub fn read(env: &[(String, String)]) -> Self {
        let value = |name: &str| {
            let found = env.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
        };
        let mut read = Self::default();
        let exporter = value("OTEL_TRACES_EXPORTER").unwrap_or("otlp");
        if !["otlp", "none"].contains(&exporter) {
            read.warn("OTEL_TRACES_EXPORTER", exporter, "otlp, none");
        }
        let off = value("OTEL_SDK_DISABLED").is_some_and(|flag| flag.eq_ignore_ascii_case("true"));
        read.disabled = off || exporter == "none";
        let endpoint =
            value("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| value("OTEL_EXPORTER_OTLP_ENDPOINT"));
        read.endpoint = endpoint.map(str::to_owned);
        read.own_queue_size = value("OTEL_BSP_MAX_QUEUE_SIZE").is_some();
        read.sampler_of(value("OTEL_TRACES_SAMPLER"), value("OTEL_TRACES_SAMPLER_ARG"));
        read.propagators_of(value("OTEL_PROPAGATORS"));
        read
    }

    /// Where spans go: the variables win over the settings. `None` when they go nowhere.
    pub fn endpoint(&self, settings: &TelemetrySettings) -> Option<String> {
        let chosen = self.endpoint.clone().or_else(|| settings.otlp_endpoint.0.clone());
        chosen.filter(|_| !self.disabled)
    }

    /// The sampler that variables and settings ask for.
    pub fn sampler(&self, settings: &TelemetrySettings) -> Sampler {
        let sample = settings.sample.clone();
        let ratio = |kind| {
            self.ratio.unwrap_or(match kind {
                StanzaKind::Message => sample.message,
                StanzaKind::Iq => sample.iq,
                StanzaKind::Presence => sample.presence,
                StanzaKind::Login => sample.login,
            })
        };
        Sampler::new(ratio, settings.traces_per_second)
    }

    fn sampler_of(&mut self, name: Option<&str>, argument: Option<&str>) {
        match name {
            None => {}
            // We only begin traces, so what has a parent and what has none is the same to us.
            Some("always_on" | "parentbased_always_on") => self.ratio = Some(1.0),
            Some("always_off" | "parentbased_always_off") => self.ratio = Some(0.0),
            Some("traceidratio" | "parentbased_traceidratio") => {
                let ratio = argument.unwrap_or("1").parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
                if ratio.is_none() {
                    self.warn(
                        "OTEL_TRACES_SAMPLER_ARG",
                        argument.unwrap_or_default(),
                        "a number from 0 to 1",
                    );
                }
                self.ratio = ratio;
            }
            Some(other) => self.warn("OTEL_TRACES_SAMPLER", other, "always_on, always_off, traceidratio"),
        }
    }

    /// Trace context goes to other nodes of ours in any case, and never to anybody else.
    fn propagators_of(&mut self, names: Option<&str>) {
        for name in names.unwrap_or_default().split(',').map(str::trim) {
            if !["", "tracecontext", "baggage"].contains(&name) {
                self.warn("OTEL_PROPAGATORS", name, "tracecontext");
            }
        }
    }

    fn warn(&mut self, name: &str, value: &str, known: &str) {
        self.warnings.push(format!("{name}={value} (known: {known})"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> OtelEnvironment {
        let env: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        OtelEnvironment::read(&env)
    }

    #[test]
    fn nothing_is_exported_unless_asked_for() {
        let mut settings = TelemetrySettings::default();
        assert_eq!(read(&[]).endpoint(&settings), None);
        settings.otlp_endpoint.0 = Some("http://set:4317".to_owned());
        assert_eq!(read(&[]).endpoint(&settings).as_deref(), Some("http://set:4317"));
        let env = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://env:4317")]);
        assert_eq!(env.endpoint(&settings).as_deref(), Some("http://env:4317"));
        for off in [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(read(&[off]).endpoint(&settings), None, "{off:?}");
        }
    }

    #[test]
    fn the_sampler_variable_wins_over_the_settings() {
        assert_eq!(read(&[("OTEL_TRACES_SAMPLER", "always_on")]).ratio, Some(1.0));
        assert_eq!(read(&[("OTEL_TRACES_SAMPLER", "parentbased_always_off")]).ratio, Some(0.0));
        let ratio = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.5")];
        assert_eq!(read(&ratio).ratio, Some(0.5));
        assert_eq!(read(&[]).ratio, None);
    }

    #[test]
    fn what_cannot_be_honoured_is_said() {
        let env = read(&[
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_PROPAGATORS", "b3,tracecontext"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
        ]);
        assert_eq!(env.warnings.len(), 3, "{:?}", env.warnings);
        assert!(read(&[("OTEL_PROPAGATORS", "tracecontext, baggage")]).warnings.is_empty());
        let never = read(&[("OTEL_PROPAGATORS", "none")]).warnings;
        assert_eq!(never, ["OTEL_PROPAGATORS=none (known: tracecontext)"], "it cannot be turned off");
        let bad = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "seven")];
        assert_eq!((read(&bad).ratio, read(&bad).warnings.len()), (None, 1));
    }
}
