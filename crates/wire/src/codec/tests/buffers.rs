//! What is kept of a frame, and the buffer it was read into.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// A receive buffer that says when it is freed.
struct Buffer(Vec<u8>, Arc<AtomicBool>);

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.1.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_is_kept_of_a_frame_does_not_keep_the_buffer_it_came_in() {
    let freed = Arc::new(AtomicBool::new(false));
    let received = |bytes: Vec<u8>| {
        freed.store(false, Ordering::Relaxed);
        Bytes::from_owner(Buffer(bytes, Arc::clone(&freed)))
    };
    let mut seen = 0;
    for up in ups() {
        if !matches!(up, Up::Stanza { .. } | Up::Attach(_)) {
            continue;
        }
        let [frame] = <[_; 1]>::try_from(frames::<EdgePieces>(vec![said(up)])).unwrap();
        let frame = proto::EdgeFrame::decode(received(frame)).unwrap();
        let _kept = Reader::new(EDGE).read(frame).unwrap();
        assert!(freed.load(Ordering::Relaxed), "{_kept:?}");
        seen += 1;
    }
    for down in downs() {
        if !matches!(down, Down::Stanza { .. }) {
            continue;
        }
        let [frame] = <[_; 1]>::try_from(frames::<RouterPieces>(vec![told(down)])).unwrap();
        let frame = proto::RouterFrame::decode(received(frame)).unwrap();
        let _kept = read_router_frame(EDGE, frame).unwrap();
        assert!(freed.load(Ordering::Relaxed), "{_kept:?}");
        seen += 1;
    }
    for item in peers() {
        if !matches!(item, PeerItem::Forward(_) | PeerItem::Receipt(_)) {
            continue;
        }
        let [frame] = <[_; 1]>::try_from(frames::<PeerPieces>(vec![item])).unwrap();
        let frame = proto::PeerFrame::decode(received(frame)).unwrap();
        let _kept = read_peer_frame(frame).unwrap();
        assert!(freed.load(Ordering::Relaxed), "{_kept:?}");
        seen += 1;
    }
    assert!(seen >= 8, "{seen}");
}
