//! The log against a naive one: any steps, any restarts and crashes, the same content.

use proptest::prelude::*;

use super::{
    kill::{Expected, Step},
    *,
};
use crate::disk::faulty::Crash;

#[derive(Debug, Clone)]
enum Event {
    Step(usize, Step),
    Close,
    Crash(Option<u64>),
}

fn event() -> impl Strategy<Value = Event> {
    let step = prop_oneof![
        2 => (0..3_u64).prop_map(Step::Vote),
        8 => (1..6_u64, 0..300_usize).prop_map(|(count, length)| Step::Append(count, length)),
        2 => (1..5_u64).prop_map(Step::Truncate),
        2 => (0..6_u64).prop_map(Step::Purge),
    ];
    prop_oneof![
        30 => (0..3_usize, step).prop_map(|(group, step)| Event::Step(group, step)),
        1 => Just(Event::Close),
        1 => any::<Option<u64>>().prop_map(Event::Crash),
    ]
}

fn opened(disk: &FaultyDisk, options: &Options) -> (Wal, Vec<GroupLog<Texts>>) {
    let wal = open(disk, options).unwrap();
    let logs = (0..3).map(|group| wal.group(group, covered()).unwrap()).collect();
    (wal, logs)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_story_ends_as_the_naive_one(
        events in prop::collection::vec(event(), 1..250),
        calm in any::<bool>(),
    ) {
        let mut options = small();
        if calm {
            // With marks in between, at whatever moment.
            options.calm_after = Duration::from_micros(50);
        }
        let mut disk = FaultyDisk::new();
        drop(create(&disk, &options).unwrap());
        let mut expected = vec![Expected::default(); 3];
        run(async {
            let (mut wal, mut logs) = opened(&disk, &options);
            for event in events {
                match event {
                    Event::Step(group, step) => expected[group].step(&mut logs[group], &step).await.unwrap(),
                    Event::Close => {
                        wal.close().unwrap();
                        (wal, logs) = opened(&disk, &options);
                        // A clean end loses nothing at all.
                        for (log, expected) in logs.iter_mut().zip(&expected) {
                            assert_eq!(&seen(log).await, expected.last());
                        }
                    }
                    Event::Crash(power) => {
                        disk = disk.crash(power.map_or(Crash::Process, Crash::Power));
                        drop(wal);
                        (wal, logs) = opened(&disk, &options);
                        for (log, expected) in logs.iter_mut().zip(&mut expected) {
                            expected.found(seen(log).await);
                        }
                    }
                }
            }
        });
    }
}
