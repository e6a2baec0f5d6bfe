//! From the text of a script to its steps.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::pattern::Pattern;
use crate::SILENCE;
use crate::server::Kind;

/// A parsed script.
#[derive(Clone, Debug)]
pub struct Script {
    /// The file's name without its ending.
    pub name: String,
    /// The clients in order of appearance.
    pub clients: Vec<ClientSpec>,
    /// Local parts of all accounts that must exist.
    pub accounts: Vec<String>,
    /// Pairs of accounts that see each other's presence from the start.
    pub contacts: Vec<(String, String)>,
    /// Settings that the server must run with.
    pub settings: Vec<(String, String)>,
    /// References on which the script is not played, and why.
    pub skipped: Vec<(Kind, String)>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// A client that a script names.
#[derive(Clone, Debug)]
pub struct ClientSpec {
    /// The name used in the script.
    pub name: String,
    /// Local part of its account, as in the script.
    pub user: String,
    /// The resource to ask for, if one is given.
    pub resource: Option<String>,
    /// Stream management is enabled on connecting.
    pub managed: bool,
    /// `<r/>` and `<a/>` are left to the script.
    pub by_hand: bool,
    /// TLS from the first byte.
    pub direct_tls: bool,
}

/// One step, with its line for messages.
#[derive(Clone, Debug)]
pub struct Step {
    /// Line number, from 1.
    pub line: usize,
    /// Who acts; empty for `wait`.
    pub client: String,
    /// What is done or expected.
    pub action: Action,
    /// Servers on which the step is left out.
    pub unless: Vec<Kind>,
    /// The only servers on which it is played, if given.
    pub only: Vec<Kind>,
}

/// What a client does or must see.
#[derive(Clone, Debug)]
pub enum Action {
    /// Logs in and binds.
    Connect,
    /// Connects in clear and reads the features.
    Open,
    /// Connects, and stops before authentication.
    Secure,
    /// Logs in, and stops before binding.
    Authenticate,
    /// Sends initial presence and waits for its reflection.
    ComeOnline,
    /// Sends XML with captures put in.
    Send(String),
    /// Must receive these next, in order or not.
    Receive(Vec<Pattern>, InOrder),
    /// Must receive nothing for so long.
    ReceiveNothing(Duration),
    /// The last stream features must look like this.
    Offered(Pattern),
    /// Presence is no longer shown to the script.
    IgnorePresence,
    /// A round trip to the server.
    Ping,
    /// Ends the stream.
    Disconnect,
    /// Cuts the connection.
    Drop,
    /// Resumes after a cut.
    Resume,
    /// Tries to resume and is refused with this condition.
    FailToResume(String),
    /// The server must end the stream, with this error if given.
    Closed(Option<String>),
    /// Time passes.
    Wait(Duration),
}

/// Whether several elements must come in the order given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InOrder {
    /// As written.
    Yes,
    /// In any order.
    No,
}

impl Script {
    /// Reads a script file.
    pub fn load(path: &Path) -> Result<Self> {
        let name = path.file_stem().and_then(|s| s.to_str()).context("a script needs a name")?;
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(name, &text).with_context(|| format!("{}", path.display()))
    }

    /// Parses a script's text.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let mut script = Self {
            name: name.to_owned(),
            clients: Vec::new(),
            accounts: Vec::new(),
            contacts: Vec::new(),
            settings: Vec::new(),
            skipped: Vec::new(),
            steps: Vec::new(),
        };
        let lines: Vec<&str> = text.lines().collect();
        let (mut unless, mut only): (Vec<Kind>, Vec<Kind>) = (Vec::new(), Vec::new());
        let mut at = 0;
        while let Some(line) = lines.get(at) {
            let number = at + 1;
            at += 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some((key, rest)) = line.strip_prefix('[').and_then(|l| l.split_once(']')) {
                let rest = rest.trim();
                let directive = match key.split_once(' ') {
                    Some(("unless", kinds)) => read_kinds(kinds, rest).map(|k| unless.extend(k)),
                    Some(("only", kinds)) => read_kinds(kinds, rest).map(|k| only.extend(k)),
                    _ => script.header(key, rest),
                };
                directive.with_context(|| format!("line {number}"))?;
                continue;
            }
            let mut block = String::new();
            if line.ends_with(':') {
                while let Some(next) = lines.get(at) {
                    if !next.trim().is_empty() && !next.starts_with([' ', '\t']) {
                        break;
                    }
                    block.push_str(next);
                    block.push('\n');
                    at += 1;
                }
            }
            let block = script.mangle(&block);
            for (client, action) in script.actions(line, &block).with_context(|| format!("line {number}"))? {
                let (unless, only) = (unless.clone(), only.clone());
                script.steps.push(Step { line: number, client, action, unless, only });
            }
            unless.clear();
            only.clear();
        }
        ensure!(!script.steps.is_empty(), "no steps");
        Ok(script)
    }

    /// The account's local part on the server: every script has its own accounts.
    pub fn account(&self, user: &str) -> String {
        format!("{user}-{}", self.name)
    }

    fn header(&mut self, key: &str, rest: &str) -> Result<()> {
        match key {
            "client" => {
                let (name, rest) = rest.split_once(':').context("[client] NAME: JID OPTIONS")?;
                let mut words = rest.split_whitespace();
                let jid = words.next().context("[client] needs a JID")?;
                let (bare, resource) = match jid.split_once('/') {
                    Some((bare, resource)) => (bare, Some(resource.to_owned())),
                    None => (jid, None),
                };
                let user = bare.strip_suffix("@localhost").context("accounts are @localhost")?.to_owned();
                let mut spec = ClientSpec {
                    name: name.trim().to_owned(),
                    user: user.clone(),
                    resource,
                    managed: false,
                    by_hand: false,
                    direct_tls: false,
                };
                for option in words {
                    match option {
                        "sm" => spec.managed = true,
                        "sm-by-hand" => (spec.managed, spec.by_hand) = (true, true),
                        "direct-tls" => spec.direct_tls = true,
                        other => bail!("unknown option {other}"),
                    }
                }
                self.add_account(&user);
                self.clients.push(spec);
            }
            "account" => {
                self.add_account(rest.strip_suffix("@localhost").context("accounts are @localhost")?)
            }
            "contacts" => match rest.split_whitespace().collect::<Vec<_>>()[..] {
                [one, other] => self.contacts.push((one.to_owned(), other.to_owned())),
                _ => bail!("[contacts] takes two accounts"),
            },
            "server" => {
                let (key, value) = rest.split_once('=').context("[server] KEY = VALUE")?;
                self.settings.push((key.trim().to_owned(), value.trim().to_owned()));
            }
            "skip" => {
                let (kind, reason) = rest.split_once(':').context("[skip] SERVER: REASON")?;
                ensure!(!reason.trim().is_empty(), "a skip needs a reason");
                self.skipped.push((read_kind(kind)?, reason.trim().to_owned()));
            }
            other => bail!("unknown directive [{other}]"),
        }
        Ok(())
    }

    fn add_account(&mut self, user: &str) {
        if !self.accounts.iter().any(|a| a == user) {
            self.accounts.push(user.to_owned());
        }
    }

    fn mangle(&self, block: &str) -> String {
        let mut out = block.to_owned();
        for user in &self.accounts {
            out = replace_local_part(&out, user, &self.account(user));
        }
        out
    }

    fn actions(&self, line: &str, block: &str) -> Result<Vec<(String, Action)>> {
        if let Some(time) = line.strip_prefix("wait ") {
            return Ok(vec![(String::new(), Action::Wait(read_time(time)?))]);
        }
        let (client, verb) = line.split_once(' ').context("WHO does WHAT")?;
        ensure!(self.clients.iter().any(|c| c.name == client), "no client is called {client}");
        let words: Vec<&str> = verb.split_whitespace().collect();
        let actions = match words[..] {
            ["connects"] => vec![Action::Connect],
            ["connects", "and", "comes", "online"] => vec![Action::Connect, Action::ComeOnline],
            ["comes", "online"] => vec![Action::ComeOnline],
            ["opens"] => vec![Action::Open],
            ["secures"] => vec![Action::Secure],
            ["authenticates"] => vec![Action::Authenticate],
            ["sends:"] => vec![Action::Send(block.trim().to_owned())],
            ["receives:"] => vec![Action::Receive(patterns(block)?, InOrder::Yes)],
            ["receives", "in", "any", "order:"] => vec![Action::Receive(patterns(block)?, InOrder::No)],
            ["receives", "nothing"] => vec![Action::ReceiveNothing(SILENCE)],
            ["receives", "nothing", "within", time] => vec![Action::ReceiveNothing(read_time(time)?)],
            ["was", "offered:"] => vec![Action::Offered(patterns(block)?.remove(0))],
            ["ignores", "presence"] => vec![Action::IgnorePresence],
            ["pings"] => vec![Action::Ping],
            ["disconnects"] => vec![Action::Disconnect],
            ["drops"] => vec![Action::Drop],
            ["resumes"] => vec![Action::Resume],
            ["fails", "to", "resume", "with", condition] => vec![Action::FailToResume(condition.to_owned())],
            ["is", "closed"] => vec![Action::Closed(None)],
            ["is", "closed", "with", condition] => vec![Action::Closed(Some(condition.to_owned()))],
            _ => bail!("cannot read {line:?}"),
        };
        Ok(actions.into_iter().map(|action| (client.to_owned(), action)).collect())
    }
}

fn patterns(block: &str) -> Result<Vec<Pattern>> {
    let patterns = Pattern::parse_all(block)?;
    ensure!(!patterns.is_empty(), "nothing is expected here");
    Ok(patterns)
}

fn read_time(text: &str) -> Result<Duration> {
    let number = text.strip_suffix("ms").with_context(|| format!("{text:?} is not a time like 300ms"))?;
    Ok(Duration::from_millis(number.parse()?))
}

fn read_kind(text: &str) -> Result<Kind> {
    [Kind::Starling, Kind::Prosody, Kind::Ejabberd]
        .into_iter()
        .find(|kind| kind.name() == text.trim())
        .with_context(|| format!("unknown server {text:?}"))
}

fn read_kinds(text: &str, reason: &str) -> Result<Vec<Kind>> {
    ensure!(!reason.is_empty(), "a difference needs a reason");
    text.split(',').map(read_kind).collect()
}

/// Replaces `user@localhost` where `user` is the whole local part.
fn replace_local_part(text: &str, user: &str, account: &str) -> String {
    let address = format!("{user}@localhost");
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(&address) {
        let before = rest[..at].chars().next_back();
        out.push_str(&rest[..at]);
        let part_of_another = before.is_some_and(|c| c.is_alphanumeric() || c == '-' || c == '.');
        out.push_str(if part_of_another { user } else { account });
        rest = &rest[at + user.len()..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_a_script() {
        let text = "# a title\n[client] alice: alice@localhost/phone sm\n[client] bob: bob@localhost\n\
                    [skip] prosody: it is different\nalice connects and comes online\nalice sends:\n    \
                    <message to='bob@localhost'/>\n\n    <presence/>\n[unless ejabberd] it is silent\n\
                    bob receives:\n    <message from='alice@localhost/phone' ...>...</message>\n\
                    bob receives nothing within 50ms\nwait 10ms\n";
        let script = Script::parse("t", text).unwrap();
        assert_eq!(script.accounts, ["alice", "bob"]);
        assert_eq!(script.steps.len(), 6);
        let Action::Send(xml) = &script.steps[2].action else { panic!() };
        assert!(xml.contains("to='bob-t@localhost'"));
        assert_eq!(script.steps[3].unless, [Kind::Ejabberd]);
        assert!(script.steps[4].unless.is_empty());
        assert_eq!(script.skipped, [(Kind::Prosody, "it is different".to_owned())]);
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        for bad in [
            "",
            "alice connects",
            "[client] a: a@localhost\na dances",
            "[client] a: a@localhost\na receives:\n",
            "[client] a: a@localhost\n[skip] prosody:\na connects",
            "[nonsense] x\n",
        ] {
            assert!(Script::parse("t", bad).is_err(), "{bad}");
        }
    }
}
