//! What an operator does to the routers of a cluster, on processes: all that `starling ctl raft` can do, what it refuses and
//! how it says so, and what the guide says is to be done when disks are lost.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use starling_tests::client::Resumption;
use starling_tests::sandbox::{Process, Sandbox};
use starling_tests::server::PASSWORD;
use starling_tests::{Client, Detached, Login, SILENCE, Target};
use tokio::time::{Instant, sleep};

use crate::site::{ROUTERS, Site, Which};

/// How long a process may take to be ready, to end or to be asked in vain, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(200);

/// All of it, on one cluster.
pub(crate) async fn holds(sandbox: Sandbox) -> Result<()> {
    let mut site = Box::pin(Site::start(sandbox)).await?;
    let mut people = People::gather(&site).await?;
    what_cannot_be_is_refused(&site).await.context("commands that cannot be done")?;
    a_shard_is_moved(&site).await.context("transfer")?;
    people.talk("a shard was moved").await?;
    who_is_where_is_told(&site).await.context("status and session find")?;
    a_router_is_removed(&mut site).await.context("remove")?;
    people.talk("a router was removed").await?;
    two_on_copies_of_one_disk_end(&mut site).await.context("copies of one disk")?;
    people.talk("copies of a router have ended").await?;
    a_majority_of_disks_is_lost(&mut site, &mut people).await.context("loss of a majority of disks")?;
    people.talk("a cluster was founded anew").await?;
    all_disks_are_lost(&mut site, &mut people).await.context("restore")?;
    people.talk("a cluster was restored").await?;
    a_shard_is_moved(&site).await.context("transfer in the new cluster")?;
    match site.panic() {
        Some(panic) => bail!("{panic}"),
        None => Ok(()),
    }
}

/// Runs a command of `ctl raft` at a router.
async fn ask(site: &Site, router: usize, arguments: &[&str]) -> Result<String> {
    site.run(&format!("router-{router}"), &[&["ctl", "raft"], arguments].concat(), "").await
}

/// Runs one that has to be refused, with all that one needs to know to do it right.
async fn refused(site: &Site, router: usize, arguments: &[&str], parts: &[&str]) -> Result<()> {
    let said = match ask(site, router, arguments).await {
        Ok(done) => bail!("{arguments:?} was done: {done}"),
        Err(error) => format!("{error:#}"),
    };
    for part in ["error: ", "where:", "why:", "do:"].iter().chain(parts) {
        ensure!(said.contains(part), "{arguments:?}: no {part:?} in\n{said}");
    }
    Ok(())
}

async fn what_cannot_be_is_refused(site: &Site) -> Result<()> {
    let file = |name: &str| site.file(name).display().to_string();
    let (record, nothing, garbage) = (file("cluster.json"), file("nothing.json"), file("garbage.json"));
    std::fs::write(&garbage, "{\"cluster\": 1}")?;
    let unwritable = file("no/folder.json");
    ask(site, 0, &["snapshot", "--output", &record]).await?;
    for (arguments, why) in [
        (&["transfer", "99", "router-1"][..], "no such shard"),
        (&["transfer", "3", "nobody"], "no such router"),
        (&["remove", "nobody", "--yes"], "no such router"),
        (&["snapshot", "--shard", "99"], "no such shard"),
        (&["snapshot", "--output", &unwritable], "No such file"),
        (&["reconcile", "--voters", "2"], "odd one"),
        (&["reconcile", "--voters", "5"], "only 3 routers are there"),
        (&["restore", &nothing], "No such file"),
        (&["restore", &garbage], "invalid type"),
        (&["restore", &record], "belongs to a cluster"),
    ] {
        refused(site, 0, arguments, &[why]).await?;
    }
    // Nothing of it was done.
    let status = ask(site, 1, &["status"]).await?;
    for router in 0..ROUTERS {
        let votes = status.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.first() == Some(&&*format!("router-{router}")) && words.get(2) == Some(&"yes")
        });
        ensure!(votes, "router-{router} does not vote:\n{status}");
    }
    let done = ask(site, 2, &["reconcile", "--voters", "3"]).await?;
    ensure!(done.contains("vote: router-0 router-1 router-2"), "{done}");
    Ok(())
}

/// What one looks at first: which processes there are, and where somebody is.
async fn who_is_where_is_told(site: &Site) -> Result<()> {
    for (name, parts) in [
        ("router-1", &["router router-1 of cluster", "as router-1 sees it", "edge edge-0 ", "LEADER"][..]),
        ("edge-0", &["edge edge-0 of cluster", " shards\n", "phase      serving"]),
    ] {
        let status = site.run(name, &["ctl", "status"], "").await?;
        for part in parts {
            ensure!(status.contains(part), "{name}: no {part:?} in\n{status}");
        }
    }
    let find = async |user: &str| {
        let account = format!("{user}@localhost");
        site.run("router-2", &["ctl", "session", "find", &account], "").await
    };
    let found = find("ann").await?;
    let line = found.lines().find(|line| line.starts_with("ann@localhost/phone ")).context(found.clone())?;
    let words: Vec<&str> = line.split_whitespace().collect();
    ensure!(words.get(2).is_some_and(|home| home.starts_with("router-")), "no home in\n{found}");
    ensure!(words.get(3).is_some_and(|edge| edge.starts_with("edge-")), "no edge in\n{found}");
    let found = find("nobody").await?;
    ensure!(found.contains("nobody@localhost has no session"), "{found}");
    Ok(())
}

/// Who leads a shard, as a router sees it.
async fn leader(site: &Site, shard: usize) -> Result<String> {
    let status = ask(site, 0, &["status"]).await?;
    let line = status.lines().find(|line| line.split_whitespace().next() == Some(&shard.to_string()));
    let leader = line.and_then(|line| line.split_whitespace().nth(1)).context("no such line")?;
    Ok(leader.to_owned())
}

async fn a_shard_is_moved(site: &Site) -> Result<()> {
    // To each in turn: at least one of them leads it from elsewhere.
    for router in 0..ROUTERS {
        let (name, end) = (format!("router-{router}"), Instant::now() + SOON);
        loop {
            // A follower may lag behind for a moment, and who leads the most gives a shard away soon after.
            let done = ask(site, router, &["transfer", "3", &name]).await;
            let leads = leader(site, 3).await?;
            if done.is_ok() && leads == name {
                break;
            }
            ensure!(Instant::now() < end, "{done:?}, and shard 3 is led by {leads}");
            sleep(AGAIN).await;
        }
    }
    Ok(())
}

/// Waits until a process has ended by itself; with what it said then.
async fn ended(process: &mut Process) -> Result<String> {
    let end = Instant::now() + SOON;
    let status = loop {
        if let Some(status) = process.ended()? {
            break status;
        }
        ensure!(Instant::now() < end, "{} goes on; {}", process.name(), process.tail());
        sleep(AGAIN).await;
    };
    ensure!(status.code() == Some(1), "{} ended with {status}; {}", process.name(), process.tail());
    let said = process.tail();
    for part in ["error: ", "why:", "do:"] {
        ensure!(said.contains(part), "no {part:?}; {said}");
    }
    Ok(said)
}

/// One that is gone for good; and if it is not, it must not come back as it was.
async fn a_router_is_removed(site: &mut Site) -> Result<()> {
    let which = Which::Router(2);
    site.kill(which)?;
    let end = Instant::now() + SOON;
    // For a moment it is still thought to be there.
    while let Err(error) = refused(site, 0, &["reconcile", "--voters", "3"], &[]).await {
        ensure!(Instant::now() < end, "{error:#}");
        sleep(AGAIN).await;
    }
    while let Err(error) = ask(site, 0, &["remove", "router-2", "--yes"]).await {
        ensure!(Instant::now() < end, "{error:#}");
        sleep(AGAIN).await;
    }
    let status = ask(site, 0, &["status"]).await?;
    ensure!(!status.contains("router-2"), "{status}");
    site.begin(which)?;
    let said = ended(site.process(which)).await?;
    ensure!(
        said.contains("no member of the cluster any more") && said.contains("empty `data_dir`"),
        "{said}"
    );
    site.process(which).bury();
    site.wipe(which)?;
    site.begin(which)?;
    site.ready(SOON).await
}

async fn two_on_copies_of_one_disk_end(site: &mut Site) -> Result<()> {
    let which = Which::Router(2);
    site.kill(which)?;
    let mut copy = site.copy(2)?;
    site.begin(which)?;
    site.ready(SOON).await?;
    copy.start(&site.sandbox)?;
    let said = [ended(&mut copy).await?, ended(site.process(which)).await?];
    for said in &said {
        ensure!(said.contains("another process has the identity of this router"), "{said}");
        ensure!(said.contains("same data directory") && said.contains("empty `data_dir`"), "{said}");
    }
    copy.bury();
    site.process(which).bury();
    // The others have gone on, and take in the one that comes in its place.
    site.check_alive()?;
    site.wipe(which)?;
    site.begin(which)?;
    site.ready(SOON).await
}

/// The one that is left can neither serve nor be believed: the guide says to begin anew with empty disks, and what edges hold
/// and the store has is all that is needed.
async fn a_majority_of_disks_is_lost(site: &mut Site, people: &mut People) -> Result<()> {
    let record = site.file("cluster.json").display().to_string();
    people.leave_something().await?;
    for router in 0..2 {
        site.kill(Which::Router(router))?;
        site.wipe(Which::Router(router))?;
        site.begin(Which::Router(router))?;
    }
    refused(site, 2, &["reconcile", "--voters", "3"], &[]).await?;
    let end = Instant::now() + SOON;
    loop {
        // Until it is linked to the one that is left it only says that too few are there.
        match refused(site, 0, &["restore", &record], &["belongs to a cluster"]).await {
            Ok(()) => break,
            Err(error) => ensure!(Instant::now() < end, "{error:#}"),
        }
        sleep(AGAIN).await;
    }
    refused(site, 2, &["restore", &record], &["belongs to a cluster"]).await?;
    ensure!(
        site.ready(Duration::ZERO).await.is_err(),
        "routers without a majority of disks say that they are ready"
    );
    // The others have found it, and have no part in it: they need not be touched again.
    let last = Which::Router(2);
    site.kill(last)?;
    site.wipe(last)?;
    site.begin(last)?;
    site.ready(SOON).await?;
    people.come_back().await
}

/// With a record of the cluster, as on a store that knows less than that.
async fn all_disks_are_lost(site: &mut Site, people: &mut People) -> Result<()> {
    let record = site.file("cluster.json").display().to_string();
    people.leave_something().await?;
    for router in 0..ROUTERS {
        let which = Which::Router(router);
        site.kill(which)?;
        site.wipe(which)?;
        site.process(which).environment(&[("STARLING__CLUSTER__INITIAL_ROUTERS", "0")]);
        let begun = site.begin(which);
        site.process(which).environment(&[]);
        begun?;
    }
    let end = Instant::now() + SOON;
    loop {
        match ask(site, 0, &["restore", &record, "--routers", "3"]).await {
            Ok(said) => {
                ensure!(said.contains("founded"), "{said}");
                break;
            }
            // They have to find each other, and the old cluster has to have been silent for some seconds.
            Err(error) => ensure!(Instant::now() < end, "{error:#}"),
        }
        sleep(AGAIN).await;
    }
    site.ready(SOON).await?;
    people.come_back().await
}

/// One session, over however many connections.
struct Person {
    login: Login,
    client: Option<Client>,
    left: Option<Detached>,
}

impl Person {
    async fn new(site: &Site, user: &str) -> Result<Self> {
        site.add_user(user).await?;
        let login = Login::new(user, PASSWORD).resource("phone").managed();
        let end = Instant::now() + SOON;
        // Until the load balancer knows of edges that are ready it leads nowhere.
        let mut client = loop {
            match login.connect(&site.target).await {
                Ok(client) => break client,
                Err(error) => ensure!(Instant::now() < end, "{error:#}"),
            }
            sleep(AGAIN).await;
        };
        client.come_online().await?;
        Ok(Self { login, client: Some(client), left: None })
    }

    /// Connected, with the session it has had from the beginning.
    async fn there(&mut self, target: &Target) -> Result<&mut Client> {
        let end = Instant::now() + SOON;
        while self.client.is_none() {
            let left = self.left.clone().context("no session")?;
            match left.resume(target, &self.login).await {
                Ok(Resumption::Resumed(client)) => self.client = Some(*client),
                Ok(Resumption::Failed { condition, .. }) => {
                    bail!("the session of {} is lost: {condition}", self.login.user())
                }
                Err(error) => ensure!(Instant::now() < end, "no connection: {error:#}"),
            }
            sleep(AGAIN).await;
        }
        self.client.as_mut().context("no client")
    }

    fn leave(&mut self) {
        if let Some(client) = self.client.take() {
            self.left = Some(client.cut());
        }
    }
}

/// One who writes to another.
struct People {
    target: Target,
    ann: Person,
    bob: Person,
    written: Vec<String>,
    heard: Vec<String>,
}

impl People {
    async fn gather(site: &Site) -> Result<Self> {
        let (ann, bob) = (Person::new(site, "ann").await?, Person::new(site, "bob").await?);
        Ok(Self { target: site.target.clone(), ann, bob, written: Vec::new(), heard: Vec::new() })
    }

    /// Something is written, acknowledged, and comes to the other one, once.
    async fn talk(&mut self, what: &str) -> Result<()> {
        self.write(what).await.with_context(|| format!("writing that {what}"))?;
        self.hear().await.with_context(|| format!("hearing that {what}"))
    }

    async fn write(&mut self, what: &str) -> Result<()> {
        let (text, end) = (format!("{}: {what}", self.written.len()), Instant::now() + SOON);
        let mut message =
            Some(format!("<message type='chat' to='bob@localhost'><body>{text}</body></message>"));
        self.written.push(text);
        loop {
            let client = self.ann.there(&self.target).await?;
            let done = async {
                if let Some(message) = message.take() {
                    client.send_stanza(message).await?;
                }
                client.settle().await
            };
            match done.await {
                Ok(()) => return Ok(()),
                Err(error) => ensure!(Instant::now() < end, "{error:#}"),
            }
            self.ann.leave();
        }
    }

    /// All that was written has come, in order, and nothing comes twice.
    async fn hear(&mut self) -> Result<()> {
        let end = Instant::now() + SOON;
        while self.heard.len() < self.written.len() {
            let client = self.bob.there(&self.target).await?;
            match client.next_that(|node| node.name == "message").await {
                Ok(message) => self.heard.push(message.body().unwrap_or_default()),
                Err(error) => {
                    ensure!(Instant::now() < end, "{error:#}");
                    self.bob.leave();
                }
            }
        }
        self.bob.there(&self.target).await?.silence(SILENCE).await?;
        ensure!(self.heard == self.written, "{:?} was heard of {:?}", self.heard, self.written);
        Ok(())
    }

    /// Both lose their connections; what is written in between waits.
    async fn leave_something(&mut self) -> Result<()> {
        self.bob.leave();
        self.write("nobody hears this now").await?;
        self.ann.leave();
        Ok(())
    }

    async fn come_back(&mut self) -> Result<()> {
        self.ann.there(&self.target).await?;
        self.hear().await
    }
}
