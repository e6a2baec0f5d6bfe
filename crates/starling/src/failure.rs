//! Why a command failed, told so that it can be mended.

use std::fmt;

use starling_node::ConfigErrors;
use starling_setup::Obstacle;

/// What, where, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    text: String,
    /// The exit code.
    pub(crate) code: u8,
}

impl Failure {
    /// The command could not be done.
    pub(crate) fn new(what: impl fmt::Display) -> Self {
        Self { text: format!("error: {what}"), code: FAILED }
    }

    /// Where it happened.
    pub(crate) fn at(self, place: impl fmt::Display) -> Self {
        self.line("where", &place)
    }

    /// Why.
    pub(crate) fn because(self, why: impl fmt::Display) -> Self {
        self.line("why", &why)
    }

    /// What to do.
    pub(crate) fn advise(self, advice: impl fmt::Display) -> Self {
        self.line("do", &advice)
    }

    /// The exit code is that of a wrong command line.
    pub(crate) fn usage(self) -> Self {
        Self { code: USAGE, ..self }
    }

    fn line(mut self, name: &str, text: &dyn fmt::Display) -> Self {
        self.text.push_str(&format!("\n  {:<6} {text}", format!("{name}:")));
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Obstacle> for Failure {
    fn from(obstacle: Obstacle) -> Self {
        let failure = Self::new(obstacle.what);
        let failure = obstacle.place.into_iter().fold(failure, Self::at);
        let failure = obstacle.why.into_iter().fold(failure, Self::because);
        obstacle.advice.into_iter().fold(failure, Self::advise)
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        let texts: Vec<String> = errors.0.iter().map(|error| format!("error: {error}")).collect();
        Self { text: texts.join("\n\n"), code: USAGE }
    }
}

const FAILED: u8 = 1;
const USAGE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_where_why_and_what_to_do() {
        let failure =
            Failure::new("no server is running").at("./data").because("nobody answers").advise("start one");
        let text =
            "error: no server is running\n  where: ./data\n  why:   nobody answers\n  do:    start one";
        assert_eq!((failure.to_string().as_str(), failure.code), (text, 1));
        assert_eq!(failure.clone().usage().code, 2);
        let obstacle = Obstacle::new("no server is running").at("./data").because("nobody answers");
        assert_eq!(Failure::from(obstacle.advise("start one")), failure);
    }
}
