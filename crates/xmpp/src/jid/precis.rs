//! The localpart and the resourcepart: the PRECIS profiles of RFC 8265, under the limits of RFC 7622.
//!
//! The framework's tables end at Unicode 6.3 (2013), while its properties are defined for any version (RFC 8264 §11).
//! Code points of later versions are classified here by their general category, or every newer emoji in a nickname
//! would be an error.

use std::borrow::Cow;
use std::cell::Cell;

use precis_profiles::precis_core::profile::Rules;
use precis_profiles::precis_core::{DerivedPropertyValue, FreeformClass, IdentifierClass, StringClass};
use precis_profiles::{Nickname, OpaqueString, UsernameCaseMapped};
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

use super::{JidError, MAX_PART, MAX_RAW_PART, fast};

/// How many characters of one part may need a look at their neighbours. Each look costs a walk over the part, so that
/// without a limit a part made of them alone would cost the square of its length.
const MAX_CONTEXT: u8 = 64;

/// How often the rules are applied until nothing changes any more.
const MAX_ROUNDS: usize = 3;

/// Enforces a localpart that stands alone (a user name of SASL, a registration).
///
/// # Errors
/// It is empty, too long, or breaks the profile.
pub fn prepare_local(s: &str) -> Result<String, JidError> {
    local(s).map(Cow::into_owned)
}

/// Enforces a resourcepart that stands alone (resource binding).
///
/// # Errors
/// It is empty, too long, or breaks the profile.
pub fn prepare_resource(s: &str) -> Result<String, JidError> {
    resource(s).map(Cow::into_owned)
}

pub(super) fn local(s: &str) -> Result<Cow<'_, str>, JidError> {
    match fast::local(s) {
        Some(local) => Ok(Cow::Owned(local)),
        None => slow_local(s).map(Cow::Owned),
    }
}

pub(super) fn resource(s: &str) -> Result<Cow<'_, str>, JidError> {
    if fast::is_plain_resource(s) {
        return Ok(Cow::Borrowed(s));
    }
    slow_resource(s).map(Cow::Owned)
}

/// `UsernameCaseMapped` (RFC 8265 §3.3), and without the characters that RFC 7622 §3.3.1 excludes: checked last,
/// since the width mapping can bring them about.
pub(super) fn slow_local(s: &str) -> Result<String, JidError> {
    if s.is_empty() {
        return Err(JidError::EmptyLocal);
    }
    let profile = UsernameCaseMapped::new();
    let local = stable(s, JidError::Local, |s| {
        let s = profile.width_mapping_rule(s).ok()?;
        is_identifier(&s).then_some(())?;
        let s = profile.case_mapping_rule(s).ok()?;
        let s = profile.normalization_rule(s).ok()?;
        profile.directionality_rule(s).ok().map(Cow::into_owned)
    })?;
    if local.contains(['"', '&', '\'', '/', ':', '<', '>', '@', ' ']) {
        return Err(JidError::Local);
    }
    Ok(local)
}

/// `OpaqueString` (RFC 8265 §4.2).
pub(super) fn slow_resource(s: &str) -> Result<String, JidError> {
    if s.is_empty() {
        return Err(JidError::EmptyResource);
    }
    let profile = OpaqueString::new();
    stable(s, JidError::Resource, |s| {
        Class::new(FreeformClass::default(), newer_freeform).allows(s).ok()?;
        let s = profile.additional_mapping_rule(s).ok()?;
        profile.normalization_rule(s).ok().map(Cow::into_owned)
    })
}

/// Whether all code points belong to the identifier class, each in a context where it may stand (RFC 8264 §4.2).
pub(super) fn is_identifier(s: &str) -> bool {
    Class::new(IdentifierClass::default(), newer_identifier).allows(s).is_ok()
}

/// Applies the rules until they change nothing (RFC 8264 §7: they are not idempotent for every string). What does not
/// settle has no canonical form.
fn stable(s: &str, error: JidError, rules: impl Fn(&str) -> Option<String>) -> Result<String, JidError> {
    if s.len() > MAX_RAW_PART {
        return Err(JidError::TooLong);
    }
    let mut text = rules(s).ok_or(error)?;
    for _ in 0..MAX_ROUNDS {
        if text.is_empty() {
            return Err(error);
        }
        if text.len() > MAX_PART {
            return Err(JidError::TooLong);
        }
        let again = rules(&text).ok_or(error)?;
        if again == text {
            return Ok(text);
        }
        text = again;
    }
    Err(error)
}

/// A string class with bounded work, and with an opinion on code points newer than the framework's tables.
struct Class<C> {
    class: C,
    newer: fn(char) -> bool,
    context: Cell<u8>,
    seen: [Cell<bool>; 3],
}

impl<C: StringClass> Class<C> {
    fn new(class: C, newer: fn(char) -> bool) -> Self {
        Self { class, newer, context: Cell::new(0), seen: Default::default() }
    }

    /// The rules for these speak of the label as a whole: the first of each sort answers for all of it.
    fn whole_label(&self, c: char) -> Option<&Cell<bool>> {
        match c {
            '\u{30fb}' => Some(&self.seen[0]),
            '\u{0660}'..='\u{0669}' => Some(&self.seen[1]),
            '\u{06f0}'..='\u{06f9}' => Some(&self.seen[2]),
            _ => None,
        }
    }
}

impl<C: StringClass> StringClass for Class<C> {
    fn get_value_from_char(&self, c: char) -> DerivedPropertyValue {
        use DerivedPropertyValue::{ContextJ, ContextO, Disallowed, PValid, Unassigned};
        match self.class.get_value_from_char(c) {
            Unassigned if (self.newer)(c) => PValid,
            context @ (ContextJ | ContextO) => {
                if let Some(seen) = self.whole_label(c)
                    && seen.replace(true)
                {
                    return PValid;
                }
                self.context.set(self.context.get() + 1);
                if self.context.get() > MAX_CONTEXT { Disallowed } else { context }
            }
            value => value,
        }
    }

    fn get_value_from_codepoint(&self, cp: u32) -> DerivedPropertyValue {
        char::from_u32(cp).map_or(DerivedPropertyValue::Disallowed, |c| self.get_value_from_char(c))
    }
}

/// The classes of RFC 8264 §4.3: letters, digits, marks, symbols, punctuation, spaces.
fn newer_freeform(c: char) -> bool {
    use GeneralCategoryGroup::{Letter, Mark, Number, Punctuation, Symbol};
    !is_newly_ignorable(c)
        && matches!(c.general_category_group(), Letter | Mark | Number | Punctuation | Symbol)
}

/// The classes of RFC 8264 §4.2: letters and digits without a compatibility form. Not from scripts written from right
/// to left, whose direction the framework's tables do not know either.
fn newer_identifier(c: char) -> bool {
    use GeneralCategory::{
        DecimalNumber, LowercaseLetter, ModifierLetter, NonspacingMark, OtherLetter, SpacingMark,
        UppercaseLetter,
    };
    let right_to_left =
        matches!(c, '\u{0590}'..='\u{08ff}' | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}');
    let letter = matches!(
        c.general_category(),
        LowercaseLetter
            | UppercaseLetter
            | OtherLetter
            | DecimalNumber
            | ModifierLetter
            | NonspacingMark
            | SpacingMark
    );
    // The normal form of the nickname profile is NFKC.
    let composed = || {
        let mut buffer = [0; 4];
        let text: &str = c.encode_utf8(&mut buffer);
        Nickname::new().normalization_rule(text).is_ok_and(|normal| normal == text)
    };
    letter && !right_to_left && !is_newly_ignorable(c) && composed()
}

/// Marks that are ignored in display and are newer than the tables: the fourth Mongolian variation selector and the
/// Khitan filler.
fn is_newly_ignorable(c: char) -> bool {
    matches!(c, '\u{180f}' | '\u{16fe4}')
}
