//! `starling ctl`: calls to the running server.

mod csv;
mod drain;
mod import;
mod password;
mod raft;
mod session;
mod status;
mod trace;
mod user;

use std::process::ExitCode;

use starling_admin::{Client, ClientError};
use starling_node::{Config, Sources};

use crate::{
    cli::{CtlCommand, SessionCommand, UserCommand},
    failure::Failure,
    sources,
};

/// Does one command.
pub(crate) fn run(sources: &Sources, command: CtlCommand) -> Result<ExitCode, Failure> {
    let config = sources::load(sources)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("no threads to run on").because(error))?;
    let done = runtime.block_on(dispatch(&Server { config, sources }, command));
    // A prompt that was broken off still waits for its line.
    runtime.shutdown_background();
    done
}

async fn dispatch(server: &Server<'_>, command: CtlCommand) -> Result<ExitCode, Failure> {
    match command {
        CtlCommand::User(UserCommand::Add(credentials)) => user::add(server, &credentials).await,
        CtlCommand::User(UserCommand::Del { jid, yes }) => user::delete(server, &jid, yes).await,
        CtlCommand::User(UserCommand::Passwd(credentials)) => user::set_password(server, &credentials).await,
        CtlCommand::User(UserCommand::List { domain, limit, output }) => {
            user::list(server, domain.as_deref(), limit, output).await
        }
        CtlCommand::User(UserCommand::Import { file }) => return import::run(server, &file).await,
        CtlCommand::Session(SessionCommand::List { jid, limit, output }) => {
            session::list(server, jid.as_deref(), limit, output).await
        }
        CtlCommand::Session(SessionCommand::Find { jid, output }) => raft::find(server, &jid, output).await,
        CtlCommand::Raft(command) => raft::run(server, command).await,
        CtlCommand::Trace(command) => trace::run(server, command).await,
        CtlCommand::Drain { node, watch } => drain::run(server, node.as_deref(), watch).await,
        CtlCommand::Status { output } => status::show(server, output).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

/// The server that is meant.
struct Server<'a> {
    config: Config,
    sources: &'a Sources,
}

impl Server<'_> {
    async fn connect(&self) -> Result<Client, Failure> {
        Client::connect(&self.config.data_dir)
            .await
            .map_err(|error| self.failure("the server cannot be called", error))
    }

    /// An error of a call, with what can be done about it.
    fn failure(&self, what: &str, error: ClientError) -> Failure {
        let (program, options) = (sources::program(), sources::options(self.sources));
        let origin = self.config.origin("data_dir");
        match error {
            ClientError::NotRunning(path) => Failure::new("no server is running")
                .at(format!("{} (data_dir from: {origin})", path.display()))
                .because("nobody answers on its socket")
                .advise(if self.config.cluster.routers.is_empty() {
                    format!("start one with `{program}{options} serve`, or name the --config that it runs with")
                } else {
                    format!(
                        "start it with `{program}{options} router` or `edge`, or name the --config that it runs with"
                    )
                }),
            ClientError::NotAllowed(path) => Failure::new(what)
                .at(path.display())
                .because("the server runs as another user")
                .advise("run this command as that user, or as root"),
            ClientError::Refused(body) => Failure::new(what).because(body.message),
            error @ ClientError::Timeout(_) => {
                Failure::new(what).because(error).advise("look at the server's log, then try again")
            }
            error @ ClientError::Failed(_) => Failure::new(what)
                .because(error)
                .advise("look at the server's log; is it the same version as this command?"),
        }
    }
}
