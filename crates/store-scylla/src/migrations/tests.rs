//! What needs no server.

use super::*;

const THREE: [Migration; 3] = [
    Migration { version: 1, name: "one", kind: Kind::Expand, statements: &["a"] },
    Migration { version: 2, name: "two", kind: Kind::Expand, statements: &["b"] },
    Migration { version: 3, name: "three", kind: Kind::Contract, statements: &["c"] },
];

fn applied(list: &[Migration]) -> Vec<Applied> {
    let applied = |migration: &Migration| Applied {
        version: migration.version,
        name: migration.name.to_owned(),
        kind: migration.kind,
        at_millis: 0,
        checksum: migration.checksum(),
        by: String::new(),
    };
    list.iter().map(applied).collect()
}

#[test]
fn a_server_accepts_its_own_schema_and_expansions_of_it() {
    assert_eq!(Fitness::of(&applied(&THREE[..1]), &THREE[..1]), Fitness::Fits);
    assert_eq!(Fitness::of(&applied(&THREE[..2]), &THREE[..1]), Fitness::Fits);
    assert_eq!(Fitness::of(&applied(&THREE), &THREE), Fitness::Fits);
}

#[test]
fn a_schema_too_old_or_too_new_is_refused_with_what_to_do() {
    let old = Fitness::of(&applied(&THREE[..1]), &THREE);
    assert_eq!(old, Fitness::TooOld(2));
    assert!(
        old.text("ks", 3).contains("lacks version 2")
            && old.advice().unwrap().contains("starling migrate apply")
    );
    let new = Fitness::of(&applied(&THREE), &THREE[..1]);
    assert_eq!(new, Fitness::TooNew(vec![(3, "three".to_owned())]));
    assert!(new.text("ks", 1).contains("3 (three)") && new.text("ks", 1).contains("up to 1"));
    assert!(new.advice().unwrap().contains("newer starling") && !new.advice().unwrap().contains("apply"));
    assert!(Fitness::NoKeyspace.advice().unwrap().contains("starling migrate apply"));
    assert_eq!(Fitness::Fits.refusal("ks", 1), None);
    // What is newer is known even where something older is missing: nothing may be applied then.
    let both: Vec<_> = applied(&THREE).into_iter().filter(|applied| applied.version != 2).collect();
    assert!(matches!(Fitness::of(&both, &THREE[..2]), Fitness::TooNew(_)));
    // A gap counts as old, wherever it is.
    let gap: Vec<_> = applied(&THREE).into_iter().filter(|applied| applied.version != 2).collect();
    assert_eq!(Fitness::of(&gap, &THREE), Fitness::TooOld(2));
}

#[test]
fn a_version_that_is_another_one_is_refused() {
    let mut other = applied(&THREE);
    other[1].checksum.clear();
    let changed = Fitness::of(&other, &THREE);
    assert_eq!(changed, Fitness::Changed(vec![2]));
    assert!(!changed.can_be_applied() && changed.text("ks", 3).contains("version 2"));
    assert_eq!(Fitness::of(&other, &THREE[..1]), Fitness::TooNew(vec![(3, "three".to_owned())]));
}

#[test]
fn the_list_rises_by_one_and_may_be_run_again() {
    for (index, migration) in LIST.iter().enumerate() {
        assert_eq!(usize::try_from(migration.version).unwrap(), index + 1);
        for text in migration.statements {
            assert!(text.contains("{keyspace}."), "{text}");
            assert!(text.contains("IF NOT EXISTS") || text.contains("IF EXISTS"), "{text}");
            assert!(!text.contains("INDEX") && !text.contains("VIEW"), "{text}");
        }
    }
    assert_eq!(newest(), u32::try_from(LIST.len()).unwrap());
}

/// Levels are for what is read much and written little: each write is written again some ten times over.
#[test]
fn what_is_written_with_messages_is_not_in_levels() {
    for table in ["account_data", "log", "log_by_peer"] {
        let create = format!("{{keyspace}}.{table} (");
        let text = LIST[0].statements.iter().find(|text| text.contains(&create)).unwrap();
        assert!(text.contains("SizeTiered"), "{text}");
    }
}

/// What was released is never changed: a keyspace would then say that it has something else than it has.
#[test]
fn released_migrations_are_as_they_were() {
    let sums: Vec<String> = LIST.iter().map(Migration::checksum).collect();
    assert_eq!(sums, ["a86108f61723dc036d7b81b28775c85c"]);
}

#[test]
fn any_change_changes_the_checksum() {
    let [one, ..] = THREE;
    let others = [
        Migration { name: "other", ..one },
        Migration { kind: Kind::Contract, ..one },
        Migration { statements: &["a", ""], ..one },
        Migration { statements: &["b"], ..one },
    ];
    assert!(others.iter().all(|other| other.checksum() != one.checksum()));
}
