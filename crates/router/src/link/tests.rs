use super::*;

#[test]
fn an_h_that_waited_while_its_edge_told_a_later_one_is_passed_over() {
    let conn = ConnId::local(1);
    let mut link = Link::new(Token(1), conn, Timestamp(0));
    let (acked, sent) = (u32::MAX - 1, 20);
    link.management = Some(Box::new(Management {
        resume: true,
        max: None,
        base: 0,
        acked,
        sent,
        before: 0,
        asked_at: None,
    }));
    assert!(link.acknowledged(acked - 3).is_err(), "in one process nothing waits");
    link.far = Some(Box::new(Far::new(conn, Position(0))));
    assert_eq!(link.acknowledged(acked - 3), Ok(0));
    assert_eq!(link.acknowledged(3), Ok(5));
    assert_eq!((link.acknowledged(2), link.acknowledged(3)), (Ok(0), Ok(0)));
    assert!(link.acknowledged(sent + 1).is_err());
    assert!(link.acknowledged(u32::MAX).is_err(), "before its first");
}

#[test]
fn an_answer_says_what_it_answers_while_it_is_in_the_queue() {
    let mut link = Link::new(Token(1), ConnId::local(1), Timestamp(0));
    link.far = Some(Box::new(Far::new(ConnId::local(1), Position(0))));
    for answers in [0, 7, 0, 5] {
        link.will_answer(answers);
        link.queue(Stanza::message(starling_xmpp::MessageType::Chat), None, None);
    }
    let said = |link: &Link| -> Vec<u64> {
        let said = link.queued(0).map(|down| match down {
            Down::Stanza { answers, .. } => answers,
            _ => u64::MAX,
        });
        said.collect()
    };
    assert_eq!(said(&link), [0, 7, 0, 5]);
    link.unqueue();
    link.unqueue();
    assert_eq!(said(&link), [0, 5]);
    assert_eq!(link.far.as_ref().map(|far| far.answers.len()), Some(1), "others are forgotten");
}

#[test]
fn nobody_has_heard_of_what_is_not_queued() {
    let mut link = Link::new(Token(1), ConnId::local(1), Timestamp(0));
    link.management = Some(Box::new(Management {
        resume: true,
        max: None,
        base: 0,
        acked: 0,
        sent: 0,
        before: 0,
        asked_at: None,
    }));
    let (bob, secs) = (BareJid::parse("bob@localhost").unwrap(), Duration::from_secs);
    link.will_refuse(bob.clone(), 1, secs(10));
    assert!(link.may_overtake(&bob, 2, secs(18)), "its error waits");
    link.queue(Stanza::message(starling_xmpp::MessageType::Error), None, None);
    link.refuses(bob.clone(), 1, secs(20));
    assert!(link.may_overtake(&bob, 2, secs(24)));
    // Others do not keep it from going on.
    link.will_refuse(bob.clone(), 2, secs(24));
    assert!(!link.may_overtake(&bob, 3, secs(25)), "it is there, and says nothing to it");
    link.queue(Stanza::message(starling_xmpp::MessageType::Error), None, None);
    link.refuses(bob.clone(), 3, secs(30));
    // Nothing was said to this account while that was waited for.
    link.will_refuse(bob.clone(), 4, secs(42));
    assert!(link.may_overtake(&bob, 5, secs(42)), "it is waited for anew");
    link.queue(Stanza::message(starling_xmpp::MessageType::Error), None, None);
    link.refuses(bob.clone(), 4, secs(43));
    assert!(link.may_overtake(&bob, 5, secs(47)) && !link.may_overtake(&bob, 5, secs(48)));
}
