//! The calling end of the admin socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, task::JoinHandle, time};

use crate::{
    api::{AddUser, DrainBody, ErrorBody, Import, Imported, Sessions, SetPassword, StatusBody, Users},
    raft::{Places, Reconcile, Reconciled, Record, Remove, Restore, Snapshot, Standing, Transfer},
    socket::path_in,
    traces::{StartTrace, TraceRules},
};

/// One connection to a running server.
#[derive(Debug)]
pub struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: JoinHandle<()>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers.
    #[error("no server is running on {0}")]
    NotRunning(PathBuf),
    /// It runs as another user.
    #[error("the server on {0} belongs to another user")]
    NotAllowed(PathBuf),
    /// The server said no.
    #[error("{}", .0.message)]
    Refused(ErrorBody),
    /// The connection broke, or the answer cannot be read.
    #[error("the call failed: {0}")]
    Failed(String),
    /// No answer in time.
    #[error("the server gave no answer within {0:?}")]
    Timeout(Duration),
}

impl Client {
    /// Connects to the server of a data directory.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`], [`ClientError::NotAllowed`], [`ClientError::Failed`].
    pub async fn connect(data_dir: &Path) -> Result<Self, ClientError> {
        let path = path_in(data_dir);
        let stream = UnixStream::connect(&path).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning(path.clone())
            }
            io::ErrorKind::PermissionDenied => ClientError::NotAllowed(path.clone()),
            _ => ClientError::Failed(error.to_string()),
        })?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let connection = tokio::spawn(async move {
            // What goes wrong is told to the call that waits for it.
            let _ = connection.await;
        });
        Ok(Self { sender, connection })
    }

    /// Makes an account.
    ///
    /// # Errors
    /// [`ClientError`], as for all calls.
    pub async fn user_add(&mut self, jid: &str, password: &str) -> Result<(), ClientError> {
        let body = AddUser { jid: jid.to_owned(), password: password.to_owned() };
        self.call(Method::POST, "/v1/users", Some(&body)).await.map(drop)
    }

    /// Removes an account.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn user_delete(&mut self, jid: &str) -> Result<(), ClientError> {
        self.call(Method::DELETE, &format!("/v1/users/{}", escaped(jid)), None::<&()>).await.map(drop)
    }

    /// Sets a password.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn user_passwd(&mut self, jid: &str, password: &str) -> Result<(), ClientError> {
        let body = SetPassword { password: password.to_owned() };
        self.call(Method::PUT, &format!("/v1/users/{}/password", escaped(jid)), Some(&body)).await.map(drop)
    }

    /// Makes accounts or sets their passwords; at most [`crate::api::IMPORT_MAX`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn user_import(&mut self, users: Vec<AddUser>) -> Result<Imported, ClientError> {
        read(&self.call(Method::POST, "/v1/users:import", Some(&Import { users })).await?)
    }

    /// One page of accounts.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn users(
        &mut self,
        domain: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Users, ClientError> {
        let mut path = format!("/v1/users?limit={limit}");
        for (name, value) in [("domain", domain), ("after", after)] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", escaped(value)));
            }
        }
        read(&self.call(Method::GET, &path, None::<&()>).await?)
    }

    /// Sessions, of one account or of all; [`PAGE_MAX`](crate::api::PAGE_MAX) at most.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sessions(&mut self, of: Option<&str>, limit: usize) -> Result<Sessions, ClientError> {
        let of = of.map(|jid| format!("&jid={}", escaped(jid))).unwrap_or_default();
        read(&self.call(Method::GET, &format!("/v1/sessions?limit={limit}{of}"), None::<&()>).await?)
    }

    /// How the server is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&mut self) -> Result<StatusBody, ClientError> {
        read(&self.call(Method::GET, "/v1/status", None::<&()>).await?)
    }

    /// Sends everybody away and ends the process, or the one of this name.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn drain(&mut self, node: Option<&str>) -> Result<DrainBody, ClientError> {
        read(&self.call(Method::POST, &drain_path(node), None::<&()>).await?)
    }

    /// How far that is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn draining(&mut self, node: Option<&str>) -> Result<DrainBody, ClientError> {
        read(&self.call(Method::GET, &drain_path(node), None::<&()>).await?)
    }

    /// How the groups of a cluster stand, as the router that is asked knows it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn raft(&mut self) -> Result<Standing, ClientError> {
        read(&self.call(Method::GET, "/v1/raft", None::<&()>).await?)
    }

    /// Has a shard led by another router, of this name or identity.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn raft_transfer(&mut self, shard: u16, to: &str) -> Result<(), ClientError> {
        let body = Transfer { shard, to: to.to_owned() };
        self.call(Method::POST, "/v1/raft/transfer", Some(&body)).await.map(drop)
    }

    /// Has a router of this name or identity taken out of all groups.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn raft_remove(&mut self, router: &str) -> Result<(), ClientError> {
        let body = Remove { router: router.to_owned() };
        self.call(Method::POST, "/v1/raft/remove", Some(&body)).await.map(drop)
    }

    /// Makes snapshots of one shard, or of all, at the router that is asked.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn raft_snapshot(&mut self, shard: Option<u16>) -> Result<(), ClientError> {
        self.call(Method::POST, "/v1/raft/snapshot", Some(&Snapshot { shard })).await.map(drop)
    }

    /// Brings the number of voters of every shard to this one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn raft_reconcile(&mut self, voters: usize) -> Result<Reconciled, ClientError> {
        read(&self.call(Method::POST, "/v1/raft/reconcile", Some(&Reconcile { voters })).await?)
    }

    /// What a cluster has to know that comes after this one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn raft_record(&mut self) -> Result<Record, ClientError> {
        read(&self.call(Method::GET, "/v1/raft/record", None::<&()>).await?)
    }

    /// Founds a cluster that comes after the one of `record`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn raft_restore(&mut self, record: Record, routers: usize) -> Result<(), ClientError> {
        self.call(Method::POST, "/v1/raft/restore", Some(&Restore { record, routers })).await.map(drop)
    }

    /// Where the sessions of an account are.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn find(&mut self, account: &str) -> Result<Places, ClientError> {
        read(&self.call(Method::GET, &format!("/v1/places?jid={}", escaped(account)), None::<&()>).await?)
    }

    /// Has all stanzas from and for an account traced.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn trace_start(
        &mut self,
        jid: &str,
        seconds: u64,
        max: u32,
    ) -> Result<TraceRules, ClientError> {
        let body = StartTrace { jid: jid.to_owned(), seconds, max };
        read(&self.call(Method::POST, "/v1/traces", Some(&body)).await?)
    }

    /// Accounts that are traced.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn traces(&mut self) -> Result<TraceRules, ClientError> {
        read(&self.call(Method::GET, "/v1/traces", None::<&()>).await?)
    }

    /// Ends the rule of this id, or all of this account.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn trace_stop(&mut self, which: &str) -> Result<TraceRules, ClientError> {
        read(&self.call(Method::DELETE, &format!("/v1/traces/{}", escaped(which)), None::<&()>).await?)
    }

    async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Bytes, ClientError> {
        let bytes = body.map(serde_json::to_vec).transpose().map_err(failed)?.unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "starling")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(bytes)))
            .map_err(failed)?;
        let exchange = async {
            self.sender.ready().await.map_err(failed)?;
            let answer = self.sender.send_request(request).await.map_err(failed)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await.map_err(failed)?;
            Ok((status, body.to_bytes()))
        };
        let (status, body) =
            time::timeout(CALL_TIME, exchange).await.map_err(|_| ClientError::Timeout(CALL_TIME))??;
        if status.is_success() { Ok(body) } else { Err(refused(status, &body)) }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn drain_path(node: Option<&str>) -> String {
    match node {
        None => "/v1/drain".to_owned(),
        Some(node) => format!("/v1/drain?node={}", escaped(node)),
    }
}

fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice(body) {
        Ok(error) => ClientError::Refused(error),
        Err(_) => ClientError::Failed(format!("the server answered {status}")),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> ClientError {
    ClientError::Failed(error.to_string())
}

/// A segment of a path or a value of a query, with all but the plainest letters escaped.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// A piece of an import takes a while: three key derivations for each user.
const CALL_TIME: Duration = Duration::from_secs(120);
const ANSWER_MAX: usize = 16 * 1_024 * 1_024;

#[cfg(test)]
mod tests;
