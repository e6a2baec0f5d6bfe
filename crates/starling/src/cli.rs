//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, builder::RangedU64ValueParser};
use starling_admin::api::PAGE_MAX;

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
    /// Run an edge of a cluster: sockets of clients, links to all routers, no store
    #[command(after_help = "Example:\n  starling edge --config edge.toml\n\n\
                      It finds routers by cluster.routers and listens for clients once one has answered.\n\
                      SIGTERM or Ctrl-C sends its clients away over drain.window and ends it; a second one ends it at once.")]
    Edge,
    /// Run a router of a cluster: homes of accounts, on a store that all routers share
    #[command(after_help = "Example:\n  starling router --config router.toml\n\n\
                      The first cluster.initial_routers of them found the cluster together; others join it.\n\
                      SIGTERM or Ctrl-C hands over what it leads and ends it; a second one ends it at once.")]
    Router,
    /// Make the certificates of a cluster
    #[command(
        subcommand,
        after_help = "Examples:\n  starling cluster ca --out ca\n  \
                      starling cluster certificate --ca ca --role router --node router-0 --out router-0"
    )]
    Cluster(ClusterCommand),
    /// Look for what would keep the server from running well
    #[command(after_help = "Examples:\n  starling check --config starling.toml\n  \
                      starling check --role router --config router.toml\n\n\
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
    /// As what it is to run
    #[arg(long, value_name = "ROLE", default_value = "serve")]
    pub(crate) role: CheckRole,
    /// Form of the list
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    pub(crate) output: Output,
}

/// What a process is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckRole {
    /// A whole server in one process
    Serve,
    /// An edge of a cluster
    Edge,
    /// A router of a cluster
    Router,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Make the authority of a cluster: ca.pem and its key ca.key, which need not be on any server
    #[command(after_help = "Example:\n  starling cluster ca --out ca --name chat")]
    Ca {
        /// Put the files into this directory
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Name of the cluster [default: cluster.name]
        #[arg(long, value_name = "CLUSTER")]
        name: Option<String>,
        /// How long it is valid
        #[arg(long, value_name = "N", default_value_t = 3_650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
    /// Make the certificate of one process: cert.pem and key.pem, with the authority's ca.pem beside them
    #[command(
        after_help = "Examples:\n  starling cluster certificate --ca ca --role router --node router-0 --out router-0\n  \
                            starling cluster certificate --ca ca --role edge --node '*' --out edges\n\n\
                            The node * is any: one certificate for all edges, say. A certificate that ends is replaced by a new one in place,\n\
                            which running processes take within seconds."
    )]
    Certificate {
        /// The directory of `starling cluster ca`
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
        /// What the process is
        #[arg(long, value_name = "ROLE")]
        role: CertificateRole,
        /// Its cluster.node, or * for any
        #[arg(long, value_name = "NAME")]
        node: String,
        /// Put the files into this directory
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Name of the cluster [default: cluster.name]
        #[arg(long, value_name = "CLUSTER")]
        name: Option<String>,
        /// How long it is valid
        #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
        /// Replace a certificate that is there
        #[arg(long)]
        replace: bool,
    },
}

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CertificateRole {
    /// A router
    Router,
    /// An edge
    Edge,
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
    /// The routers' agreement: who leads which shard
    #[command(subcommand, after_help = "Example:\n  starling ctl --config router.toml raft status")]
    Raft(RaftCommand),
    /// Accounts whose stanzas are all traced for a while
    #[command(
        subcommand,
        after_help = "Example:\n  starling ctl trace start --jid alice@localhost --ttl 15m\n\n\
                      In a cluster any router is asked, for all edges."
    )]
    Trace(TraceCommand),
    /// Send all clients of an edge away, or hand over what a router leads, and end it
    #[command(after_help = "Examples:\n  starling ctl --config edge.toml drain --watch\n  \
                            starling ctl --config router.toml drain edge-2 --watch")]
    Drain {
        /// Name or number of a process of the cluster, asked at a router; the one that is asked, if none is named
        node: Option<String>,
        /// Go on printing what is left, until it has ended
        #[arg(short, long)]
        watch: bool,
    },
    /// How the server is
    #[command(after_help = "Example:\n  starling ctl status -o json")]
    Status {
        /// Form of the answer
        #[arg(short, long, value_name = "FORM", default_value = "table")]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TraceCommand {
    /// Trace all stanzas from and for an account, whatever telemetry.sample says
    #[command(
        after_help = "Example:\n  starling ctl trace start --jid alice@localhost --ttl 15m --max 500\n\n\
                            It ends with its time or its number, and with the processes. The log says who is traced \
                            with a keyed hash only."
    )]
    Start {
        /// The account
        #[arg(long)]
        jid: String,
        /// For how long, e.g. 90s, 15m or 2h; a day at the most
        #[arg(long, value_name = "TIME", default_value = "15m")]
        ttl: String,
        /// So many traces at the most
        #[arg(long, value_name = "N", default_value_t = 500)]
        max: u32,
        /// Form of the answer
        #[arg(short, long, value_name = "FORM", default_value = "table")]
        output: Output,
    },
    /// List accounts that are traced, and how many traces there are
    #[command(after_help = "Example:\n  starling ctl trace list")]
    List {
        /// Form of the list
        #[arg(short, long, value_name = "FORM", default_value = "table")]
        output: Output,
    },
    /// End it before its time
    #[command(after_help = "Example:\n  starling ctl trace stop alice@localhost")]
    Stop {
        /// The account, or the id of one rule
        #[arg(value_name = "JID|ID")]
        which: String,
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
    /// Say at which edge the sessions of an account are, and which router is their home
    #[command(after_help = "Example:\n  starling ctl --config router.toml session find alice@localhost")]
    Find {
        /// The account, or the full address of one of its sessions
        jid: String,
        /// Form of the list
        #[arg(short, long, value_name = "FORM", default_value = "table")]
        output: Output,
    },
    /// List sessions
    #[command(after_help = "Example:\n  starling ctl session list --jid alice@localhost")]
    List {
        /// Only of this account
        #[arg(long)]
        jid: Option<String>,
        /// At most so many, from 1 to 1000; it is said when there are more
        #[arg(long, value_name = "N", default_value_t = PAGE_MAX, value_parser = page())]
        limit: usize,
        /// Form of the list
        #[arg(short, long, value_name = "FORM", default_value = "table")]
        output: Output,
    },
}

/// As many as one answer has room for.
fn page() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=PAGE_MAX as u64)
}

#[derive(Debug, Subcommand)]
pub(crate) enum RaftCommand {
    /// How all routers and shards stand, as the router that is asked sees it
    #[command(after_help = "Example:\n  starling ctl --config router.toml raft status -o json")]
    Status {
        /// Form of the answer
        #[arg(short, long, value_name = "FORM", default_value = "table")]
        output: Output,
    },
    /// Have a shard led by another router
    #[command(after_help = "Example:\n  starling ctl --config router.toml raft transfer 3 router-1")]
    Transfer {
        /// The shard
        shard: u16,
        /// Name or identity of the router
        router: String,
    },
    /// Take a router out of the cluster: one that is gone for good, or whose disk is
    #[command(after_help = "Example:\n  starling ctl --config router.toml raft remove router-2\n\n\
                            Its process ends, if it runs. It can come back only with an empty data_dir, as another router.")]
    Remove {
        /// Name or identity of the router
        router: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Make snapshots at the router that is asked, so that its log can be cut
    #[command(after_help = "Examples:\n  starling ctl --config router.toml raft snapshot --shard 3\n  \
                            starling ctl --config router.toml raft snapshot --output cluster.json\n\n\
                            The file is for `raft restore`; an old one is as good as a new one unless the cluster was \
                            founded anew since.")]
    Snapshot {
        /// Only of this shard
        #[arg(long, value_name = "N")]
        shard: Option<u16>,
        /// A file for what a cluster has to know that comes after this one
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Have so many routers vote in every shard: before and after their number is changed
    #[command(after_help = "Example:\n  starling ctl --config router.toml raft reconcile --voters 3\n\n\
                            Routers that are too many take part without a vote and can be ended; those that are gone for half a\n\
                            minute are removed, and can come back only with an empty data_dir. Nothing is done that would cost a\n\
                            shard its majority.")]
    Reconcile {
        /// An odd number, at most 5
        #[arg(long, value_name = "N")]
        voters: usize,
    },
    /// Found a cluster in place of one of which all disks are lost, on a store that is older than it was
    #[command(
        after_help = "Example:\n  starling ctl --config router.toml raft restore cluster.json --routers 3\n\n\
                            Only needed when the store was brought back from a backup as well. Start the routers with empty data_dirs\n\
                            and `cluster.initial_routers = 0`, then ask one of them. It is refused while a cluster lives."
    )]
    Restore {
        /// What `raft snapshot --output` has written
        file: PathBuf,
        /// How many routers have to be there
        #[arg(long, value_name = "N", default_value_t = 3)]
        routers: usize,
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
        assert!(Cli::try_parse_from(["starling", "ctl", "session", "list", "--limit", "1001"]).is_err());
        assert!(Cli::try_parse_from(["starling", "ctl", "user", "list", "-o", "yaml"]).is_err());
    }
}
