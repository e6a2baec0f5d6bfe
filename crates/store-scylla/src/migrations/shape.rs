//! Which tables and columns there must be after a list of migrations, and which of them are not there.
//!
//! What was applied is written down in the keyspace. Somebody may have dropped a table, or a column, all the same: that
//! is to be seen before a server trips over it.

use super::{MigrateError, Migration, read::ask, unanswered};
use crate::driver::connect::{ConnectError, Connection};
use scylla::statement::Statement;
use std::collections::BTreeMap;
use std::fmt;

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    /// As CQL names it.
    pub(super) kind: String,
    /// Whether it is of the primary key.
    pub(super) is_key: bool,
    /// Whether rows lie by it from the highest to the lowest. Statements without an `ORDER BY` rely on that.
    pub(super) is_descending: bool,
}

/// Columns by table.
pub(super) type Shape = BTreeMap<String, BTreeMap<String, Column>>;

/// What is not there, or is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    /// No such table.
    Table(String),
    /// No such column.
    Column {
        /// Its table.
        table: String,
        /// Its name.
        name: String,
        /// The type that it should have.
        kind: String,
        /// Whether it is of the primary key, and cannot be added.
        is_key: bool,
    },
    /// A column of another type, in another place of the key, or in another order.
    Other {
        /// Its table.
        table: String,
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(table) => write!(f, "table {table} is missing"),
            Self::Column { table, name, .. } => write!(f, "column {table}.{name} is missing"),
            Self::Other { table, name } => write!(f, "column {table}.{name} is another one"),
        }
    }
}

impl Gap {
    /// Whether [`statements`](Self::statements) would bring it back, empty.
    pub(super) fn can_be_made(&self) -> bool {
        matches!(self, Self::Table(_) | Self::Column { is_key: false, .. })
    }

    /// What would bring it back, empty.
    pub(super) fn statements(&self, keyspace: &str, list: &[Migration]) -> Vec<String> {
        match self {
            Self::Table(table) => {
                let all = list.iter().flat_map(|migration| migration.statements);
                let its = all.filter(|text| changed(text).is_some_and(|(_, name)| name == table));
                its.map(|text| text.replace("{keyspace}", keyspace)).collect()
            }
            Self::Column { table, name, kind, is_key: false } => {
                vec![format!("ALTER TABLE {keyspace}.{table} ADD {name} {kind}")]
            }
            Self::Column { .. } | Self::Other { .. } => Vec::new(),
        }
    }
}

/// What a statement of a migration does to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does<'a> {
    /// With this between the brackets, and these options.
    Create(&'a str, &'a str),
    /// A column and its type.
    Add(&'a str, &'a str),
    /// A column goes.
    Drop(&'a str),
    /// The table goes.
    DropAll,
    /// Its options change.
    Options,
}

/// What it does, and to which table; `None` for what is not known here, which a test finds.
pub(super) fn changed(text: &str) -> Option<(Does<'_>, &str)> {
    let table = |rest: &'static str| {
        let rest = text.strip_prefix(rest)?.strip_prefix("{keyspace}.")?;
        Some(rest.split_once(' ').unwrap_or((rest, "")))
    };
    if let Some((name, rest)) = table("CREATE TABLE IF NOT EXISTS ") {
        let (body, options) = rest.strip_prefix('(')?.split_once("\n)")?;
        return Some((Does::Create(body, options), name));
    }
    if let Some((name, _)) = table("DROP TABLE IF EXISTS ") {
        return Some((Does::DropAll, name));
    }
    let (name, rest) = table("ALTER TABLE ")?;
    if let Some(rest) = rest.strip_prefix("ADD IF NOT EXISTS ") {
        let (column, kind) = rest.split_once(' ')?;
        return Some((Does::Add(column, kind), name));
    }
    if let Some(column) = rest.strip_prefix("DROP IF EXISTS ") {
        return Some((Does::Drop(column), name));
    }
    rest.starts_with("WITH ").then_some((Does::Options, name))
}

/// What there is after all of a list.
pub(super) fn after(list: &[Migration]) -> Shape {
    let mut shape = Shape::new();
    for text in list.iter().flat_map(|migration| migration.statements) {
        let Some((does, name)) = changed(text) else { continue };
        match does {
            Does::Create(body, options) => {
                shape.entry(name.to_owned()).or_insert_with(|| columns(body, options));
            }
            Does::Add(column, kind) => {
                let column_of = Column { kind: kind.to_owned(), is_key: false, is_descending: false };
                shape.entry(name.to_owned()).or_default().insert(column.to_owned(), column_of);
            }
            Does::Drop(column) => {
                shape.entry(name.to_owned()).or_default().remove(column);
            }
            Does::DropAll => {
                shape.remove(name);
            }
            Does::Options => {}
        }
    }
    shape
}

/// One to a line, the key in the last.
fn columns(body: &str, options: &str) -> BTreeMap<String, Column> {
    let lines = || body.lines().map(|line| line.trim().trim_end_matches(','));
    let key = lines().find_map(|line| line.strip_prefix("PRIMARY KEY ")).unwrap_or_default();
    let in_key = |name: &str| key.split(['(', ')', ',', ' ']).any(|part| part == name);
    let order = options.split_once("CLUSTERING ORDER BY (").and_then(|(_, rest)| rest.split_once(')'));
    let order = order.map_or("", |(order, _)| order);
    let descends = |name: &str| order.split(',').any(|part| part.trim().strip_suffix(" DESC") == Some(name));
    let each = lines().filter(|line| !line.starts_with("PRIMARY KEY"));
    let each = each.filter_map(|line| line.split_once(' '));
    let column = |name, kind: &str| Column {
        kind: kind.to_owned(),
        is_key: in_key(name),
        is_descending: descends(name),
    };
    each.map(|(name, kind)| (name.to_owned(), column(name, kind))).collect()
}

/// What is missing of `wanted`.
pub(super) fn gaps(wanted: &Shape, there: &Shape) -> Vec<Gap> {
    let mut gaps = Vec::new();
    for (table, columns) in wanted {
        let Some(found) = there.get(table) else {
            gaps.push(Gap::Table(table.clone()));
            continue;
        };
        for (name, wanted) in columns {
            let (table, name) = (table.clone(), name.clone());
            match found.get(&name) {
                Some(found) if found == wanted => {}
                Some(_) => gaps.push(Gap::Other { table, name }),
                None => {
                    let Column { kind, is_key, .. } = wanted.clone();
                    gaps.push(Gap::Column { table, name, kind, is_key });
                }
            }
        }
    }
    gaps
}

/// What there is, as the server says.
pub(super) async fn read(connection: &Connection, keyspace: &str) -> Result<Shape, MigrateError> {
    let text = "SELECT table_name, column_name, kind, type, clustering_order FROM system_schema.columns WHERE keyspace_name = ?";
    let answer = ask(connection, Statement::new(text), (keyspace,)).await;
    let rows = answer.map_err(|error| unanswered(WHAT, &error))?.into_rows_result();
    let failed = |error: &dyn fmt::Display| ConnectError::Other(format!("{WHAT}: {error}"));
    let rows = rows.map_err(|error| failed(&error))?;
    let mut shape = Shape::new();
    for row in rows.rows::<(String, String, String, String, String)>().map_err(|error| failed(&error))? {
        let (table, name, place, kind, order) = row.map_err(|error| failed(&error))?;
        let is_key = matches!(place.as_str(), "partition_key" | "clustering");
        let column = Column { kind, is_key, is_descending: order.eq_ignore_ascii_case("desc") };
        shape.entry(table).or_default().insert(name, column);
    }
    Ok(shape)
}

const WHAT: &str = "the tables cannot be read";

#[cfg(test)]
mod tests {
    use super::super::{Kind, list::LIST};
    use super::*;
    use crate::schema::Table;

    #[test]
    fn every_statement_is_understood() {
        for text in LIST.iter().flat_map(|migration| migration.statements) {
            assert!(changed(text).is_some(), "{text}");
        }
        let shape = after(LIST);
        let tables: Vec<&str> = shape.keys().map(String::as_str).collect();
        let mut ours = Table::ALL.map(Table::as_str);
        ours.sort_unstable();
        assert_eq!(tables, ours);
        let log = &shape["log"];
        assert_eq!(log.len(), 16);
        assert_eq!(log["bucket"], Column { kind: "bigint".to_owned(), is_key: true, is_descending: false });
        assert!(log["position"].is_descending && shape["log_buckets"]["bucket"].is_descending);
        assert_eq!(
            log["direction"],
            Column { kind: "tinyint".to_owned(), is_key: false, is_descending: false }
        );
        assert_eq!(shape["reigns"].values().filter(|column| column.is_key).count(), 1);
    }

    #[test]
    fn later_migrations_change_what_must_be_there() {
        let list = [Migration {
            version: 1,
            name: "one",
            kind: Kind::Expand,
            statements: &[
                "CREATE TABLE IF NOT EXISTS {keyspace}.a (\n    x text,\n    y int,\n    PRIMARY KEY ((x))\n) WITH comment = ''",
                "CREATE TABLE IF NOT EXISTS {keyspace}.b (\n    x text,\n    PRIMARY KEY ((x))\n)",
                "ALTER TABLE {keyspace}.a ADD IF NOT EXISTS z map<text, int>",
                "ALTER TABLE {keyspace}.a DROP IF EXISTS y",
                "ALTER TABLE {keyspace}.a WITH comment = 'x'",
                "DROP TABLE IF EXISTS {keyspace}.b",
            ],
        }];
        let shape = after(&list);
        assert_eq!(shape.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(shape["a"].keys().collect::<Vec<_>>(), ["x", "z"]);
        assert_eq!(shape["a"]["z"].kind, "map<text, int>");
        assert_eq!(changed("CREATE INDEX a ON {keyspace}.b (c)"), None);
    }

    #[test]
    fn what_is_gone_is_named_with_what_would_bring_it_back() {
        let wanted = after(LIST);
        assert_eq!(gaps(&wanted, &wanted), []);
        let mut there = wanted.clone();
        there.insert("somebody_elses".to_owned(), BTreeMap::new());
        let log = there.get_mut("log").unwrap();
        log.remove("stanza");
        log.remove("position");
        log.get_mut("nth").unwrap().kind = "text".to_owned();
        log.insert("more".to_owned(), Column { kind: "int".to_owned(), is_key: false, is_descending: false });
        there.remove("reigns");
        let found = gaps(&wanted, &there);
        let texts: Vec<_> = found.iter().map(Gap::to_string).collect();
        assert_eq!(
            texts,
            [
                "column log.nth is another one",
                "column log.position is missing",
                "column log.stanza is missing",
                "table reigns is missing"
            ]
        );
        let made: Vec<_> = found.iter().map(Gap::can_be_made).collect();
        assert_eq!(made, [false, false, true, true]);
        assert_eq!(found[2].statements("ks", LIST), ["ALTER TABLE ks.log ADD stanza blob"]);
        let again = found[3].statements("ks", LIST);
        assert!(
            again.len() == 1 && again[0].starts_with("CREATE TABLE IF NOT EXISTS ks.reigns ("),
            "{again:?}"
        );
    }
}
