//! Certificates: can they be read, do they fit their keys, do they name the domains, how long do they last.

use std::{net::IpAddr, os::unix::fs::PermissionsExt, path::Path};

use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use starling_node::Config;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::Finding;

/// Looks at what each domain would show to clients.
pub(super) fn look(config: &Config, now: i64) -> Vec<Finding> {
    let mut findings = Vec::new();
    for domain in &config.domains {
        let own = config.tls.domains.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(domain));
        let own = own.map(|(_, files)| (files.cert.clone(), files.key.clone()));
        let pair = own
            .filter(|(cert, _)| cert.is_some())
            .unwrap_or_else(|| (config.tls.cert.clone(), config.tls.key.clone()));
        match pair {
            (Some(cert), Some(key)) => findings.extend(pair_of(domain, &cert, &key, now)),
            _ if local(domain) => {
                findings.push(Finding::good(
                    "tls",
                    format!("{domain}: a certificate made by the server itself, for trying out"),
                ));
            }
            _ => findings.push(Finding::doubtful(
                "tls",
                format!("{domain}: no certificate, so one is made that no client trusts"),
                "set tls.cert and tls.key to the files of your certificate authority",
            )),
        }
    }
    findings
}

/// A domain for which nobody gives out certificates.
fn local(domain: &str) -> bool {
    domain == "localhost" || domain.ends_with(".localhost") || domain.ends_with(".test")
}

fn pair_of(domain: &str, cert: &Path, key: &Path, now: i64) -> Vec<Finding> {
    let chain = match read_chain(cert) {
        Ok(chain) => chain,
        Err(why) => {
            return vec![Finding::bad(
                "tls",
                format!("{domain}: {}: {why}", cert.display()),
                "set tls.cert to a certificate chain in PEM form, the server's own first",
            )];
        }
    };
    let private = match PrivateKeyDer::from_pem_file(key) {
        Ok(private) => private,
        Err(error) => {
            return vec![Finding::bad(
                "tls",
                format!("{domain}: {}: {error}", key.display()),
                "set tls.key to the private key in PEM form, readable by the user of the server",
            )];
        }
    };
    if let Err(error) = CertifiedKey::from_der(chain.clone(), private, &aws_lc_rs::default_provider()) {
        let text = format!("{domain}: {} does not fit {}: {error}", key.display(), cert.display());
        return vec![Finding::bad("tls", text, "take the certificate and the key from the same order")];
    }
    let Ok((_, leaf)) = X509Certificate::from_der(&chain[0]) else {
        return vec![Finding::bad(
            "tls",
            format!("{domain}: {} cannot be parsed", cert.display()),
            "order a new certificate",
        )];
    };
    let mut findings = vec![lifetime(domain, &leaf, now), names(domain, &leaf)];
    findings.extend(privacy(key));
    if leaf.issuer() == leaf.subject() && !local(domain) {
        findings.push(Finding::doubtful(
            "tls",
            format!("{domain}: the certificate is signed by itself, so no client trusts it"),
            "use one of a certificate authority",
        ));
    }
    findings
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    if chain.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(chain) }
}

fn lifetime(domain: &str, leaf: &X509Certificate<'_>, now: i64) -> Finding {
    let validity = leaf.validity();
    let left = validity.not_after.timestamp() - now;
    let days = left / DAY;
    if validity.not_before.timestamp() > now {
        let text = format!("{domain}: the certificate is not valid before {}", validity.not_before);
        return Finding::bad("tls", text, "set the clock of this machine right, or wait");
    }
    if left < 0 {
        let text = format!("{domain}: the certificate ended on {}", validity.not_after);
        return Finding::bad("tls", text, "renew it; the server takes a new file without a restart");
    }
    if days < SOON {
        let text = format!("{domain}: the certificate ends in {days} days, on {}", validity.not_after);
        return Finding::doubtful("tls", text, "renew it; the server takes a new file without a restart");
    }
    Finding::good("tls", format!("{domain}: the certificate lasts {days} more days"))
}

fn names(domain: &str, leaf: &X509Certificate<'_>) -> Finding {
    let wanted = idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_ascii_lowercase());
    let extension = leaf.subject_alternative_name().ok().flatten();
    let listed: Vec<&str> =
        extension.iter().flat_map(|names| &names.value.general_names).filter_map(dns).collect();
    let address = wanted.parse::<IpAddr>().ok();
    let has_address =
        extension.iter().flat_map(|names| &names.value.general_names).any(|name| match (name, address) {
            (GeneralName::IPAddress(bytes), Some(IpAddr::V4(address))) => *bytes == address.octets(),
            (GeneralName::IPAddress(bytes), Some(IpAddr::V6(address))) => *bytes == address.octets(),
            _ => false,
        });
    if has_address || listed.iter().any(|name| covers(name, &wanted)) {
        return Finding::good("tls", format!("{domain}: the certificate names it"));
    }
    let has = if listed.is_empty() { "no domain at all".to_owned() } else { listed.join(", ") };
    Finding::bad(
        "tls",
        format!("{domain}: the certificate does not name it, but {has}"),
        "order one with the domain as subject alternative name (the common name is not looked at, RFC 9525)",
    )
}

fn dns<'a>(name: &'a GeneralName<'_>) -> Option<&'a str> {
    match name {
        GeneralName::DNSName(name) => Some(name),
        _ => None,
    }
}

/// RFC 9525 §6.3: a wildcard stands for the whole first label and nothing else.
fn covers(name: &str, domain: &str) -> bool {
    let name = name.to_ascii_lowercase();
    match name.strip_prefix("*.") {
        Some(rest) => domain.split_once('.').is_some_and(|(_, parent)| parent == rest),
        None => name == domain,
    }
}

/// A key that others can read.
pub(super) fn privacy(key: &Path) -> Option<Finding> {
    let mode = std::fs::metadata(key).ok()?.permissions().mode();
    (mode & 0o004 != 0).then(|| {
        Finding::doubtful(
            "tls",
            format!("{} can be read by everybody", key.display()),
            format!("chmod o-rwx {}", key.display()),
        )
    })
}

const DAY: i64 = 86_400;
/// Days before the end at which one should worry.
const SOON: i64 = 14;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use starling_node::config::CertificateFiles;

    use super::*;
    use crate::check::Verdict;

    struct Pair {
        dir: tempfile::TempDir,
    }

    impl Pair {
        fn new(names: &[&str]) -> Self {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let made = rcgen::generate_simple_self_signed(names).unwrap();
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
            std::fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
            std::fs::set_permissions(dir.path().join("key.pem"), std::fs::Permissions::from_mode(0o600))
                .unwrap();
            Self { dir }
        }

        fn file(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn config(&self, domain: &str) -> Config {
            let mut config = Config::default();
            config.domains = vec![domain.to_owned()];
            config.tls.cert = Some(self.file("cert.pem"));
            config.tls.key = Some(self.file("key.pem"));
            config
        }
    }

    fn verdicts(findings: &[Finding]) -> Vec<Verdict> {
        findings.iter().map(|finding| finding.verdict).collect()
    }

    /// 2026-01-01.
    const NOW: i64 = 1_767_225_600;

    #[test]
    fn a_good_pair_is_good() {
        let pair = Pair::new(&["chat.test", "*.wild.test"]);
        assert_eq!(verdicts(&look(&pair.config("chat.test"), NOW)), [Verdict::Good, Verdict::Good]);
        assert_eq!(verdicts(&look(&pair.config("a.wild.test"), NOW)), [Verdict::Good, Verdict::Good]);
        let trusted_by_nobody = look(&Pair::new(&["example.org"]).config("example.org"), NOW);
        assert_eq!(verdicts(&trusted_by_nobody), [Verdict::Good, Verdict::Good, Verdict::Doubtful]);
    }

    #[test]
    fn a_wrong_name_a_wrong_key_and_a_missing_file_are_bad() {
        let pair = Pair::new(&["chat.test"]);
        let wrong_name = look(&pair.config("other.test"), NOW);
        assert_eq!(verdicts(&wrong_name), [Verdict::Good, Verdict::Bad]);
        assert!(wrong_name[1].text.contains("but chat.test"), "{}", wrong_name[1].text);
        let mut config = pair.config("chat.test");
        config.tls.key = Some(Pair::new(&["chat.test"]).dir.keep().join("key.pem"));
        let wrong_key = look(&config, NOW);
        assert!(wrong_key[0].text.contains("does not fit"), "{}", wrong_key[0].text);
        config.tls.cert = Some("/does/not/exist.pem".into());
        assert_eq!(verdicts(&look(&config, NOW)), [Verdict::Bad]);
        config.tls.cert = Some(pair.file("key.pem"));
        assert!(look(&config, NOW)[0].text.contains("no certificate in it"));
    }

    #[test]
    fn the_end_comes_with_a_warning() {
        let pair = Pair::new(&["chat.test"]);
        let config = pair.config("chat.test");
        let chain = read_chain(&pair.file("cert.pem")).unwrap();
        let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
        let end = leaf.validity().not_after.timestamp();
        assert_eq!(look(&config, end - 5 * DAY)[0].verdict, Verdict::Doubtful);
        assert_eq!(look(&config, end + 1)[0].verdict, Verdict::Bad);
        assert_eq!(look(&config, leaf.validity().not_before.timestamp() - 1)[0].verdict, Verdict::Bad);
    }

    #[test]
    fn a_domain_of_its_own_has_its_own_pair() {
        let (common, own) = (Pair::new(&["a.test"]), Pair::new(&["b.test"]));
        let mut config = common.config("a.test");
        config.domains.push("b.test".to_owned());
        let files = CertificateFiles { cert: Some(own.file("cert.pem")), key: Some(own.file("key.pem")) };
        config.tls.domains.0.insert("b.test".to_owned(), files);
        assert_eq!(verdicts(&look(&config, NOW)), [Verdict::Good; 4]);
    }

    #[test]
    fn no_certificate_is_fine_only_for_trying_out() {
        let mut config = Config::default();
        assert_eq!(verdicts(&look(&config, NOW)), [Verdict::Good]);
        config.domains = vec!["example.org".to_owned()];
        assert_eq!(verdicts(&look(&config, NOW)), [Verdict::Doubtful]);
    }

    #[test]
    fn a_key_that_all_can_read_is_told() {
        let pair = Pair::new(&["chat.test"]);
        std::fs::set_permissions(pair.file("key.pem"), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(look(&pair.config("chat.test"), NOW)[2].verdict, Verdict::Doubtful);
    }

    #[test]
    fn a_wildcard_is_one_label() {
        assert!(covers("*.example.org", "a.example.org"));
        assert!(!covers("*.example.org", "example.org"));
        assert!(!covers("*.example.org", "a.b.example.org"));
        assert!(covers("Example.ORG", "example.org"));
    }
}
