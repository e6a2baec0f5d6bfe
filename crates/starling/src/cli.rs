//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// An XMPP server.
#[derive(Debug, Parser)]
#[command(
    name = "starling",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  starling serve\n  starling ctl user add alice@localhost\n\n\
                  Settings: defaults < --config FILE < STARLING__A__B__C=value < --set a.b.c=value"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Global {
    /// Read settings from this TOML file [environment: STARLING_CONFIG]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Set one key, over all else; may be repeated
    #[arg(long, value_name = "A.B.C=VALUE", global = true)]
    pub(crate) set: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole server in one process
    #[command(after_help = "Examples:\n  starling serve\n  starling serve --config starling.toml\n  \
                      starling serve --set listen.c2s=127.0.0.1:0 --set 'domains=[\"example.org\"]'\n\n\
                      SIGTERM or Ctrl-C ends it, SIGHUP reads settings and certificates again.")]
    Serve,
    /// Look for what would keep the server from running well
    #[command(after_help = "Example:\n  starling check --config starling.toml\n\n\
                      With store.kind = \"scylla\" its servers are asked too.\n\
                      Ends with 0 when all is well, 1 when something is doubtful, 2 when the server would not start.")]
    Check(CheckArguments),
    /// Look at settings
    #[command(subcommand, after_help = "Example:\n  starling config show")]
    Config(ConfigCommand),
    /// Make and change the tables of the store on CQL servers
    #[command(
        subcommand,
        after_help = "Examples:\n  starling migrate plan --set store.kind=scylla\n  \
                      starling migrate apply --config starling.toml\n\n\
                      A server starts only on tables that it knows; it never changes them by itself."
    )]
    Migrate(MigrateCommand),
    /// Talk to the running server
    #[command(
        subcommand,
        after_help = "Example:\n  starling ctl user list\n\n\
                      Uses the socket in data_dir, so give the same --config as to the server and be its user, or root."
    )]
    Ctl(CtlCommand),
    /// Print the version
    #[command(after_help = "Example:\n  starling version --json")]
    Version {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// Form of the list
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the settings in force, and where each came from
    #[command(after_help = "Example:\n  starling config show --config starling.toml")]
    Show,
    /// Say what a key means; all keys without one
    #[command(after_help = "Example:\n  starling config explain limits.sm.resume_timeout")]
    Explain {
        /// A key, or the beginning of keys
        #[arg(value_name = "KEY")]
        key: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MigrateCommand {
    /// Print the statements that `apply` would run, and run none
    #[command(after_help = "Example:\n  starling migrate plan --config starling.toml")]
    Plan {
        /// Form of the list
        #[arg(short, long, value_name = "FORM", default_value = "table")]
        output: Output,
    },
    /// Run what is missing; one at a time, a second one waits and says for whom
    #[command(after_help = "Example:\n  starling migrate apply --config starling.toml")]
    Apply {
        /// Form of the list of what was done
        #[arg(short, long, value_name = "FORM", default_value = "table")]
        output: Output,
    },
    /// Say which migrations were applied, and whether this version of the server can start
    #[command(after_help = "Example:\n  starling migrate status -o json\n\n\
                            Ends with 0 when a server can start, 1 when `apply` has something to do or the tables are too new.")]
    Status {
        /// Form of the list
        #[arg(short, long, value_name = "FORM", default_value = "table")]
        output: Output,
    },
    /// Let the store belong to the datacentre in store.local_datacenter, after a repair there and while no server runs
    #[command(after_help = "Example:\n  starling migrate move --set store.local_datacenter=east --yes\n\n\
                            What has not arrived in that datacentre is lost.")]
    Move {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CtlCommand {
    /// Accounts
    #[command(subcommand, after_help = "Example:\n  starling ctl user add alice@localhost")]
    User(UserCommand),
    /// Sessions
    #[command(subcommand, after_help = "Example:\n  starling ctl session list")]
    Session(SessionCommand),
    /// How the server is
    #[command(after_help = "Example:\n  starling ctl status -o json")]
    Status {
        /// Form of the answer
        #[arg(short, long, value_name = "FORM", default_value = "table")]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Make an account; the password comes from a prompt, from standard input or from a file
    #[command(after_help = "Examples:\n  starling ctl user add alice@localhost\n  \
                      starling ctl user add alice@localhost --password-file secret.txt\n  \
                      pwgen 20 1 | starling ctl user add alice@localhost")]
    Add(Credentials),
    /// Remove an account and all its data, and close its sessions
    #[command(after_help = "Example:\n  starling ctl user del alice@localhost --yes")]
    Del {
        /// The account
        jid: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Set a password; it comes from a prompt, from standard input or from a file
    #[command(after_help = "Example:\n  starling ctl user passwd alice@localhost")]
    Passwd(Credentials),
    /// List accounts
    #[command(after_help = "Example:\n  starling ctl user list --domain example.org -o json")]
    List {
        /// Only of this domain
        #[arg(long)]
        domain: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Form of the list
        #[arg(short, long, value_name = "FORM", default_value = "table")]
        output: Output,
    },
    /// Make accounts from a CSV file with the columns jid and password; those that exist get the password
    #[command(after_help = "Example:\n  starling ctl user import users.csv\n\n\
                            A line is: alice@example.org,secret\n\
                            A field with a comma or a quote stands in quotes: \"se,\"\"cret\". A header line is passed over.")]
    Import {
        /// The file; - for standard input
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Credentials {
    /// The account
    pub(crate) jid: String,
    /// Read the password from the first line of this file
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// List sessions
    #[command(after_help = "Example:\n  starling ctl session list --jid alice@localhost")]
    List {
        /// Only of this account
        #[arg(long)]
        jid: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: usize,
        /// Form of the list
        #[arg(short, long, value_name = "FORM", default_value = "table")]
        output: Output,
    },
}

/// Form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn walk(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{}", command.get_name());
            assert!(help.contains("starling "), "{}", command.get_name());
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }

    #[test]
    fn global_options_stand_anywhere() {
        for line in [
            "starling --config a.toml --set x.y=1 ctl user add a@b",
            "starling ctl --config a.toml --set x.y=1 user add a@b",
            "starling ctl user add a@b --config a.toml --set x.y=1",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.global.config, Some(PathBuf::from("a.toml")), "{line}");
            assert_eq!(cli.global.set, ["x.y=1"], "{line}");
        }
    }

    #[test]
    fn a_password_has_no_place_on_the_command_line() {
        assert!(Cli::try_parse_from(["starling", "ctl", "user", "add", "a@b", "secret"]).is_err());
        assert!(
            Cli::try_parse_from(["starling", "ctl", "user", "add", "a@b", "--password", "secret"]).is_err()
        );
    }

    #[test]
    fn forms_are_table_and_json() {
        let cli = Cli::try_parse_from(["starling", "ctl", "session", "list", "-o", "json"]).unwrap();
        let Command::Ctl(CtlCommand::Session(SessionCommand::List { output, limit, .. })) = cli.command
        else {
            panic!("{:?}", cli.command);
        };
        assert_eq!((output, limit), (Output::Json, 1_000));
        assert!(Cli::try_parse_from(["starling", "ctl", "user", "list", "-o", "yaml"]).is_err());
    }
}
