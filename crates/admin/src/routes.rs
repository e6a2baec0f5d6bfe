//! The calls of the admin socket.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{
        DefaultBodyLimit, Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use futures::{StreamExt, stream};
use serde::Deserialize;
use starling_xmpp::BareJid;

use crate::{
    api::{
        AddUser, DrainBody, ErrorBody, IMPORT_MAX, Import, ImportFailure, Imported, PAGE_MAX, PASSWORD_MAX,
        SessionRow, Sessions, SetPassword, StatusBody, Users,
    },
    control::{Control, ControlError, NewUser, Password, Put, UserQuery},
    raft::{Places, Raft, Reconcile, Reconciled, Record, Remove, Restore, Snapshot, Standing, Transfer},
    traces::{StartTrace, TraceRules, Traces},
};

pub(crate) fn router(control: Arc<dyn Control>) -> Router {
    Router::new()
        .route("/v1/users", post(add).get(list))
        .route("/v1/users:import", post(import))
        .route("/v1/users/{jid}", delete(remove))
        .route("/v1/users/{jid}/password", put(set_password))
        .route("/v1/sessions", get(sessions))
        .route("/v1/status", get(status))
        .route("/v1/drain", get(draining).post(drain))
        .route("/v1/raft", get(raft))
        .route("/v1/raft/transfer", post(transfer))
        .route("/v1/raft/remove", post(remove_router))
        .route("/v1/raft/snapshot", post(snapshot))
        .route("/v1/raft/reconcile", post(reconcile))
        .route("/v1/raft/record", get(record))
        .route("/v1/raft/restore", post(restore))
        .route("/v1/places", get(places))
        .route("/v1/traces", get(traces).post(start_trace))
        .route("/v1/traces/{which}", delete(stop_trace))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(control)
}

type Body<T> = Result<Json<T>, JsonRejection>;
type Params<T> = Result<Query<T>, QueryRejection>;
type Answer<T> = Result<Json<T>, Failure>;
type Shared = State<Arc<dyn Control>>;

async fn add(State(control): Shared, body: Body<AddUser>) -> Result<StatusCode, Failure> {
    let user = new_user(body?.0)?;
    control.user_add(user).await?;
    tracing::info!(event = "user_added", "an account was made");
    Ok(StatusCode::CREATED)
}

async fn remove(State(control): Shared, Path(jid): Path<String>) -> Result<StatusCode, Failure> {
    control.user_delete(account(&jid)?).await?;
    tracing::info!(event = "user_deleted", "an account was removed");
    Ok(StatusCode::NO_CONTENT)
}

async fn set_password(
    State(control): Shared,
    Path(jid): Path<String>,
    body: Body<SetPassword>,
) -> Result<StatusCode, Failure> {
    control.user_passwd(account(&jid)?, password(body?.0.password)?).await?;
    tracing::info!(event = "password_set", "a password was set");
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListUsers {
    domain: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

async fn list(State(control): Shared, params: Params<ListUsers>) -> Answer<Users> {
    let params = params?.0;
    let after = params.after.as_deref().map(account).transpose()?;
    let limit = page(params.limit)?;
    let domain = params.domain.map(|domain| starling_xmpp::jid::domain(&domain)).transpose();
    let domain = domain.map_err(|error| invalid(&format!("domain: {error}")))?;
    Ok(Json(control.users(UserQuery { domain, after, limit }).await?.into()))
}

async fn import(State(control): Shared, body: Body<Import>) -> Answer<Imported> {
    let users = body?.0.users;
    if users.len() > IMPORT_MAX {
        return Err(invalid(&format!("at most {IMPORT_MAX} users in one call")));
    }
    let mut imported = Imported::default();
    // Each derives three keys: a few at a time use the cores and leave room for those who log in.
    let puts = users.into_iter().map(|user| put_user(control.as_ref(), user));
    let mut puts = stream::iter(puts).buffered(AT_ONCE).enumerate();
    while let Some((index, put)) = puts.next().await {
        match put {
            Ok(Put::Added) => imported.added += 1,
            Ok(Put::Changed) => imported.changed += 1,
            // What cannot be done now will not be done for the rest either.
            Err(failure @ Failure(ControlError::Unavailable(_))) => return Err(failure),
            Err(Failure(error)) => {
                imported.failed.push(ImportFailure { index, error: ErrorBody::from(&error) });
            }
        }
    }
    tracing::info!(
        event = "users_imported",
        added = imported.added,
        changed = imported.changed,
        "users were imported"
    );
    Ok(Json(imported))
}

/// Tries again for as long as a shard may be without a home: an import of hours does not break off for that.
async fn put_user(control: &dyn Control, user: AddUser) -> Result<Put, Failure> {
    let user = new_user(user)?;
    for pause in PAUSES {
        match control.user_put(user.clone()).await {
            Err(ControlError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(pause)).await,
            put => return Ok(put?),
        }
    }
    Ok(control.user_put(user).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListSessions {
    jid: Option<String>,
    limit: Option<usize>,
}

async fn sessions(State(control): Shared, params: Params<ListSessions>) -> Answer<Sessions> {
    let params = params?.0;
    let of = params.jid.as_deref().map(account).transpose()?;
    let limit = params.limit.unwrap_or(PAGE_MAX);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(invalid(&format!("limit is not from 1 to {PAGE_MAX}")));
    }
    let mut found = control.sessions(of, limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    Ok(Json(Sessions { sessions: found.into_iter().map(SessionRow::from).collect(), more }))
}

async fn status(State(control): Shared) -> Answer<StatusBody> {
    Ok(Json(control.status().await?.into()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    node: Option<String>,
}

async fn drain(State(control): Shared, params: Params<Drain>) -> Answer<DrainBody> {
    let begun = match params?.0.node {
        None => control.drain().await?,
        Some(node) => {
            let begun = control.drain_node(node.clone()).await?;
            tracing::info!(
                event = "drain_forwarded",
                node,
                "another process was asked to send everybody away"
            );
            return Ok(Json(begun.into()));
        }
    };
    tracing::info!(event = "drain_asked", "asked to send everybody away");
    Ok(Json(begun.into()))
}

async fn draining(State(control): Shared, params: Params<Drain>) -> Answer<DrainBody> {
    let how_far = match params?.0.node {
        None => control.draining().await?,
        Some(node) => control.draining_node(node).await?,
    };
    Ok(Json(how_far.into()))
}

fn group(control: &dyn Control) -> Result<&dyn Raft, Failure> {
    control.raft().ok_or_else(|| invalid("this process is no router of a cluster: ask one of those"))
}

async fn raft(State(control): Shared) -> Answer<Standing> {
    Ok(Json(group(control.as_ref())?.standing()))
}

async fn transfer(State(control): Shared, body: Body<Transfer>) -> Result<StatusCode, Failure> {
    let Transfer { shard, to } = body?.0;
    group(control.as_ref())?.transfer(shard, to).await?;
    tracing::info!(event = "shard_moved", shard, "a shard was moved by hand");
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_router(State(control): Shared, body: Body<Remove>) -> Result<StatusCode, Failure> {
    let router = body?.0.router;
    group(control.as_ref())?.remove(router.clone()).await?;
    tracing::info!(event = "router_removed", router, "a router was removed by hand");
    Ok(StatusCode::NO_CONTENT)
}

async fn snapshot(State(control): Shared, body: Body<Snapshot>) -> Result<StatusCode, Failure> {
    group(control.as_ref())?.snapshot(body?.0.shard).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn reconcile(State(control): Shared, body: Body<Reconcile>) -> Answer<Reconciled> {
    let voters = body?.0.voters;
    let done = group(control.as_ref())?.reconcile(voters).await?;
    tracing::info!(event = "voters_reconciled", voters, "the number of voters was set by hand");
    Ok(Json(done))
}

async fn record(State(control): Shared) -> Answer<Record> {
    Ok(Json(group(control.as_ref())?.record()?))
}

async fn restore(State(control): Shared, body: Body<Restore>) -> Result<StatusCode, Failure> {
    let Restore { record, routers } = body?.0;
    let era = record.era;
    group(control.as_ref())?.restore(record, routers).await?;
    tracing::info!(event = "cluster_restored", era, "a cluster was founded in place of one that was lost");
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Find {
    jid: String,
}

async fn places(State(control): Shared, params: Params<Find>) -> Answer<Places> {
    let of = account(&params?.0.jid)?;
    Ok(Json(Places { places: group(control.as_ref())?.find(of) }))
}

fn rules(control: &dyn Control) -> Result<&dyn Traces, Failure> {
    control.traces().ok_or_else(|| {
        invalid("this process is an edge, which is told what to trace: run the command with the settings of a router")
    })
}

async fn traces(State(control): Shared) -> Answer<TraceRules> {
    Ok(Json(rules(control.as_ref())?.list()))
}

async fn start_trace(
    State(control): Shared,
    body: Body<StartTrace>,
) -> Result<(StatusCode, Json<TraceRules>), Failure> {
    let StartTrace { jid, seconds, max } = body?.0;
    let started = rules(control.as_ref())?.start(account(&jid)?, Duration::from_secs(seconds), max);
    Ok((StatusCode::CREATED, Json(started.await?)))
}

async fn stop_trace(State(control): Shared, Path(which): Path<String>) -> Answer<TraceRules> {
    Ok(Json(rules(control.as_ref())?.stop(which).await?))
}

fn new_user(user: AddUser) -> Result<NewUser, Failure> {
    Ok(NewUser { jid: account(&user.jid)?, password: password(user.password)? })
}

/// An address that can be an account: `local@domain`.
fn account(text: &str) -> Result<BareJid, Failure> {
    let jid = BareJid::parse(text).map_err(|error| invalid(&format!("the address is not valid: {error}")))?;
    if jid.local().is_none() {
        return Err(invalid("the address has no part before the @"));
    }
    Ok(jid)
}

fn password(text: String) -> Result<Password, Failure> {
    let password = Password::new(text);
    if password.expose().is_empty() {
        return Err(invalid("the password is empty"));
    }
    if password.expose().len() > PASSWORD_MAX {
        return Err(invalid(&format!("the password is longer than {PASSWORD_MAX} bytes")));
    }
    Ok(password)
}

fn page(limit: Option<usize>) -> Result<usize, Failure> {
    match limit {
        Some(0) => Err(invalid("limit is 0")),
        limit => Ok(limit.unwrap_or(PAGE_MAX).min(PAGE_MAX)),
    }
}

fn invalid(why: &str) -> Failure {
    Failure(ControlError::Invalid(why.to_owned()))
}

/// An error as an answer.
struct Failure(ControlError);

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        Self(error)
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        // The text of the rejection may quote the body, which may hold a password.
        let why = match rejection {
            JsonRejection::MissingJsonContentType(_) => "the body is not application/json",
            JsonRejection::BytesRejection(_) => "the body is too large or broke off",
            _ => "the body is not what this call takes",
        };
        invalid(why)
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        invalid(&rejection.body_text())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0 {
            ControlError::NotFound => StatusCode::NOT_FOUND,
            ControlError::Exists => StatusCode::CONFLICT,
            ControlError::UnknownDomain | ControlError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ControlError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, Json(ErrorBody::from(&self.0))).into_response()
    }
}

/// A full import of long names and passwords fits.
const BODY_MAX: usize = 4 * 1_024 * 1_024;

/// Users of one import that are worked on at a time.
const AT_ONCE: usize = 4;

/// Before an account is tried again to be imported, in milliseconds.
const PAUSES: [u64; 4] = [250, 500, 1_000, 2_000];
