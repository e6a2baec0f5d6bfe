use super::payload::{base64, from_base64};
use super::*;
use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use sha2::Digest as _;

const NONCE: &str = "3rfcNHYJY1ZVvWVs7j";
const SALT: [u8; 16] = *b"0123456789abcdef";

/// A client, written apart from the server: its own `Hi`, from HMAC alone.
struct Client {
    hash: Hash,
    gs2: String,
    binding: Vec<u8>,
    bare: String,
}

fn hmac(hash: Hash, key: &[u8], data: &[u8]) -> Vec<u8> {
    macro_rules! mac {
        ($hash:ty) => {{
            let mut mac = Hmac::<$hash>::new_from_slice(key).unwrap();
            mac.update(data);
            mac.finalize().into_bytes().to_vec()
        }};
    }
    match hash {
        Hash::Sha1 => mac!(sha1::Sha1),
        Hash::Sha256 => mac!(sha2::Sha256),
        Hash::Sha512 => mac!(sha2::Sha512),
    }
}

fn digest(hash: Hash, data: &[u8]) -> Vec<u8> {
    match hash {
        Hash::Sha1 => sha1::Sha1::digest(data).to_vec(),
        Hash::Sha256 => sha2::Sha256::digest(data).to_vec(),
        Hash::Sha512 => sha2::Sha512::digest(data).to_vec(),
    }
}

fn hi(hash: Hash, password: &str, salt: &[u8], iterations: u32) -> Vec<u8> {
    let mut block = hmac(hash, password.as_bytes(), &[salt, &[0, 0, 0, 1]].concat());
    let mut sum = block.clone();
    for _ in 1..iterations {
        block = hmac(hash, password.as_bytes(), &block);
        sum.iter_mut().zip(&block).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

impl Client {
    fn new(hash: Hash) -> Self {
        Self { hash, gs2: "n,,".into(), binding: Vec::new(), bare: "n=user,r=clientnonce".into() }
    }

    fn bound(hash: Hash, name: &str, data: &[u8]) -> Self {
        Self { gs2: format!("p={name},,"), binding: data.to_vec(), ..Self::new(hash) }
    }

    fn first(&self) -> Vec<u8> {
        format!("{}{}", self.gs2, self.bare).into_bytes()
    }

    /// The final message, and the proof that the server must bring.
    fn last(&self, password: &str, challenge: &[u8]) -> (String, String) {
        let challenge = std::str::from_utf8(challenge).unwrap();
        let field =
            |name: &str| challenge.split(',').find_map(|field| field.strip_prefix(name)).unwrap().to_owned();
        let salted =
            hi(self.hash, password, &from_base64(&field("s=")).unwrap(), field("i=").parse().unwrap());
        let client_key = hmac(self.hash, &salted, b"Client Key");
        let stored_key = digest(self.hash, &client_key);
        let binding = base64(&[self.gs2.as_bytes(), &self.binding].concat());
        let without_proof = format!("c={binding},r={}", field("r="));
        let about = format!("{},{challenge},{without_proof}", self.bare);
        let mut proof = hmac(self.hash, &stored_key, about.as_bytes());
        proof.iter_mut().zip(&client_key).for_each(|(proof, byte)| *proof ^= byte);
        let server = hmac(self.hash, &hmac(self.hash, &salted, b"Server Key"), about.as_bytes());
        (format!("{without_proof},p={}", base64(&proof)), format!("v={}", base64(&server)))
    }

    /// A whole exchange.
    fn log_in(
        &self,
        password: &str,
        bindings: &Bindings,
        plus: bool,
        credentials: &Credentials,
    ) -> Result<(), SaslFailure> {
        let server = ScramServer::start(self.hash, plus, bindings, !bindings.is_empty(), &self.first())?;
        let (server, challenge) = server.challenge(credentials, NONCE);
        let (last, proof) = self.last(password, &challenge);
        assert_eq!(server.finish(last.as_bytes())?, proof.into_bytes());
        Ok(())
    }
}

fn credentials() -> Credentials {
    Credentials::derive("pencil", SALT, 16).unwrap()
}

fn bindings() -> Bindings {
    Bindings { exporter: Some(vec![7; 32]), end_point: Some(vec![8; 32]) }
}

fn start(message: &str) -> Result<ScramServer, SaslFailure> {
    ScramServer::start(Hash::Sha256, false, &Bindings::default(), false, message.as_bytes())
}

#[test]
fn the_exchange_of_rfc_5802() {
    let mut credentials = credentials();
    let salt = from_base64("QSXCR+Q6sek8bf92").unwrap();
    let salted = Hash::Sha1.salted(b"pencil", &salt, 4096);
    let client_key = Hash::Sha1.hmac(&salted, &[b"Client Key"]);
    credentials.sha1 = ScramKeys {
        iterations: 4096,
        salt,
        stored_key: Hash::Sha1.digest(&client_key).to_vec(),
        server_key: Hash::Sha1.hmac(&salted, &[b"Server Key"]).to_vec(),
    };
    let first = b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL";
    let server = ScramServer::start(Hash::Sha1, false, &Bindings::default(), false, first).unwrap();
    assert_eq!((server.username(), server.authzid()), ("user", None));
    let (server, challenge) = server.challenge(&credentials, "3rfcNHYJY1ZVvWVs7j");
    assert_eq!(challenge, b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096");
    let last = b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=";
    assert_eq!(server.finish(last), Ok(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=".to_vec()));
}

#[test]
fn the_exchange_of_rfc_7677() {
    let salt: [u8; 16] = from_base64("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
    let credentials = Credentials::derive("pencil", salt, 4096).unwrap();
    let server = start("n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
    let (server, challenge) = server.challenge(&credentials, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
    assert_eq!(
        challenge,
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    assert_eq!(server.finish(last), Ok(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".to_vec()));
}

#[test]
fn every_mechanism_takes_the_password_and_no_other() {
    let (credentials, bindings) = (credentials(), bindings());
    let refused = Err(SaslFailure::NotAuthorized);
    for hash in Hash::ALL {
        let plain = Client::new(hash);
        assert_eq!(plain.log_in("pencil", &bindings, false, &credentials), Ok(()));
        assert_eq!(plain.log_in("Pencil", &bindings, false, &credentials), refused);
        for name in bindings.types() {
            let bound = Client::bound(hash, name, bindings.data(name).unwrap());
            assert_eq!(bound.log_in("pencil", &bindings, true, &credentials), Ok(()));
            assert_eq!(bound.log_in("pen", &bindings, true, &credentials), refused);
            // Another connection.
            let other = Client::bound(hash, name, &[9; 32]);
            assert_eq!(other.log_in("pencil", &bindings, true, &credentials), refused);
        }
    }
    assert_eq!(bindings.types().collect::<Vec<_>>(), ["tls-exporter", "tls-server-end-point"]);
}

#[test]
fn channel_binding_cannot_be_talked_away() {
    let (credentials, all) = (credentials(), bindings());
    let none = Bindings::default();
    let exporter_only = Bindings { end_point: None, ..all.clone() };
    let say = |gs2: &str, plus, bindings: &Bindings| {
        let client = Client { gs2: gs2.into(), ..Client::new(Hash::Sha256) };
        client.log_in("pencil", bindings, plus, &credentials)
    };
    let (refused, malformed) = (Err(SaslFailure::NotAuthorized), Err(SaslFailure::MalformedRequest));
    assert_eq!(say("n,,", false, &all), Ok(()));
    assert_eq!(say("n,,", false, &none), Ok(()));
    assert_eq!(say("y,,", false, &none), Ok(()));
    assert_eq!(say("y,,", false, &all), refused);
    assert_eq!(say("p=tls-exporter,,", false, &all), malformed);
    assert_eq!(say("n,,", true, &all), malformed);
    assert_eq!(say("y,,", true, &all), malformed);
    assert_eq!(say("p=tls-unique,,", true, &all), refused);
    assert_eq!(say("p=tls-server-end-point,,", true, &exporter_only), refused);
    assert_eq!(say("p=tls-exporter,,", true, &none), refused);
    // The flag in the final message is not the one of the first.
    let client = Client::new(Hash::Sha256);
    let server = ScramServer::start(Hash::Sha256, false, &all, true, &client.first()).unwrap();
    let (server, challenge) = server.challenge(&credentials, NONCE);
    let liar = Client { gs2: "y,,".into(), ..Client::new(Hash::Sha256) };
    assert_eq!(server.finish(liar.last("pencil", &challenge).0.as_bytes()), refused.map(|()| Vec::new()));
}

#[test]
fn a_final_message_is_good_once_and_as_a_whole() {
    let (credentials, client) = (credentials(), Client::new(Hash::Sha512));
    let challenged = |nonce: &str| {
        let server =
            ScramServer::start(Hash::Sha512, false, &Bindings::default(), false, &client.first()).unwrap();
        server.challenge(&credentials, nonce)
    };
    let (server, challenge) = challenged(NONCE);
    let (good, _) = client.last("pencil", &challenge);
    assert!(server.finish(good.as_bytes()).is_ok());
    // Again, in another exchange.
    assert_eq!(challenged("another").0.finish(good.as_bytes()), Err(SaslFailure::NotAuthorized));
    // A server's nonce that is none.
    for nonce in ["", "a b", "ä"] {
        let (server, challenge) = challenged(nonce);
        let (last, _) = client.last("pencil", &challenge);
        assert_eq!(server.finish(last.as_bytes()), Err(SaslFailure::NotAuthorized));
    }

    let (binding, rest) = good.split_once(',').unwrap();
    let (nonce, proof) = rest.split_once(',').unwrap();
    for bad in [
        format!("{binding},r=clientnonce,{proof}"),
        format!("{binding},{},{proof}", &nonce[..nonce.len() - 1]),
        format!("{binding},{nonce}x,{proof}"),
        format!("{binding},r=,{proof}"),
        format!("c=,{nonce},{proof}"),
        format!("c=eSws,{nonce},{proof}"),
        format!("c=biw,{nonce},{proof}"),
        format!("{binding},{nonce},x=1,{proof}"),
        format!("{binding},{nonce},p="),
        format!("{binding},{nonce},p={}", base64(&[0; 64])),
        format!("{binding},{nonce},p={}", base64(&[0; 63])),
        format!("{binding},{nonce},p={}", base64(&[0; 65])),
    ] {
        let finished = challenged(NONCE).0.finish(bad.as_bytes());
        assert_eq!(finished, Err(SaslFailure::NotAuthorized), "{bad}");
    }
    for bad in [
        String::new(),
        format!("{nonce},{binding},{proof}"),
        format!("{binding},{nonce}"),
        format!("{binding},{proof}"),
        format!("{binding},{nonce},m=1,{proof}"),
        format!("m=1,{binding},{nonce},{proof}"),
        format!("{binding},{nonce},{proof},x=1"),
        format!("{binding},{nonce},,{proof}"),
        format!("{binding},{nonce},p=%%%"),
        format!("{binding},{nonce},x={},{proof}", "x".repeat(20_000)),
    ] {
        let finished = challenged(NONCE).0.finish(bad.as_bytes());
        assert_eq!(finished, Err(SaslFailure::MalformedRequest), "{bad}");
    }
}

#[test]
fn the_syntax_of_the_first_message() {
    let server = start("n,a=a=2Cb=3D=3D2C,n=u=3Ds=2Cer,r=x,z=ext").unwrap();
    assert_eq!((server.username(), server.authzid()), ("u=s,er", Some("a,b==2C")));
    for bad in [
        "",
        "n",
        "n,",
        "n,,",
        "n,,n=user",
        "n,,n=user,",
        "n,,n=user,r=",
        "n,,r=x,n=user",
        "n,,n=,r=x",
        "n,,user,r=x",
        "n,,n=us=er,r=x",
        "n,,n=us=2cer,r=x",
        "n,,n=user=,r=x",
        "n,,n=us\0er,r=x",
        "n,,n=user,r=x y",
        "n,,n=user,r=ä",
        "n,,n=user,r=x,",
        "n,,n=user,r=x,ext",
        "n,,n=user,r=x,z=",
        "n,,n=user,r=x,m=1",
        "n,,m=1,n=user,r=x",
        "n,a=,n=user,r=x",
        "n,b=x,n=user,r=x",
        "n,x,n=user,r=x",
        "N,,n=user,r=x",
        "z,,n=user,r=x",
        "p=,,n=user,r=x",
        "p=tls exporter,,n=user,r=x",
        ",,n=user,r=x",
        "n=user,r=x",
    ] {
        assert_eq!(start(bad).unwrap_err(), SaslFailure::MalformedRequest, "{bad:?}");
    }
    for bad in [
        format!("n,,n={},r=x", "x".repeat(20_000)),
        format!("n,,n={},r=x", "x".repeat(4000)),
        format!("n,,n=x,r={}", "x".repeat(513)),
    ] {
        assert_eq!(start(&bad).unwrap_err(), SaslFailure::MalformedRequest);
    }
    let not_text = ScramServer::start(Hash::Sha1, false, &Bindings::default(), false, b"n,,n=\xff,r=x");
    assert_eq!(not_text.unwrap_err(), SaslFailure::MalformedRequest);
}

#[test]
fn plain_messages() {
    let parsed = |message: &[u8]| {
        PlainMessage::parse(message).map(|plain| (plain.authzid, plain.authcid, plain.password.to_string()))
    };
    assert_eq!(parsed(b"\0user\0pencil"), Ok((None, "user".into(), "pencil".into())));
    assert_eq!(parsed(b"a@b\0user\0p"), Ok((Some("a@b".into()), "user".into(), "p".into())));
    for bad in [
        &b""[..],
        b"user",
        b"user\0pencil",
        b"\0\0pencil",
        b"\0user\0",
        b"\0user\0pen\0cil",
        b"\0user\0pencil\0",
        b"\0\xff\0pencil",
        b"\0user\0\xff",
        b"\xff\0user\0pencil",
        &[b"\0".to_vec(), vec![b'u'; 4000], b"\0p".to_vec()].concat(),
    ] {
        assert_eq!(parsed(bad), Err(SaslFailure::MalformedRequest), "{bad:?}");
    }
    let long = |size| [b"\0user\0".to_vec(), vec![b'p'; size]].concat();
    assert!(parsed(&long(MAX_PASSWORD)).is_ok());
    assert_eq!(parsed(&long(MAX_PASSWORD + 1)), Err(SaslFailure::NotAuthorized));
    assert_eq!(parsed(&long(1 << 20)), Err(SaslFailure::NotAuthorized));
    assert!(!format!("{:?}", PlainMessage::parse(b"\0user\0pencil")).contains("pencil"));
}

#[test]
fn passwords_are_prepared_and_bounded() {
    let derive = |password: &str| Credentials::derive(password, SALT, 2);
    assert!(derive("pencil").unwrap().verify_plain("pencil"));
    assert!(!derive("pencil").unwrap().verify_plain("pencil "));
    assert!(!derive("pencil").unwrap().verify_plain(""));
    // RFC 4013 §3, and normal forms.
    assert!(derive("IX").unwrap().verify_plain("I\u{ad}X"));
    assert!(derive("Ⅸ").unwrap().verify_plain("IX"));
    assert!(derive("a b").unwrap().verify_plain("a\u{a0}b"));
    assert!(derive("\u{e4}").unwrap().verify_plain("a\u{308}"));
    assert_eq!(derive("").unwrap_err(), SaslError::EmptyPassword);
    assert_eq!(derive("\u{ad}").unwrap_err(), SaslError::EmptyPassword);
    for bad in ["\u{7}", "a\nb", "\u{627}1", "\u{e000}", "\u{1f914}", "\u{378}"] {
        assert_eq!(derive(bad).unwrap_err(), SaslError::Password, "{bad:?}");
        assert!(!derive("pencil").unwrap().verify_plain(bad));
    }
    assert!(derive(&"x".repeat(MAX_PASSWORD)).is_ok());
    assert_eq!(derive(&"x".repeat(MAX_PASSWORD + 1)).unwrap_err(), SaslError::LongPassword);
    assert!(!derive("pencil").unwrap().verify_plain(&"x".repeat(1 << 20)));
    for iterations in [0, MAX_ITERATIONS + 1, u32::MAX] {
        assert_eq!(Credentials::derive("p", SALT, iterations).unwrap_err(), SaslError::Iterations);
    }
}

#[test]
fn an_unknown_account_looks_like_a_known_one() {
    let fake = Credentials::fake(b"secret", "nobody@localhost", 16);
    assert_eq!(fake, Credentials::fake(b"secret", "nobody@localhost", 16));
    assert_ne!(fake.sha1.salt, Credentials::fake(b"secret", "else@localhost", 16).sha1.salt);
    assert_ne!(fake.sha1.salt, Credentials::fake(b"other", "nobody@localhost", 16).sha1.salt);
    assert!(!fake.verify_plain("pencil"));
    let real = credentials();
    for hash in Hash::ALL {
        let (fake, real) = (fake.keys(hash), real.keys(hash));
        assert_eq!(
            (fake.salt.len(), fake.iterations, fake.stored_key.len(), fake.server_key.len()),
            (real.salt.len(), real.iterations, real.stored_key.len(), real.server_key.len())
        );
    }
    assert!(fake.sha1.salt == fake.sha256.salt && fake.sha1.salt == fake.sha512.salt);
    assert_eq!(fake.encode().len(), real.encode().len());
    for hash in Hash::ALL {
        let log_in = |credentials, password| {
            Client::new(hash).log_in(password, &Bindings::default(), false, credentials)
        };
        assert_eq!(log_in(&fake, "pencil"), Err(SaslFailure::NotAuthorized));
        assert_eq!(log_in(&fake, "pencil"), log_in(&real, "wrong"));
    }
}

#[test]
fn credentials_are_stored_and_hidden() {
    let credentials = credentials();
    let stored = credentials.encode();
    assert_eq!(Credentials::decode(&stored).as_ref(), Ok(&credentials));
    for end in 0..stored.len() {
        assert_eq!(Credentials::decode(&stored[..end]), Err(SaslError::Corrupt));
    }
    let changed = |at: usize, to: &[u8]| {
        let mut bytes = stored.to_vec();
        bytes[at..at + to.len()].copy_from_slice(to);
        Credentials::decode(&bytes)
    };
    assert_eq!(changed(0, &[2]), Err(SaslError::Corrupt));
    assert_eq!(changed(1, &[0; 4]), Err(SaslError::Corrupt));
    assert_eq!(changed(1, &[0xff; 4]), Err(SaslError::Corrupt));
    assert_eq!(changed(5, &[0]), Err(SaslError::Corrupt));
    assert_eq!(changed(5, &[65]), Err(SaslError::Corrupt));
    assert_eq!(Credentials::decode(&[&stored[..], &[0]].concat()), Err(SaslError::Corrupt));
    assert_eq!(format!("{credentials:?}"), "Credentials { .. }");
    assert_eq!(format!("{:?}", credentials.sha1), "ScramKeys { iterations: 16, .. }");
    assert_eq!(format!("{:?}", bindings()), r#"["tls-exporter", "tls-server-end-point"]"#);
    // A salt of another length, as imported accounts have it.
    let mut imported = credentials;
    imported.sha1.salt = b"5c3d0f0e-33d4-4a5f-8f2a-2a1a4bca41ea".to_vec();
    assert_eq!(Credentials::decode(&imported.encode()), Ok(imported));
}

#[test]
fn names_and_payloads() {
    for mechanism in Mechanism::ALL {
        assert_eq!(Mechanism::parse(mechanism.name()), Some(mechanism));
        assert_eq!(mechanism.name().ends_with("-PLUS"), mechanism.is_plus());
    }
    for unknown in ["", "plain", "PLAIN ", "ANONYMOUS", "EXTERNAL", "SCRAM-SHA-1-PLUS-PLUS", "DIGEST-MD5"] {
        assert_eq!(Mechanism::parse(unknown), None);
    }
    assert_eq!(decode("="), Ok(Vec::new()));
    assert_eq!(decode(""), Ok(Vec::new()));
    assert_eq!(decode("YQ=="), Ok(b"a".to_vec()));
    for bad in ["YQ", "YQ=", "YQ===", "YR==", " YQ==", "YQ==\n", "Y Q==", "==", "Y-_=", "YQ==YQ==", "ä"] {
        assert_eq!(decode(bad), Err(SaslFailure::IncorrectEncoding), "{bad:?}");
    }
    assert_eq!(encode(b""), "=");
    assert_eq!(encode(b"a"), "YQ==");
    assert_eq!(SaslFailure::NotAuthorized.to_string(), "not-authorized");
}

/// What a client may ask to act as.
#[derive(Debug, Clone)]
enum Authzid {
    Absent,
    Own,
    Other(String),
}

fn authzid() -> impl Strategy<Value = Authzid> {
    prop_oneof![
        Just(Authzid::Absent),
        Just(Authzid::Own),
        prop_oneof![Just("admin@localhost".to_owned()), "[a-z=,@./ ]{1,20}", "[^\0]{1,20}"]
            .prop_map(Authzid::Other),
    ]
}

proptest! {
    /// The identity that a client asks for is neither lost nor changed, by any mechanism: the edge compares it.
    #[test]
    fn the_authzid_comes_out_as_it_went_in(user in "[^\0]{1,20}", authzid in authzid()) {
        let authzid = match authzid {
            Authzid::Absent => None,
            Authzid::Own => Some(format!("{user}@localhost")),
            Authzid::Other(other) => Some(other),
        };
        let escape = |name: &str| name.replace('=', "=3D").replace(',', "=2C");
        for mechanism in Mechanism::ALL {
            let (username, asked) = match mechanism {
                Mechanism::Plain => {
                    let message = format!("{}\0{user}\0pencil", authzid.as_deref().unwrap_or(""));
                    let plain = PlainMessage::parse(message.as_bytes()).unwrap();
                    (plain.authcid.clone(), plain.authzid.clone())
                }
                Mechanism::Scram { hash, plus } => {
                    let flag = if plus { "p=tls-exporter" } else { "n" };
                    let field = authzid.as_deref().map_or(String::new(), |name| format!("a={}", escape(name)));
                    let message = format!("{flag},{field},n={},r=nonce", escape(&user));
                    let server = ScramServer::start(hash, plus, &bindings(), true, message.as_bytes()).unwrap();
                    (server.username().to_owned(), server.authzid().map(str::to_owned))
                }
            };
            prop_assert_eq!(&username, &user);
            prop_assert_eq!(&asked, &authzid);
        }
    }

    /// An authzid is part of what is proved: changing it on the way spoils the exchange.
    #[test]
    fn the_authzid_is_covered_by_the_proof(first in "[a-z]{1,8}", second in "[a-z]{1,8}") {
        let client = |name: &str| Client { gs2: format!("n,a={name},"), ..Client::new(Hash::Sha1) };
        let credentials = Credentials::derive("pencil", SALT, 1).unwrap();
        let server = ScramServer::start(Hash::Sha1, false, &Bindings::default(), false, &client(&second).first());
        let (server, challenge) = server.unwrap().challenge(&credentials, NONCE);
        let finished = server.finish(client(&first).last("pencil", &challenge).0.as_bytes());
        prop_assert_eq!(finished.is_ok(), first == second);
    }

    #[test]
    fn no_input_panics(
        message in prop_oneof![
            any::<Vec<u8>>(),
            "[nypacrms=,2CDx\0]{0,40}".prop_map(String::into_bytes),
            "(n|y|p=tls-exporter),(a=x)?,n=x,r=y[,=a-z]{0,8}".prop_map(String::into_bytes),
            "c=biws,r=nonce[,=a-z]{0,8},p=[a-zA-Z0-9=]{0,8}".prop_map(String::into_bytes),
        ],
        plus in any::<bool>(),
    ) {
        let _ = PlainMessage::parse(&message);
        let _ = Credentials::decode(&message);
        let _ = ScramServer::start(Hash::Sha256, plus, &bindings(), true, &message);
        let (server, _) = start("n,,n=user,r=x").unwrap().challenge(&Credentials::fake(b"", "a", 1), "nonce");
        prop_assert!(server.finish(&message).is_err());
        if let Ok(text) = std::str::from_utf8(&message) {
            let _ = decode(text);
        }
    }

    #[test]
    fn the_password_decides(password in "[ -~]{1,30}", other in "[ -~]{1,30}") {
        let credentials = Credentials::derive(&password, SALT, 1).unwrap();
        prop_assert!(credentials.verify_plain(&password));
        prop_assert_eq!(credentials.verify_plain(&other), password == other);
    }
}
