//! `starling check`: what would keep the server from running well, with a remedy for each.

mod certificates;
mod cluster;
mod machine;
mod store;

pub(crate) use machine::now_seconds;

use std::process::ExitCode;

use serde::Serialize;
use starling_admin::{Client, api::StatusBody};
use starling_node::{Config, ConfigErrors, Sources, config::ConfigError};

use crate::{
    cli::{CheckArguments, CheckRole, Output},
    failure::Failure,
    print::{self, Colours},
};

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    Doubtful,
    Bad,
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    verdict: Verdict,
    /// What was looked at: `config`, `tls`, `data_dir`, `listen`, `machine`, `store`, `cluster`.
    part: &'static str,
    /// What was found.
    text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Finding {
    fn good(part: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Good, part, text: text.into(), remedy: None }
    }

    fn doubtful(part: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Doubtful, part, text: text.into(), remedy: Some(remedy.into()) }
    }

    fn bad(part: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Bad, part, text: text.into(), remedy: Some(remedy.into()) }
    }
}

/// Prints the list and ends with 0, 1 or 2.
pub(crate) fn run(sources: &Sources, arguments: &CheckArguments) -> Result<ExitCode, Failure> {
    let findings = match Config::load(sources) {
        Err(errors) => wrong(&errors),
        Ok(config) => look(&config, sources, arguments.role)?,
    };
    match arguments.output {
        Output::Json => print::line(&serde_json::to_string_pretty(&findings).unwrap_or_default()),
        Output::Table => print::line(&list(&findings, Colours::of_stdout())),
    }
    Ok(ExitCode::from(code(&findings)))
}

fn wrong(errors: &ConfigErrors) -> Vec<Finding> {
    let finding = |error: &ConfigError| {
        let text = format!("{}; {} ({})", error.what, error.why, error.origin);
        Finding::bad("config", text, error.advice.clone())
    };
    errors.0.iter().map(finding).collect()
}

fn look(config: &Config, sources: &Sources, role: CheckRole) -> Result<Vec<Finding>, Failure> {
    let mut findings = vec![settings(sources)];
    findings.extend(cluster::look(config, role)?);
    if role != CheckRole::Router {
        findings.extend(choices(config));
        findings.extend(certificates::look(config, now_seconds()));
    }
    let running = running(config)?;
    findings.extend(machine::data_dir(config, running.as_ref()));
    findings.extend(machine::addresses(config, role, running.as_ref()));
    findings.push(machine::descriptors());
    if role != CheckRole::Edge {
        findings.extend(store::look(config)?);
    }
    Ok(findings)
}

fn settings(sources: &Sources) -> Finding {
    let file = sources.file.as_ref().map_or_else(|| "no file".to_owned(), |file| file.display().to_string());
    Finding::good("config", format!("settings are valid ({file}, {} --set)", sources.sets.len()))
}

/// Settings that are allowed, and that somebody may not have meant.
fn choices(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for address in config.listen.admin.0.iter().filter(|address| !address.ip().is_loopback()) {
        findings.push(Finding::doubtful(
            "config",
            format!("probes and metrics are open to all who reach {address}"),
            "set listen.admin to a loopback or a private address, or close the port to others",
        ));
    }
    if config.registration.enabled {
        findings.push(Finding::doubtful(
            "config",
            "anybody may make an account",
            "set registration.enabled = false, unless that is what you want",
        ));
    }
    if config.listen.c2s.is_off() && config.listen.c2s_tls.is_off() {
        findings.push(Finding::doubtful(
            "config",
            "no client can connect",
            "set listen.c2s or listen.c2s_tls",
        ));
    }
    findings
}

/// What the running server says of itself, if one runs.
fn running(config: &Config) -> Result<Option<StatusBody>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new("no threads to run on").because(error))?;
    Ok(runtime.block_on(async {
        let mut client = Client::connect(&config.data_dir).await.ok()?;
        client.status().await.ok()
    }))
}

fn code(findings: &[Finding]) -> u8 {
    match findings.iter().map(|finding| finding.verdict).max() {
        None | Some(Verdict::Good) => 0,
        Some(Verdict::Doubtful) => 1,
        Some(Verdict::Bad) => 2,
    }
}

fn list(findings: &[Finding], colours: Colours) -> String {
    let mut lines = Vec::new();
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Good => colours.green("ok  "),
            Verdict::Doubtful => colours.yellow("warn"),
            Verdict::Bad => colours.red("FAIL"),
        };
        lines.push(format!("{mark}  {:<8}  {}", finding.part, finding.text));
        lines.extend(finding.remedy.iter().map(|remedy| format!("{:16}-> {remedy}", "")));
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (good, doubtful, bad) = (count(Verdict::Good), count(Verdict::Doubtful), count(Verdict::Bad));
    lines.push(format!("{good} good, {doubtful} doubtful, {bad} bad"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_exit_code() {
        let good = Finding::good("x", "fine");
        let doubtful = Finding::doubtful("x", "hm", "look");
        let bad = Finding::bad("x", "no", "mend");
        assert_eq!(code(&[]), 0);
        assert_eq!(code(std::slice::from_ref(&good)), 0);
        assert_eq!(code(&[doubtful.clone(), good.clone()]), 1);
        assert_eq!(code(&[doubtful.clone(), bad.clone(), good.clone()]), 2);
        let text = list(&[good, doubtful, bad], Colours::none());
        assert_eq!(
            text,
            "ok    x         fine\nwarn  x         hm\n                -> look\nFAIL  x         no\n                -> mend\n1 good, 1 doubtful, 1 bad"
        );
    }

    #[test]
    fn doubtful_choices_are_told() {
        let mut config = Config::default();
        assert!(choices(&config).is_empty());
        config.listen.admin.0 = vec!["0.0.0.0:5290".parse().unwrap()];
        config.registration.enabled = true;
        config.listen.c2s.0.clear();
        config.listen.c2s_tls.0.clear();
        assert_eq!(choices(&config).len(), 3);
    }
}
