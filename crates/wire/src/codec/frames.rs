//! Frames: what is ready, up to a size.

use super::{
    FULL, MANY, Malformed, Result, down, hello, home, not_home, peer, read_home, read_not_home, read_place,
    traces, up,
};
use crate::frame::{EdgeItem, Home, Leaving, PeerItem, RouterItem, RouterNews};
use crate::proto::router_item::Item as Said;
use crate::{EdgeId, proto};
use std::collections::VecDeque;

/// Makes frames of items, in order.
pub(crate) trait Pieces: Default + Send + 'static {
    /// What is sent, one by one.
    type Item: Send + 'static;
    /// The message that holds many.
    type Frame: Send + 'static;

    /// A frame of what is there, until it is full. `None` when nothing is.
    fn frame(&mut self, items: &mut VecDeque<Self::Item>) -> Option<Self::Frame>;
}

/// Of an edge. Holds the rest of a record that did not fit.
#[derive(Default)]
pub(crate) struct EdgePieces {
    rest: VecDeque<(proto::UpEnvelope, usize)>,
    home: Option<Home>,
}

impl Pieces for EdgePieces {
    type Item = EdgeItem;
    type Frame = proto::EdgeFrame;

    fn frame(&mut self, items: &mut VecDeque<EdgeItem>) -> Option<proto::EdgeFrame> {
        let mut frame = proto::EdgeFrame::default();
        let mut size = 0;
        let mut count = 0;
        while size < FULL && count < MANY {
            count += 1;
            if let (Some((envelope, weight)), Some(home)) = (self.rest.pop_front(), self.home) {
                size += weight;
                batch(&mut frame.batches, home).ups.push(envelope);
                continue;
            }
            match items.pop_front() {
                Some(EdgeItem::AttachBegin(home)) => {
                    frame.batches.push(proto::UpBatch { attach_begin: true, ..empty(home) });
                }
                Some(EdgeItem::AttachEnd(home)) => batch(&mut frame.batches, home).attach_end = true,
                Some(EdgeItem::Leaving(Leaving { phase, left })) => {
                    frame.leaving = Some(proto::Leaving { phase, left });
                }
                Some(EdgeItem::Heard(ask)) => frame.heard = frame.heard.max(ask),
                Some(EdgeItem::Up(home, message)) => {
                    self.home = Some(home);
                    up::envelopes(message, &mut self.rest);
                }
                None => break,
            }
        }
        (!frame.batches.is_empty() || frame.leaving.is_some() || frame.heard > 0).then_some(frame)
    }
}

fn empty(home: Home) -> proto::UpBatch {
    proto::UpBatch { shard: u32::from(home.shard.0), epoch: home.epoch.0, ..proto::UpBatch::default() }
}

/// The batch that is being filled, or a new one.
fn batch(batches: &mut Vec<proto::UpBatch>, home: Home) -> &mut proto::UpBatch {
    let fits = batches.last().is_some_and(|last| {
        last.shard == u32::from(home.shard.0) && last.epoch == home.epoch.0 && !last.attach_end
    });
    if !fits {
        batches.push(empty(home));
    }
    let last = batches.len() - 1;
    &mut batches[last]
}

/// Of a router, for an edge.
#[derive(Default)]
pub(crate) struct RouterPieces;

impl Pieces for RouterPieces {
    type Item = RouterItem;
    type Frame = proto::RouterFrame;

    fn frame(&mut self, items: &mut VecDeque<RouterItem>) -> Option<proto::RouterFrame> {
        let mut frame = proto::RouterFrame::default();
        let mut size = 0;
        let mut count = 0;
        while size < FULL && count < MANY {
            count += 1;
            let Some(item) = items.pop_front() else { break };
            let said = match item {
                RouterItem::Home(new) => Said::Home(home(new)),
                RouterItem::NotHome(not) => Said::NotHome(not_home(not)),
                // Of two the later one holds.
                RouterItem::Routers(routers) => {
                    frame.routers = Some(proto::Routers { addresses: hello::named(&routers) });
                    continue;
                }
                RouterItem::Traces(rules) => {
                    let told = frame.traces.get_or_insert_default();
                    told.rules.extend(rules.into_iter().map(traces::rule));
                    continue;
                }
                RouterItem::Leave => {
                    frame.leave = true;
                    continue;
                }
                // Who answers a later one has taken what came before this, too.
                RouterItem::Ask(number) => {
                    frame.ask = frame.ask.max(number);
                    continue;
                }
                RouterItem::Down(home, message) => {
                    let (envelope, weight) = down::envelope(message);
                    size += weight;
                    let (shard, epoch) = (u32::from(home.shard.0), home.epoch.0);
                    if let Some(proto::RouterItem { item: Some(Said::Batch(last)) }) = frame.items.last_mut()
                        && last.shard == shard
                        && last.epoch == epoch
                    {
                        last.downs.push(envelope);
                        continue;
                    }
                    Said::Batch(proto::DownBatch { shard, epoch, downs: vec![envelope] })
                }
            };
            frame.items.push(proto::RouterItem { item: Some(said) });
        }
        let beside = frame.routers.is_some() || frame.traces.is_some() || frame.leave || frame.ask > 0;
        (beside || !frame.items.is_empty()).then_some(frame)
    }
}

/// Of a router, for another.
#[derive(Default)]
pub(crate) struct PeerPieces;

impl Pieces for PeerPieces {
    type Item = PeerItem;
    type Frame = proto::PeerFrame;

    fn frame(&mut self, items: &mut VecDeque<PeerItem>) -> Option<proto::PeerFrame> {
        let mut frame = proto::PeerFrame::default();
        let mut size = 0;
        while size < FULL && frame.items.len() < MANY {
            let Some(item) = items.pop_front() else { break };
            let (envelope, weight) = peer::envelope(item);
            size += weight;
            frame.items.push(envelope);
        }
        (!frame.items.is_empty()).then_some(frame)
    }
}

/// What a router says to the edge that we are.
pub(crate) fn read_router_frame(edge: EdgeId, frame: proto::RouterFrame) -> Result<Vec<RouterNews>> {
    if frame.hello.is_some() {
        return Err(Malformed("second hello"));
    }
    let read = |item: proto::RouterItem| {
        Ok(match item.item.ok_or(Malformed("message of a router"))? {
            Said::Home(home) => RouterNews::Home(read_home(home)?),
            Said::NotHome(not) => RouterNews::NotHome(read_not_home(not)?),
            Said::Batch(batch) => {
                let home = read_place(batch.shard, batch.epoch)?;
                let downs = batch.downs.into_iter().map(|envelope| down::read(edge, envelope));
                RouterNews::Downs(home, downs.collect::<Result<_>>()?)
            }
        })
    };
    frame.items.into_iter().map(read).collect()
}

/// What another router says.
pub(crate) fn read_peer_frame(frame: proto::PeerFrame) -> Result<Vec<PeerItem>> {
    if frame.hello.is_some() {
        return Err(Malformed("second hello"));
    }
    frame.items.into_iter().map(peer::read).collect()
}
