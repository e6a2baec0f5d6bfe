//! What one sync makes durable: jobs turned into one batch, each whole or not at all.

use super::known::Known;
use super::purge::remove_row;
use super::{Count, Forget, Job, Reply, Writer, answer};
use crate::keys::{self, Account, Class, Part};
use crate::read::Read;
use crate::records::{self, AccountRecord, Entries, decode_numbers, encode_numbers};
use crate::tables::engine;
use fjall::{OwnedWriteBatch, Slice};
use starling_store::{AccountRow, LogRow, Position, Reign, Result, StoreError, Write};
use starling_xmpp::BareJid;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Jobs are taken one after the other and see what those before them have changed.
pub(super) struct Group<'a> {
    writer: &'a mut Writer,
    /// What the `accounts` tree will hold; `None` is removed.
    accounts: BTreeMap<Vec<u8>, Value>,
    log: Vec<LogChange>,
    stale: Vec<Vec<u8>>,
    /// How to take back what the job under way has done to `accounts`, newest last.
    undo: Vec<(Vec<u8>, Option<Value>)>,
    removed: Vec<Account>,
    late: bool,
    answers: Vec<Answer>,
    reads: Vec<Read>,
}

type Value = Option<Vec<u8>>;

/// A group that is ready to be written.
pub(super) struct Done {
    pub(super) batch: Option<OwnedWriteBatch>,
    pub(super) answers: Vec<Answer>,
    pub(super) removed: Vec<Account>,
    pub(super) late: bool,
    pub(super) reads: Vec<Read>,
}

/// In order: a later change to the same row wins.
enum LogChange {
    Put(Account, Box<LogRow>),
    Remove(Account, Class, Position, Entries),
}

/// What to tell whom once the group is durable.
pub(super) enum Answer {
    Done(Reply<()>, Result<()>),
    Reign(Reply<Reign>, Reign),
    Secret(Reply<[u8; 32]>, Result<[u8; 32]>),
    Removed(Reply<u64>, u64),
}

impl Answer {
    /// What was found out in a group that failed holds no longer: everybody gets the failure.
    pub(super) fn send(self, outcome: &Result<()>) {
        match (self, outcome) {
            (Self::Done(reply, result), outcome) => answer(reply, outcome.clone().and(result)),
            (Self::Reign(reply, reign), outcome) => answer(reply, outcome.clone().map(|()| reign)),
            (Self::Secret(reply, result), outcome) => answer(reply, outcome.clone().and(result)),
            (Self::Removed(reply, rows), outcome) => answer(reply, outcome.clone().map(|()| rows)),
        }
    }
}

impl<'a> Group<'a> {
    pub(super) fn new(writer: &'a mut Writer) -> Self {
        Self {
            writer,
            accounts: BTreeMap::new(),
            log: Vec::new(),
            stale: Vec::new(),
            undo: Vec::new(),
            removed: Vec::new(),
            late: false,
            answers: Vec::new(),
            reads: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, job: Job) {
        let answer = match job {
            Job::Commit(batch, reply) => {
                let done = self.whole(|group| batch.into_iter().try_for_each(|write| group.write(write)));
                Answer::Done(reply, done)
            }
            Job::Create(jid, row, reply) => {
                let done = self.whole(|group| group.create(jid, *row));
                Answer::Done(reply, done)
            }
            Job::Reign(reply) => Answer::Reign(reply, self.open_reign()),
            Job::Grant(epoch, ceiling, reply) => {
                let done = self.grant(epoch, ceiling);
                Answer::Done(reply, done)
            }
            Job::Secret(name, reply) => {
                let secret = self.secret(name);
                Answer::Secret(reply, secret)
            }
            Job::Forget(forget, reply) => {
                let rows = self.forget(forget);
                Answer::Removed(reply, rows)
            }
            Job::Read(read) => return self.reads.push(read),
        };
        self.answers.push(answer);
    }

    /// Encodes everything. Keys and values go through two buffers, so that the tree's own copy is the only one.
    pub(super) fn finish(self) -> Done {
        let tables = &self.writer.tables;
        let changes = self.accounts.len() + self.log.len() * 2 + self.stale.len();
        let mut batch = (changes > 0).then(|| OwnedWriteBatch::with_capacity(tables.db.clone(), changes));
        if let Some(batch) = &mut batch {
            for (key, value) in self.accounts {
                match value {
                    Some(value) => batch.insert(&tables.accounts, key, value),
                    None => batch.remove(&tables.accounts, key),
                }
            }
            for key in self.stale {
                batch.remove(&tables.accounts, key);
            }
            let mut value = Vec::with_capacity(1_024);
            for change in &self.log {
                match change {
                    LogChange::Put(account, row) => {
                        let (class, position) = (Class::of(row), row.position);
                        value.clear();
                        records::encode_row(row, &mut value);
                        batch.insert(
                            &tables.log,
                            keys::row(*account, class, position),
                            Slice::from(value.as_slice()),
                        );
                        batch.insert(
                            &tables.peers,
                            keys::peer(*account, &row.with, class, position),
                            Slice::default(),
                        );
                        if let Some(expires) = row.expires {
                            let key = keys::expiry(expires, *account, class, position);
                            batch.insert(&tables.accounts, key, Slice::default());
                        }
                    }
                    LogChange::Remove(account, class, position, entries) => {
                        remove_row(batch, tables, *account, *class, *position, entries);
                    }
                }
            }
        }
        Done { batch, answers: self.answers, removed: self.removed, late: self.late, reads: self.reads }
    }

    /// Carries out a job; if it fails half-way, takes back what it did.
    fn whole(&mut self, job: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.undo.clear();
        let (rows, removed) = (self.log.len(), self.removed.len());
        let done = job(self);
        if done.is_err() {
            self.log.truncate(rows);
            self.removed.truncate(removed);
            while let Some((key, before)) = self.undo.pop() {
                match before {
                    Some(before) => self.accounts.insert(key, before),
                    None => self.accounts.remove(&key),
                };
            }
        }
        done
    }

    fn write(&mut self, write: Write) -> Result<()> {
        let Some(known) = self.known(write.owner())? else { return Ok(()) };
        let account = known.account;
        match write {
            Write::Append(row) => return self.append(known, row),
            Write::Cursor(_, cursor) => {
                self.set(keys::part(account, Part::Cursor), Some(records::encode_cursor(&cursor)));
            }
            Write::Doc(_, kind, body) => {
                let body = (!body.is_empty()).then(|| body.to_vec());
                self.set(keys::part(account, Part::Doc(kind)), body);
            }
            Write::RosterItem(_, item) => {
                let contact = item.jid.as_str();
                self.set(keys::part(account, Part::Item(contact)), Some(records::encode_item(&item)));
                self.set(keys::part(account, Part::Removed(contact)), None);
                let [version, since] = self.versions(account)?;
                self.set_versions(account, [version.max(item.version), since]);
            }
            Write::RosterRemove(_, contact, version) => self.remove_contact(account, &contact, version)?,
            Write::Credentials(jid, credentials) => {
                let key = keys::account(&jid);
                if let Some(value) = self.get(&key)? {
                    let mut record = AccountRecord::decode(&value)?;
                    record.row.credentials = *credentials;
                    self.set(key, Some(record.encode()));
                }
            }
            Write::DeleteAccount(jid) => {
                self.set(keys::account(&jid), None);
                self.set(keys::purge(account), Some(encode_numbers(&[])));
                self.writer.known.remove(&jid);
                self.removed.push(account);
                self.mark_late();
            }
        }
        Ok(())
    }

    fn append(&mut self, known: Known, row: Box<LogRow>) -> Result<()> {
        let account = known.account;
        if row.position > known.last {
            if let Some(known) = self.writer.known.find(&row.owner) {
                known.last = row.position;
            }
        } else {
            // A retry, or a row that was overtaken: what is at its place must not leave index entries behind.
            self.mark_late();
            self.set(keys::part(account, Part::Count), None);
            if let Some((class, entries)) = self.find(account, row.position)?
                && (class, &entries) != (Class::of(&row), &Entries::of(&row))
            {
                self.log.push(LogChange::Remove(account, class, row.position, entries));
            }
        }
        self.log.push(LogChange::Put(account, row));
        Ok(())
    }

    fn remove_contact(&mut self, account: Account, contact: &BareJid, version: u64) -> Result<()> {
        self.set(keys::part(account, Part::Item(contact.as_str())), None);
        self.set(keys::part(account, Part::Removed(contact.as_str())), Some(encode_numbers(&[version])));
        let [newest, mut since] = self.versions(account)?;
        let mut marks = self.marks(account)?;
        while marks.len() > Write::MAX_REMOVED {
            let Some(at) = (0..marks.len()).min_by_key(|at| marks[*at].1) else { break };
            let (key, version) = marks.swap_remove(at);
            self.set(key, None);
            since = since.max(version);
        }
        self.set_versions(account, [newest.max(version), since]);
        Ok(())
    }

    /// Removal marks with their versions, in the tree and in this group.
    fn marks(&self, account: Account) -> Result<Vec<(Vec<u8>, u64)>> {
        let prefix = keys::part(account, Part::Removed(""));
        let mut marks = BTreeMap::new();
        for entry in self.writer.tables.accounts.prefix(&prefix) {
            let (key, value) = entry.into_inner().map_err(engine)?;
            marks.insert(key.to_vec(), decode_numbers::<1>(&value, "removal mark")?[0]);
        }
        for (key, value) in
            self.accounts.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix))
        {
            match value {
                Some(value) => marks.insert(key.clone(), decode_numbers::<1>(value, "removal mark")?[0]),
                None => marks.remove(key),
            };
        }
        Ok(marks.into_iter().collect())
    }

    fn versions(&self, account: Account) -> Result<[u64; 2]> {
        let value = self.get(&keys::part(account, Part::Versions))?;
        value.map_or(Ok([0, 0]), |value| decode_numbers(&value, "roster versions"))
    }

    fn set_versions(&mut self, account: Account, versions: [u64; 2]) {
        self.set(keys::part(account, Part::Versions), Some(encode_numbers(&versions)));
    }

    fn create(&mut self, jid: BareJid, row: AccountRow) -> Result<()> {
        let key = keys::account(&jid);
        if self.get(&key)?.is_some() {
            return Err(StoreError::Exists);
        }
        let account = Account(self.writer.next_account);
        self.writer.next_account += 1;
        self.set(key, Some(AccountRecord { account, row }.encode()));
        self.set(keys::NEXT_ACCOUNT.to_vec(), Some(encode_numbers(&[self.writer.next_account])));
        self.writer.known.insert(jid, Known { account, last: Position(0) });
        Ok(())
    }

    fn open_reign(&mut self) -> Reign {
        self.writer.reign.epoch += 1;
        self.set_reign()
    }

    fn grant(&mut self, epoch: u64, ceiling: Position) -> Result<()> {
        if epoch != self.writer.reign.epoch {
            return Err(StoreError::Fenced);
        }
        self.writer.reign.floor = self.writer.reign.floor.max(ceiling);
        self.set_reign();
        Ok(())
    }

    fn set_reign(&mut self) -> Reign {
        let reign = self.writer.reign;
        self.set(keys::REIGN.to_vec(), Some(encode_numbers(&[reign.epoch, reign.floor.0])));
        reign
    }

    fn secret(&mut self, name: &str) -> Result<[u8; 32]> {
        let key = keys::secret(name);
        if let Some(value) = self.get(&key)? {
            return value.as_slice().try_into().map_err(|_| starling_store::codec::damaged("secret"));
        }
        let secret: [u8; 32] = rand::random();
        self.set(key, Some(secret.to_vec()));
        Ok(secret)
    }

    fn forget(&mut self, forget: Forget) -> u64 {
        if self.writer.shared.late.load(Ordering::SeqCst) != forget.seen {
            return 0;
        }
        let rows = forget.rows.len() as u64;
        self.log.extend(
            forget
                .rows
                .into_iter()
                .map(|row| LogChange::Remove(row.account, row.class, row.position, row.entries)),
        );
        self.stale.extend(forget.stale);
        for (account, count) in forget.counts {
            let count = count.map(|Count { rows, through }| encode_numbers(&[rows, through.0]));
            self.set(keys::part(account, Part::Count), count);
        }
        rows
    }

    /// The row at a position as this group leaves it.
    fn find(&self, account: Account, position: Position) -> Result<Option<(Class, Entries)>> {
        for change in self.log.iter().rev() {
            match change {
                LogChange::Put(of, row) if (*of, row.position) == (account, position) => {
                    return Ok(Some((Class::of(row), Entries::of(row))));
                }
                LogChange::Remove(of, _, at, _) if (*of, *at) == (account, position) => return Ok(None),
                _ => {}
            }
        }
        self.writer.tables.find(account, position)
    }

    fn known(&mut self, jid: &BareJid) -> Result<Option<Known>> {
        if let Some(known) = self.writer.known.find(jid) {
            return Ok(Some(*known));
        }
        let Some(value) = self.get(&keys::account(jid))? else { return Ok(None) };
        let account = AccountRecord::decode_account(&value)?;
        let known =
            Known { account, last: self.writer.tables.last(&self.writer.tables.db.snapshot(), account)? };
        self.writer.known.insert(jid.clone(), known);
        Ok(Some(known))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if let Some(value) = self.accounts.get(key) {
            return Ok(value.clone());
        }
        Ok(self.writer.tables.accounts.get(key).map_err(engine)?.map(|value| value.to_vec()))
    }

    fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let before = self.accounts.insert(key.clone(), value);
        self.undo.push((key, before));
    }

    fn mark_late(&mut self) {
        self.late = true;
        self.writer.shared.late.fetch_add(1, Ordering::SeqCst);
    }
}
