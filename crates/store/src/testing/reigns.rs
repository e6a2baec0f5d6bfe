//! Epochs, ceilings and who reigns.

use super::{BackEnd, TestTime, claim};
use crate::log::Position;
use crate::{Retention, SharedStore, StoreError};

async fn raw(back_end: &mut impl BackEnd) -> SharedStore {
    back_end.open(TestTime::at(2_000).now(), Retention::default()).await
}

/// Epochs rise strictly, floors lie above every ceiling.
pub async fn reigns_rise_above_all_that_was_granted(back_end: &mut impl BackEnd) {
    let first = {
        let store = raw(back_end).await;
        let first = store.open_reign(claim(1)).await.unwrap();
        store.grant(first.epoch, Position(first.floor.0 + 500)).await.unwrap();
        store.grant(first.epoch, Position(first.floor.0 + 400)).await.unwrap();
        first
    };
    let store = raw(back_end).await;
    let second = store.open_reign(claim(1)).await.unwrap();
    assert!(second.epoch > first.epoch && second.floor.0 >= first.floor.0 + 500, "{second:?}");
    let third = store.open_reign(claim(1)).await.unwrap();
    assert!(third.epoch > second.epoch && third.floor >= second.floor, "without a grant too");
    let granted = Position(third.floor.0 + 900);
    store.grant(third.epoch, granted).await.unwrap();
    for earlier in [first, second] {
        let late = store.grant(earlier.epoch, Position(granted.0 + 900)).await;
        assert!(matches!(late, Err(StoreError::Fenced)), "its reign is over: {late:?}");
    }
    let fourth = store.open_reign(claim(1)).await.unwrap();
    assert!(fourth.floor >= granted && fourth.floor.0 < granted.0 + 900, "{fourth:?}");
}

/// What was released is taken over by anybody, at once.
pub async fn a_released_reign_is_nobodys(back_end: &mut impl BackEnd) {
    let store = raw(back_end).await;
    let first = store.open_reign(claim(1)).await.unwrap();
    let granted = Position(first.floor.0 + 500);
    store.grant(first.epoch, granted).await.unwrap();
    store.release(first.epoch).await.unwrap();
    let second = store.open_reign(claim(2)).await.unwrap();
    assert!(second.epoch > first.epoch && second.floor >= granted);
    store.grant(second.epoch, Position(second.floor.0 + 1)).await.unwrap();
}

/// Whoever ends late does not end the reign that came after.
pub async fn a_release_is_for_its_own_reign(back_end: &mut impl BackEnd) {
    let store = raw(back_end).await;
    let first = store.open_reign(claim(1)).await.unwrap();
    let second = store.open_reign(claim(1)).await.unwrap();
    drop(store.release(first.epoch).await);
    store.grant(second.epoch, Position(second.floor.0 + 500)).await.unwrap();
}
