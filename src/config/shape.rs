//! The shapes of values: how each is read from TOML, bounded, defaulted and described.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use toml::Spanned;
use toml::de::DeValue;

use super::raw::nearest;
use super::unit::{duration_text, parse_duration, parse_size, size_text};
use super::{Address, PeerId};

/// What values a key takes.
pub(super) trait Shape {
    /// The value as the program uses it.
    type Value;

    /// Reads a value. The error is the message for the operator.
    fn read(&self, value: &Spanned<DeValue<'_>>) -> Result<Self::Value, String>;

    /// What the reference calls it.
    fn kind(&self) -> &'static str;

    /// The default as it would be typed in the file.
    fn default_text(&self) -> Option<String>;

    /// The range for the reference.
    fn range_text(&self) -> Option<String>;
}

/// A shape that has a value for an absent key.
pub(super) trait Filled: Shape {
    /// That value.
    fn filled(&self) -> Self::Value;
}

/// A whole number, both bounds included.
pub(super) struct Count {
    pub(super) default: usize,
    pub(super) least: usize,
    pub(super) most: usize,
}

impl Shape for Count {
    type Value = usize;

    fn read(&self, value: &Spanned<DeValue<'_>>) -> Result<usize, String> {
        if !value.get_ref().is_integer() {
            return Err(mistyped("an integer", value, &self.default.to_string()));
        }
        let number = i64::deserialize(value.clone().into_deserializer())
            .map_err(|_| format!("must be from {} to {}", self.least, self.most))?;
        usize::try_from(number)
            .ok()
            .filter(|number| (self.least..=self.most).contains(number))
            .ok_or_else(|| format!("must be from {} to {}, not {number}", self.least, self.most))
    }

    fn kind(&self) -> &'static str {
        "integer"
    }

    fn default_text(&self) -> Option<String> {
        Some(self.default.to_string())
    }

    fn range_text(&self) -> Option<String> {
        Some(format!("`{}` to `{}`", self.least, self.most))
    }
}

impl Filled for Count {
    fn filled(&self) -> usize {
        self.default
    }
}

/// A duration, both bounds included.
pub(super) struct Time {
    pub(super) default: Duration,
    pub(super) least: Duration,
    pub(super) most: Duration,
}

impl Shape for Time {
    type Value = Duration;

    fn read(&self, value: &Spanned<DeValue<'_>>) -> Result<Duration, String> {
        let sample = format!("{:?}", duration_text(self.default));
        let text = with_unit("a duration", value, &sample)?;
        let time = parse_duration(text)?;
        if (self.least..=self.most).contains(&time) {
            return Ok(time);
        }
        Err(outside(
            &duration_text(self.least),
            &duration_text(self.most),
            text,
        ))
    }

    fn kind(&self) -> &'static str {
        "duration"
    }

    fn default_text(&self) -> Option<String> {
        Some(format!("{:?}", duration_text(self.default)))
    }

    fn range_text(&self) -> Option<String> {
        let (least, most) = (duration_text(self.least), duration_text(self.most));
        Some(format!("`{least:?}` to `{most:?}`"))
    }
}

impl Filled for Time {
    fn filled(&self) -> Duration {
        self.default
    }
}

/// A duration that may be left out, both bounds included.
pub(super) struct Bound {
    /// For messages.
    pub(super) sample: Duration,
    pub(super) least: Duration,
    pub(super) most: Duration,
}

impl Bound {
    const fn time(&self) -> Time {
        Time {
            default: self.sample,
            least: self.least,
            most: self.most,
        }
    }
}

impl Shape for Bound {
    type Value = Duration;

    fn read(&self, value: &Spanned<DeValue<'_>>) -> Result<Duration, String> {
        self.time().read(value)
    }

    fn kind(&self) -> &'static str {
        self.time().kind()
    }

    fn default_text(&self) -> Option<String> {
        None
    }

    fn range_text(&self) -> Option<String> {
        self.time().range_text()
    }
}

/// A value that may be left out, whatever its shape has for a default.
pub(super) struct Maybe<S>(pub(super) S);

impl<S: Shape> Shape for Maybe<S> {
    type Value = S::Value;

    fn read(&self, value: &Spanned<DeValue<'_>>) -> Result<S::Value, String> {
        self.0.read(value)
    }

    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn default_text(&self) -> Option<String> {
        None
    }

    fn range_text(&self) -> Option<String> {
        self.0.range_text()
    }
}

/// The number of a process among its peers. There is no default: each needs its own.
pub(super) struct PeerNumber;

impl PeerNumber {
    const COUNT: Count = Count {
        default: 1,
        least: 1,
        most: PeerId::MOST as usize,
    };
}

impl Shape for PeerNumber {
    type Value = PeerId;

    fn read(&self, value: &Spanned<DeValue<'_>>) -> Result<PeerId, String> {
        let number = PeerNumber::COUNT.read(value)?;
        Ok(PeerId(u16::try_from(number).unwrap_or(PeerId::MOST)))
    }

    fn kind(&self) -> &'static str {
        PeerNumber::COUNT.kind()
    }

    fn default_text(&self) -> Option<String> {
        None
    }

    fn range_text(&self) -> Option<String> {
        PeerNumber::COUNT.range_text()
    }
}

/// A number of bytes, both bounds included.
pub(super) struct Size {
    pub(super) default: u64,
    pub(super) least: u64,
    pub(super) most: u64,
}

impl Shape for Size {
    type Value = usize;

    fn read(&self, value: &Spanned<DeValue<'_>>) -> Result<usize, String> {
        let sample = format!("{:?}", size_text(self.default));
        let text = with_unit("a size", value, &sample)?;
        let size = parse_size(text)?;
        if (self.least..=self.most).contains(&size) {
            return Ok(in_memory(size));
        }
        Err(outside(&size_text(self.least), &size_text(self.most), text))
    }

    fn kind(&self) -> &'static str {
        "size"
    }

    fn default_text(&self) -> Option<String> {
        Some(format!("{:?}", size_text(self.default)))
    }

    fn range_text(&self) -> Option<String> {
        let (least, most) = (size_text(self.least), size_text(self.most));
        Some(format!("`{least:?}` to `{most:?}`"))
    }
}

impl Filled for Size {
    fn filled(&self) -> usize {
        in_memory(self.default)
    }
}

/// One of a few names.
pub(super) struct Choice<E: 'static> {
    pub(super) default: E,
    pub(super) names: &'static [(&'static str, E)],
}

impl<E: Copy + PartialEq> Shape for Choice<E> {
    type Value = E;

    fn read(&self, value: &Spanned<DeValue<'_>>) -> Result<E, String> {
        let expected = either(self.names.iter().map(|(name, _)| format!("{name:?}")));
        let Some(text) = value.get_ref().as_str() else {
            return Err(format!("expected {expected}, not {}", with_article(value)));
        };
        if let Some((_, choice)) = self.names.iter().find(|(name, _)| *name == text) {
            return Ok(*choice);
        }
        let names: Vec<&str> = self.names.iter().map(|(name, _)| *name).collect();
        Err(match nearest(text, &names) {
            Some(name) => {
                format!("expected {expected}, not {text:?}; did you mean {name:?}?")
            }
            None => format!("expected {expected}, not {text:?}"),
        })
    }

    fn kind(&self) -> &'static str {
        "string"
    }

    fn default_text(&self) -> Option<String> {
        let named = self
            .names
            .iter()
            .find(|(_, choice)| *choice == self.default);
        named.map(|(name, _)| format!("{name:?}"))
    }

    fn range_text(&self) -> Option<String> {
        Some(either(
            self.names.iter().map(|(name, _)| format!("`{name:?}`")),
        ))
    }
}

impl<E: Copy + PartialEq> Filled for Choice<E> {
    fn filled(&self) -> E {
        self.default
    }
}

/// Any text but the empty one, without a default.
pub(super) struct Text;

impl Shape for Text {
    type Value = String;

    fn read(&self, value: &Spanned<DeValue<'_>>) -> Result<String, String> {
        match value.get_ref().as_str() {
            Some("") => Err("must not be empty".to_owned()),
            Some(text) if text.contains('\0') => Err("must not hold a NUL character".to_owned()),
            Some(text) => Ok(text.to_owned()),
            // Never the value itself: it may be a password that lacks its quotes.
            None => Err(format!("expected a string, not {}", with_article(value))),
        }
    }

    fn kind(&self) -> &'static str {
        "string"
    }

    fn default_text(&self) -> Option<String> {
        None
    }

    fn range_text(&self) -> Option<String> {
        None
    }
}

/// Names, each of them a text but the empty one; none by default.
pub(super) struct Names;

impl Shape for Names {
    type Value = Vec<String>;

    fn read(&self, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, String> {
        let Some(elements) = value.get_ref().as_array() else {
            let found = with_article(value);
            return Err(format!("expected an array of strings, not {found}"));
        };
        elements.iter().map(|element| Text.read(element)).collect()
    }

    fn kind(&self) -> &'static str {
        "array of strings"
    }

    fn default_text(&self) -> Option<String> {
        Some("[]".to_owned())
    }

    fn range_text(&self) -> Option<String> {
        None
    }
}

impl Filled for Names {
    fn filled(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Any text but the empty one, and the default.
pub(super) struct TextOr(pub(super) &'static str);

impl Shape for TextOr {
    type Value = String;

    fn read(&self, value: &Spanned<DeValue<'_>>) -> Result<String, String> {
        Text.read(value)
    }

    fn kind(&self) -> &'static str {
        Text.kind()
    }

    fn default_text(&self) -> Option<String> {
        Some(format!("{:?}", self.0))
    }

    fn range_text(&self) -> Option<String> {
        None
    }
}

impl Filled for TextOr {
    fn filled(&self) -> String {
        self.0.to_owned()
    }
}

/// An address. There is no default: where things are is for the operator to say.
pub(super) enum Place {
    /// Where clients connect: any address, port 0 included.
    Listener,
    /// Where HTTP is answered: TCP only, port 0 included.
    Http,
    /// Where a node is: any address with a port.
    Node,
}

impl Shape for Place {
    type Value = Address;

    fn read(&self, value: &Spanned<DeValue<'_>>) -> Result<Address, String> {
        let Some(text) = value.get_ref().as_str() else {
            return Err(mistyped("a string", value, "\"127.0.0.1:5432\""));
        };
        let address = text.parse::<Address>().map_err(|error| error.to_string())?;
        match (self, &address) {
            (Place::Http, Address::Unix(_)) => Err("HTTP is answered over TCP only".to_owned()),
            (Place::Node, Address::Tcp(_, 0)) => Err("port 0 cannot be connected to".to_owned()),
            _ => Ok(address),
        }
    }

    fn kind(&self) -> &'static str {
        "address"
    }

    fn default_text(&self) -> Option<String> {
        None
    }

    fn range_text(&self) -> Option<String> {
        Some(match self {
            Place::Http => "`host:port` or `[ipv6]:port`".to_owned(),
            Place::Listener | Place::Node => {
                "`host:port`, `[ipv6]:port` or `unix:/path`".to_owned()
            }
        })
    }
}

/// The text of a value that bears a unit.
fn with_unit<'v>(
    what: &str,
    value: &'v Spanned<DeValue<'_>>,
    sample: &str,
) -> Result<&'v str, String> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text),
        DeValue::Integer(_) | DeValue::Float(_) => {
            Err(format!("{what} needs quotes and a unit, as in {sample}"))
        }
        _ => Err(mistyped(what, value, sample)),
    }
}

fn mistyped(expected: &str, value: &Spanned<DeValue<'_>>, sample: &str) -> String {
    format!(
        "expected {expected} such as {sample}, not {}",
        with_article(value)
    )
}

/// The type of a value in a sentence: "an array".
pub(super) fn with_article(value: &Spanned<DeValue<'_>>) -> String {
    let kind = value.get_ref().type_str();
    let article = if kind.starts_with(['a', 'i']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {kind}")
}

fn outside(least: &str, most: &str, text: &str) -> String {
    format!("must be from {least:?} to {most:?}, not {text:?}")
}

/// "a, b or c".
fn either(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// No bound of a size passes 1 GiB, so it fits in memory's own type wherever this runs.
fn in_memory(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}
