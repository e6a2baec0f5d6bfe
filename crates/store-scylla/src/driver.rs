//! The seam on a real server, by the `scylla` driver.
//!
//! One call is one attempt of one statement: all of them prepared, routed to a replica, at LOCAL_QUORUM. The driver below
//! tries nothing again; what its errors mean is decided in [`failure`]. How many requests there are at once is bounded by
//! the store above. Reads that are slow are sent to a second node, writes never are. When no node can be reached, a new
//! session is tried for until one can ([`recovery`]): the driver's own patience between attempts grows too long for a
//! server that is to be used again at once.

mod bind;
mod cell;
pub mod connect;
mod decode;
mod failure;
mod observe;
mod recovery;
mod seam;
mod second;
mod statements;
mod tls;
mod wary;

use crate::cql::{Answer, CqlError};
use crate::migrations;
use crate::options::Options;
use crate::schema::Dialect;
use arc_swap::ArcSwap;
use bind::Bound;
use cell::Cell;
use connect::{ConnectError, Connection};
use failure::{Failure, Kind, unreadable};
use futures::FutureExt;
use observe::{Observer, Watch};
use parking_lot::Mutex;
use scylla::errors::ExecutionError;
use scylla::observability::history::HistoryListener;
use scylla::response::query_result::{QueryResult, QueryRowsResult};
use scylla::response::{Coordinator, PagingState};
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use second::Second;
use starling_node::{SharedClock, Telemetry, Trace};
use statements::{Statement, Statements};
use std::{borrow::Cow, future::Future, ops::ControlFlow, sync::Arc};
use tokio::{runtime::Handle, sync::Notify};

pub use tls::TlsError;

/// A CQL server that was found. Clones are the same.
#[derive(Debug, Clone)]
pub struct Driver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: Options,
    live: ArcSwap<Live>,
    observer: Observer,
    second: Arc<Second>,
    /// Told when no node can be reached.
    lost: Arc<Notify>,
    runtime: Handle,
}

/// A session with its statements.
#[derive(Debug)]
struct Live {
    connection: Connection,
    statements: Statements,
}

impl Live {
    async fn open(
        options: &Options,
        connection: Connection,
        second: &Arc<Second>,
    ) -> Result<Self, ConnectError> {
        let statements = Statements::prepare(&connection.session, &options.keyspace, second).await;
        let statements = statements.map_err(|failure| ConnectError::Other(failure.error.to_string()))?;
        Ok(Self { connection, statements })
    }
}

impl Driver {
    /// Connects, and makes sure that the schema is one that this version works with. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`ConnectError`]. A schema that is missing, too old or too new is [`ConnectError::Schema`], which names the
    /// command to run.
    pub async fn connect(
        options: &Options,
        telemetry: &Telemetry,
        clock: SharedClock,
    ) -> Result<Self, ConnectError> {
        let connection = Connection::open(options).await?;
        migrations::demand(&connection, &options.keyspace).await?;
        let second = Second::after(options.speculative_delay, Arc::clone(&telemetry.metrics));
        let second = Arc::new(second);
        let live = Live::open(options, connection, &second).await?;
        let observer = Observer {
            tracer: telemetry.tracer.clone(),
            metrics: Arc::clone(&telemetry.metrics),
            clock,
            keyspace: options.keyspace.as_str().into(),
            second: Arc::clone(&second),
        };
        let inner = Arc::new(Inner {
            options: options.clone(),
            live: ArcSwap::from_pointee(live),
            observer,
            second,
            lost: Arc::default(),
            runtime: Handle::current(),
        });
        tokio::spawn(recovery::run(Arc::downgrade(&inner), Arc::clone(&inner.lost)));
        Ok(Self(inner))
    }

    /// What answers.
    pub fn dialect(&self) -> Dialect {
        self.0.live.load().connection.dialect
    }

    /// Why no request can be sent now; `None` while a node of the local datacenter is connected.
    pub fn trouble(&self) -> Option<String> {
        if self.0.is_connected() {
            return None;
        }
        Some(format!("no CQL server can be reached at {}", self.0.options.contact_points.join(", ")))
    }

    /// One attempt, on a task of its own: it is not taken back when nobody waits for it any more.
    fn attempt<T, W, F>(&self, statement: Statement, about: About, work: W) -> Answer<T>
    where
        T: Send + 'static,
        W: FnOnce(Arc<Request>) -> F + Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        let watch = inner.observer.begin(statement, about.count, &about.traces, about.attempt);
        let task = self.0.runtime.spawn(inner.run(statement, about.serial, watch, work));
        async move { task.await.unwrap_or_else(|_| Err(CqlError::Unknown("the attempt was ended".to_owned()))) }
            .boxed()
    }
}

/// What is to be known of an attempt beside its statement.
struct About {
    count: usize,
    traces: Vec<Trace>,
    attempt: u32,
    serial: bool,
}

impl About {
    const PLAIN: Self = Self { count: 1, traces: Vec::new(), attempt: 1, serial: false };
}

impl Inner {
    fn is_connected(&self) -> bool {
        let live = self.live.load();
        let state = live.connection.session.get_cluster_state();
        state.get_nodes_info().iter().any(|node| node.is_connected())
    }

    async fn run<T, W, F>(
        self: Arc<Self>,
        statement: Statement,
        serial: bool,
        mut watch: Watch,
        work: W,
    ) -> Result<T, CqlError>
    where
        W: FnOnce(Arc<Request>) -> F,
        F: Future<Output = Result<T, Failure>>,
    {
        let limit = self.options.attempt_timeout;
        let live = self.live.load_full();
        let idempotent = statement.kind() != Kind::Conditional;
        let level = if serial { "local_serial" } else { "local_quorum" };
        watch.leaves(level, idempotent, live.connection.dialect);
        let listener = watch.listener();
        let request = Arc::new(Request { live, statement, serial, listener, answer: Mutex::default() });
        let result = match tokio::time::timeout(limit, work(Arc::clone(&request))).await {
            Ok(result) => result,
            Err(_) => Err(CqlError::Unknown(format!("no answer within {} ms", limit.as_millis())).into()),
        };
        if let Some(coordinator) = request.answer.lock().as_ref() {
            watch.answered(coordinator);
        }
        watch.ended(result.as_ref().err());
        result.map_err(|failure: Failure| {
            if failure.disconnected {
                self.lost.notify_one();
            }
            failure.error
        })
    }
}

/// One attempt in a session.
struct Request {
    live: Arc<Live>,
    statement: Statement,
    serial: bool,
    listener: Option<Arc<dyn HistoryListener>>,
    answer: Mutex<Option<Coordinator>>,
}

/// A page, and where the next one begins.
type Page = (QueryRowsResult, ControlFlow<(), PagingState>);

impl Request {
    fn prepared(&self) -> Cow<'_, PreparedStatement> {
        let mut prepared = Cow::Borrowed(self.live.statements.at(self.statement));
        if self.serial {
            prepared = Cow::Owned(self.live.statements.serial(self.statement));
        }
        if let Some(listener) = &self.listener {
            prepared.to_mut().set_history_listener(Arc::clone(listener));
        }
        prepared
    }

    fn answered(&self, answer: Result<QueryResult, ExecutionError>) -> Result<QueryResult, Failure> {
        let kind = self.statement.kind();
        let result = answer.map_err(|error| failure::of_execution(&error, kind))?;
        if self.listener.is_some() {
            *self.answer.lock() = Some(result.request_coordinator().clone());
        }
        Ok(result)
    }

    /// The statement as it is.
    async fn execute(&self, values: &[Cell<'_>]) -> Result<QueryResult, Failure> {
        let prepared = self.prepared();
        self.answered(self.live.connection.session.execute_unpaged(&prepared, values).await)
    }

    /// Several statements of one partition: the server applies them as one.
    async fn batch(&self, bound: Vec<Bound<'_>>) -> Result<QueryResult, Failure> {
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_is_idempotent(true);
        if let Some(listener) = &self.listener {
            batch.set_history_listener(Arc::clone(listener));
        }
        let mut values = Vec::with_capacity(bound.len());
        for (statement, cells) in bound {
            batch.append_statement(self.live.statements.at(statement).clone());
            values.push(cells);
        }
        self.answered(self.live.connection.session.batch(&batch, values).await)
    }

    /// A conditional statement; whether it was done.
    async fn condition(&self, values: &[Cell<'_>]) -> Result<bool, Failure> {
        let rows = self.execute(values).await?.into_rows_result();
        // It was sent and has been decided: how is to be read again.
        let unread = |_| CqlError::Unknown("the answer cannot be read".to_owned());
        Ok(decode::applied(&rows.map_err(|_| unreadable("[applied]")).map_err(unread)?).map_err(unread)?)
    }

    /// One page of a read.
    async fn page(&self, values: &[Cell<'_>], from: PagingState) -> Result<Page, Failure> {
        let prepared = self.prepared();
        let session = &self.live.connection.session;
        let (answer, next) = match session.execute_single_page(&prepared, values, from).await {
            Ok((answer, next)) => (Ok(answer), next.into_paging_control_flow()),
            Err(error) => (Err(error), ControlFlow::Break(())),
        };
        let rows = self.answered(answer)?.into_rows_result();
        Ok((rows.map_err(|_| unreadable(self.statement.table().as_str()))?, next))
    }

    /// All rows of a read, or `limit` of them, page by page.
    async fn all<T>(
        &self,
        values: &[Cell<'_>],
        limit: usize,
        mut decode: impl FnMut(&QueryRowsResult, &'static str, &mut Vec<T>) -> Result<(), CqlError>,
    ) -> Result<Vec<T>, Failure> {
        let mut found = Vec::new();
        let mut from = PagingState::start();
        loop {
            let (page, next) = self.page(values, from).await?;
            decode(&page, self.statement.table().as_str(), &mut found)?;
            match next {
                ControlFlow::Continue(next) if found.len() < limit => from = next,
                _ => break,
            }
        }
        found.truncate(limit);
        Ok(found)
    }
}
