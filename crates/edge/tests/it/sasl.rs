//! Every mechanism and every way it can fail (RFC 6120 §6; rows A of the hostile inputs).

use crate::Site;
use crate::client::{Client, TLS12, Tls, header};
use sha2::{Digest, Sha256};
use starling_node::Rate;
use std::time::{Duration, Instant};

const SUCCESS: &str = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>";

fn failure(condition: &str) -> String {
    format!("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><{condition}/></failure>")
}

fn auth(mechanism: &str, text: &str) -> String {
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{text}</auth>")
}

#[tokio::test]
async fn scram_works_with_each_hash_and_binding_on_tls_1_3() {
    let site = Site::start().await;
    for hash in ["SHA-1", "SHA-256", "SHA-512"] {
        let mut client = Client::secured(site.c2s()).await;
        let answer = client.scram(&format!("SCRAM-{hash}"), "n,,", b"", "alice", "secret").await;
        assert!(answer.starts_with(SUCCESS), "{hash}: {answer}");
        client.open().await;
        client.expect("<bind").await;

        let mut client = Client::secured(site.c2s()).await;
        let exporter = client.exporter();
        let answer = client
            .scram(&format!("SCRAM-{hash}-PLUS"), "p=tls-exporter,,", &exporter, "alice", "secret")
            .await;
        assert!(answer.starts_with(SUCCESS), "{hash}: {answer}");

        let mut client = Client::secured(site.c2s()).await;
        let end_point = Sha256::digest(client.certificate());
        let answer = client
            .scram(&format!("SCRAM-{hash}-PLUS"), "p=tls-server-end-point,,", &end_point, "alice", "secret")
            .await;
        assert!(answer.starts_with(SUCCESS), "{hash}: {answer}");
    }
}

#[tokio::test]
async fn on_tls_1_2_only_the_certificate_can_be_bound_to() {
    let site = Site::start().await;
    let tls = || Tls { versions: TLS12, ..Tls::default() };
    let mut client = Client::direct(site.c2s_tls(), tls()).await.unwrap();
    client.open().await;
    let features = client.expect("</stream:features>").await;
    assert!(
        features.contains("<channel-binding type='tls-server-end-point'/>")
            && !features.contains("tls-exporter"),
        "{features}"
    );
    let end_point = Sha256::digest(client.certificate());
    let answer =
        client.scram("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,", &end_point, "alice", "secret").await;
    assert!(answer.starts_with(SUCCESS), "{answer}");

    let mut client = Client::secured_with(site.c2s(), tls()).await;
    let exporter = client.exporter();
    let answer = client.scram("SCRAM-SHA-256-PLUS", "p=tls-exporter,,", &exporter, "alice", "secret").await;
    assert_eq!(answer, failure("not-authorized"));
}

#[tokio::test]
async fn plain_works_with_and_without_an_initial_response() {
    let site = Site::start().await;
    let mut client = Client::secured(site.c2s()).await;
    client.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'/>").await;
    client.expect("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").await;
    client.send("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>AGFsaWNlAHNlY3JldA==</response>").await;
    client.expect("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").await;
    client.send(&header("localhost")).await;
    client.expect("<bind").await;
}

#[tokio::test]
async fn nobody_can_tell_an_unknown_user_from_a_wrong_password() {
    let site = Site::with(|config| config.limits.auth.attempts_per_stream = 100).await;
    let mut client = Client::secured(site.c2s()).await;
    for mechanism in ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let wrong = client.scram(mechanism, "n,,", b"", "alice", "wrong").await;
        let unknown = client.scram(mechanism, "n,,", b"", "nobody", "wrong").await;
        assert_eq!((wrong.as_str(), unknown.as_str()), (failure("not-authorized").as_str(), wrong.as_str()));
    }
    // The challenges look alike and are the same each time.
    let first = |user: &str| {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(format!("n,,n={user},r=nonce"));
        auth("SCRAM-SHA-256", &text)
    };
    let mut salts = Vec::new();
    for user in ["alice", "nobody", "nobody", "nobody2"] {
        client.send(&first(user)).await;
        use base64::Engine;
        let challenge = client.element().await;
        let text = challenge.split('>').nth(1).unwrap().split('<').next().unwrap();
        let text =
            String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap();
        assert!(text.ends_with(",i=4096"), "{text}");
        salts.push(text.split(",s=").nth(1).unwrap().split(',').next().unwrap().to_owned());
        client.send("<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").await;
        client.expect(&failure("aborted")).await;
    }
    assert!(salts.iter().all(|salt| salt.len() == salts[0].len()), "{salts:?}");
    assert!(salts[1] == salts[2] && salts[1] != salts[3] && salts[0] != salts[1], "{salts:?}");
    client.plain("alice", "wrong").await;
    client.expect(&failure("not-authorized")).await;
    client.plain("nobody", "wrong").await;
    client.expect(&failure("not-authorized")).await;
}

#[tokio::test]
async fn a03_a04_a05_each_mistake_has_its_name() {
    let site = Site::with(|config| config.limits.auth.attempts_per_stream = 100).await;
    site.home.add("bob@localhost", "secret");
    let mut client = Client::secured(site.c2s()).await;
    use base64::Engine;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    for (mechanism, text, condition) in [
        ("ANONYMOUS", String::new(), "invalid-mechanism"),
        ("plain", encode("\0alice\0secret"), "invalid-mechanism"),
        ("PLAIN", "AGFsaWNl AHNlY3JldA==".to_owned(), "incorrect-encoding"),
        ("PLAIN", "*".to_owned(), "incorrect-encoding"),
        ("PLAIN", "=".to_owned(), "malformed-request"),
        ("PLAIN", encode("alice\0secret"), "malformed-request"),
        ("PLAIN", encode("\0alice\0sec\0ret"), "malformed-request"),
        ("PLAIN", encode(&format!("\0alice\0{}", "x".repeat(2_000))), "not-authorized"),
        ("PLAIN", encode("bob@localhost\0alice\0secret"), "invalid-authzid"),
        ("PLAIN", encode("alice@other.example\0alice\0secret"), "invalid-authzid"),
        ("PLAIN", encode("\0al ice\0secret"), "not-authorized"),
        ("SCRAM-SHA-1", encode("n,a=bob@localhost,n=alice,r=abc"), "invalid-authzid"),
        ("SCRAM-SHA-1", encode("n,,m=ext,n=alice,r=abc"), "malformed-request"),
        ("SCRAM-SHA-1", encode("y,,n=alice,r=abc"), "not-authorized"),
        ("SCRAM-SHA-1", encode("p=tls-exporter,,n=alice,r=abc"), "malformed-request"),
        ("SCRAM-SHA-1-PLUS", encode("p=tls-unique,,n=alice,r=abc"), "not-authorized"),
    ] {
        client.send(&auth(mechanism, &text)).await;
        client.expect(&failure(condition)).await;
    }
    // Bound to another connection.
    let answer = client.scram("SCRAM-SHA-256-PLUS", "p=tls-exporter,,", &[0; 32], "alice", "secret").await;
    assert_eq!(answer, failure("not-authorized"));
    client.send("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>AA==</response>").await;
    client.expect(&failure("not-authorized")).await;
    // One's own address is a fine authzid.
    client.send(&auth("PLAIN", &encode("alice@localhost\0alice\0secret"))).await;
    client.expect("<success").await;
}

#[tokio::test]
async fn a07_the_fourth_attempt_ends_the_stream() {
    let site = Site::start().await;
    let mut client = Client::secured(site.c2s()).await;
    for _ in 0..3 {
        client.plain("alice", "wrong").await;
        client.expect(&failure("not-authorized")).await;
    }
    client.plain("alice", "secret").await;
    let end = client.rest().await;
    assert!(end.contains("<policy-violation") && !end.contains("success"), "{end}");
}

#[tokio::test]
async fn a10_authentication_is_over_when_it_is_over() {
    let site = Site::start().await;
    let mut client = Client::authenticated(site.c2s()).await;
    client.plain("alice", "secret").await;
    assert!(client.rest().await.contains("<policy-violation"));
    let mut client = Client::bound(site.c2s(), "r").await;
    client.plain("alice", "secret").await;
    assert!(client.rest().await.contains("<policy-violation"));
}

#[tokio::test]
async fn a_new_exchange_replaces_one_that_runs() {
    let site = Site::start().await;
    let mut client = Client::secured(site.c2s()).await;
    client.send(&auth("SCRAM-SHA-1", "biwsbj1hbGljZSxyPWFiYw==")).await;
    client.expect("</challenge>").await;
    client.plain("alice", "secret").await;
    client.expect("<success").await;
}

#[tokio::test]
async fn a12_a_disabled_account_is_told_only_to_who_knows_the_password() {
    let site = Site::start().await;
    site.home.disable("alice@localhost");
    let mut client = Client::secured(site.c2s()).await;
    client.plain("alice", "wrong").await;
    client.expect(&failure("not-authorized")).await;
    client.plain("alice", "secret").await;
    client.expect(&failure("account-disabled")).await;
    let answer = client.scram("SCRAM-SHA-256", "n,,", b"", "alice", "secret").await;
    assert_eq!(answer, failure("account-disabled"));
}

#[tokio::test]
async fn an_address_that_fails_often_must_wait() {
    let site = Site::with(|config| {
        config.limits.auth.failures_per_ip_window = Rate::per_hour(2);
        config.limits.auth.attempts_per_stream = 10;
    })
    .await;
    let mut client = Client::secured(site.c2s()).await;
    for _ in 0..2 {
        client.plain("alice", "wrong").await;
        client.expect(&failure("not-authorized")).await;
    }
    client.plain("alice", "secret").await;
    client.expect(&failure("temporary-auth-failure")).await;
}

#[tokio::test]
async fn an_account_that_is_failed_against_answers_slowly() {
    let site = Site::with(|config| {
        config.limits.auth.failures_per_account_window = Rate::per_hour(2);
        config.limits.auth.delay = Duration::from_secs(3);
    })
    .await;
    let mut client = Client::secured(site.c2s()).await;
    for _ in 0..2 {
        client.plain("alice", "wrong").await;
        client.expect(&failure("not-authorized")).await;
    }
    let began = Instant::now();
    client.plain("alice", "secret").await;
    client.expect("<success").await;
    assert!(began.elapsed() >= Duration::from_secs(3), "slow, but not locked");
    let mut again = Client::secured(site.c2s()).await;
    let began = Instant::now();
    again.plain("alice", "secret").await;
    again.expect("<success").await;
    assert!(began.elapsed() < Duration::from_secs(3), "who is known there is not delayed");
}

#[tokio::test]
async fn a09_hashes_that_do_not_fit_the_queue_are_refused() {
    let site = Site::with(|config| config.limits.auth.queue = 1).await;
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(Client::secured(site.c2s()).await);
    }
    for client in &mut clients {
        client.plain("alice", "secret").await;
    }
    let mut answers = Vec::new();
    for client in &mut clients {
        answers.push(client.expect("/>").await);
    }
    let refused = answers.iter().filter(|answer| answer.contains("temporary-auth-failure")).count();
    let good = answers.iter().filter(|answer| answer.contains("<success")).count();
    assert!(refused > 0 && good > 0 && refused + good == 12, "{refused} refused, {good} good");
}
