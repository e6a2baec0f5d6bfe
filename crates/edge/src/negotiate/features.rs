//! What a stream offers in each of its states (RFC 6120 §4.3.2, XEP-0170).

use super::wire::Wire;
use starling_xmpp::sasl::{Bindings, Mechanism};
use starling_xmpp::{Element, ns};

/// In the clear: TLS and nothing else.
pub(super) fn in_the_clear(wire: &mut Wire) {
    wire.say_raw(
        b"<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>",
    );
}

/// Under TLS: ways to authenticate, what they can be bound to, registration where it is open.
pub(super) fn before_auth(wire: &mut Wire, mechanisms: &[Mechanism], bindings: &Bindings) {
    let settings = wire.settings.clone();
    let names = mechanisms.iter().map(|mechanism| Element::new(ns::SASL, "mechanism").text(mechanism.name()));
    let types = bindings.types().map(|name| Element::new(ns::SASL_CB, "channel-binding").attr("type", name));
    let mut features = Element::new(ns::STREAMS, "features");
    features.push(Element::new(ns::SASL, "mechanisms").children_of(names));
    if !bindings.is_empty() {
        features.push(Element::new(ns::SASL_CB, "sasl-channel-binding").children_of(types));
    }
    if settings.registration {
        features.push(Element::new(ns::REGISTER_FEATURE, "register"));
    }
    features.push(limits(settings.before_auth.stanza_bytes, None));
    say(wire, &features);
}

/// After authentication: a resource, or a session to go on with.
pub(super) fn after_auth(wire: &mut Wire) {
    let settings = wire.settings.clone();
    let shared = wire.shared.clone();
    let optional = |ns| Element::new(ns, "session").child(Element::new(ns, "optional"));
    let features = Element::new(ns::STREAMS, "features")
        .child(Element::new(ns::BIND, "bind"))
        .child(optional(ns::SESSION))
        .child(Element::new(ns::SM, "sm"))
        .child(Element::new(ns::CSI, "csi"))
        .child(Element::new(ns::ROSTERVER, "ver"))
        .child(Element::new(ns::SUB_PREAPPROVAL, "sub"))
        .child(limits(settings.after_auth.stanza_bytes, Some(settings.limits.stream.idle.as_secs())))
        .children_of(shared.features.load().iter().cloned());
    say(wire, &features);
}

/// XEP-0478.
fn limits(bytes: usize, idle: Option<u64>) -> Element {
    let limits = Element::new(ns::STREAM_LIMITS, "limits")
        .child(Element::new(ns::STREAM_LIMITS, "max-bytes").text(bytes.to_string()));
    match idle {
        Some(seconds) => {
            limits.child(Element::new(ns::STREAM_LIMITS, "idle-seconds").text(seconds.to_string()))
        }
        None => limits,
    }
}

/// Features are written with the prefix of the stream, which some clients take for granted.
fn say(wire: &mut Wire, features: &Element) {
    wire.say_raw(b"<stream:features>");
    for feature in features.children() {
        wire.say(feature);
    }
    wire.say_raw(b"</stream:features>");
}
