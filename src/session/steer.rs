//! What a session says of its own routing: the settings `pgweir.route`, `pgweir.consistency` and `pgweir.max_lag`, and
//! hints.
//!
//! PostgreSQL keeps a value for any name with a dot in it, so the settings are followed as all others are: servers have
//! them, undo them with a transaction, show them and reset them. Server connections log in with what the configuration
//! says, which is what RESET and DISCARD ALL go back to. The proxy reads the values that it follows anyway, whenever they
//! change.
//!
//! Only values that it does not know are its own affair, because servers take any. Such a statement is sent as another
//! one, which fails in the same place with the same code: so its transaction fails with it, and what follows is skipped,
//! as if the server had refused the value. The error becomes the proxy's on its way back.

use super::Session;
use crate::config::{Consistency, Hints, Route, duration_text, parse_duration};
use crate::link::{Link, Params, Value};
use crate::route::{Ground, Policy};
use crate::sql::setting::{self, Change, Parsed};
use crate::sql::{self, Class, Hint, HintResult, SessionEffect, mentions};
use crate::wire::frame::HEADER;
use crate::wire::{Notice, Severity, SqlState};

const PREFIX: &str = "pgweir.";
const ROUTE: &str = "pgweir.route";
const CONSISTENCY: &str = "pgweir.consistency";
const MAX_LAG: &str = "pgweir.max_lag";

/// The routes that a session may choose.
const ROUTES: [Route; 3] = [Route::Split, Route::Primary, Route::Standby];
const CONSISTENCIES: [Consistency; 2] = [Consistency::Eventual, Consistency::Session];

/// The largest `pgweir.max_lag`, as in proxy.toml.
const MOST_LAG: std::time::Duration = std::time::Duration::from_secs(86_400);

/// The routing of one session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Steering {
    /// What holds unless the session says otherwise.
    ground: Ground,
    /// What holds now.
    now: Policy,
}

impl Steering {
    /// The session's settings are others now.
    pub(super) fn follow(&mut self, params: &Params) {
        self.now = policy(params, self.ground);
    }
}

impl Session {
    /// A session of a database, a user and a listener that are routed like this.
    #[must_use]
    pub fn with_ground(mut self, ground: Ground) -> Session {
        self.steering.ground = ground;
        self.steering.follow(&self.params);
        self
    }

    /// How a statement of this class is routed.
    #[inline]
    pub fn policy(&self, class: Class) -> Policy {
        let policy = self.steering.now.for_statement(class);
        if self.is_optimistic() {
            // What it reads it may write back.
            return Policy {
                consistency: Consistency::Session,
                ..policy
            };
        }
        policy
    }

    /// Whether the session asks for standbys alone: what a standby refuses is its client's affair.
    #[inline]
    pub fn is_on_standbys(&self) -> bool {
        self.steering.now.route == Route::Standby
    }

    /// The class with its hint followed, if this session's are.
    #[inline]
    pub(super) fn steered(&self, class: Class) -> Class {
        if class.hint.is_none() {
            return class;
        }
        let not = |result| Class {
            hint: Hint {
                result,
                ..Hint::NONE
            },
            ..class
        };
        match self.steering.ground {
            ground if ground.hints == Hints::Ignore => not(HintResult::Forbidden),
            // What `observe` counts is what would be done.
            ground if ground.fixed.is_some_and(|route| route != Route::Observe) => {
                not(HintResult::InVain)
            }
            _ => class.hinted(),
        }
    }

    /// Whether a statement may change how those behind it are routed: they wait for its outcome.
    pub(super) fn may_steer(&self, class: Class, text: &[u8]) -> bool {
        sets(class)
            && (self.steering.now != self.steering.ground.policy || mentions(text, b"pgweir"))
    }

    /// What a server is given in place of a text that sets what it must not; `None` for any other.
    pub(super) fn stand_in(&self, class: Class, text: &[u8]) -> Option<Vec<u8>> {
        if !sets(class) || !mentions(text, b"pgweir") {
            return None;
        }
        let ground = self.steering.ground;
        match class.session {
            SessionEffect::Set => stand_in_for_set(text, ground),
            SessionEffect::SetConfig => {
                let (name, value) = sql::set_config(text)?;
                let refused = refuses(&name, Some(&value), ground)?;
                Some(
                    [
                        b"SELECT pg_catalog.set_config('bytea_output', '",
                        refused.as_bytes(),
                        b"', false)",
                    ]
                    .concat(),
                )
            }
            _ => stand_in_for_several(text, ground),
        }
    }
}

/// Notes that nothing may be sent behind the unit that is being sent.
pub(super) fn note(session: &Session, class: Class, text: &[u8], link: &mut Link) {
    link.steering |= session.may_steer(class, text);
}

fn sets(class: Class) -> bool {
    matches!(
        class.session,
        SessionEffect::Set | SessionEffect::SetConfig | SessionEffect::SetSeveral
    )
}

/// The settings with which server connections log in: what SHOW tells, and what RESET goes back to.
pub fn own_settings(ground: Ground) -> [(&'static str, String); 3] {
    let Policy {
        route, consistency, ..
    } = ground.policy;
    [
        (ROUTE, route.as_str().to_owned()),
        (CONSISTENCY, consistency.as_str().to_owned()),
        (MAX_LAG, duration_text(ground.max_lag)),
    ]
}

/// The settings of a startup packet.
///
/// # Errors
/// What the client is told whose settings are refused.
pub fn check_startup(params: &Params, ground: Ground) -> Result<(), Notice> {
    for (name, value) in params.iter() {
        let refused = match value {
            Value::Plain(text) => refuses(name, Some(text), ground),
            Value::Sql(_) => None,
        };
        if let Some(notice) = refused.as_deref().and_then(notice) {
            return Err(Notice {
                severity: Severity::Fatal,
                ..notice
            });
        }
    }
    Ok(())
}

/// An error that a server gave to a stand-in, in the proxy's words; `None` for any other. Takes and gives the body.
pub(super) fn in_words(body: &[u8]) -> Option<Vec<u8>> {
    let at = memchr::memmem::find(body, MARK.as_bytes())?;
    let rest = &body[at..];
    let end = rest.iter().position(|byte| matches!(byte, b'"' | 0))?;
    let notice = notice(std::str::from_utf8(&rest[..end]).ok()?)?;
    let mut out = Vec::new();
    notice.put(&mut out);
    Some(out.split_off(HEADER))
}

fn stand_in_for_set(text: &[u8], ground: Ground) -> Option<Vec<u8>> {
    let Parsed::Setting(setting) = setting::parse(text) else {
        return None;
    };
    let Change::Set(sql) = setting.change else {
        return None;
    };
    let refused = refuses(&setting.name, setting::constant(sql).as_deref(), ground)?;
    // An enumeration: its check looks at the words, and at nothing else.
    Some([b"SET bytea_output TO '", refused.as_bytes(), b"'"].concat())
}

fn stand_in_for_several(text: &[u8], ground: Ground) -> Option<Vec<u8>> {
    let (mut out, mut from) = (Vec::new(), 0);
    for statement in sql::statements(text) {
        if let Some(other) = stand_in_for_set(statement, ground) {
            let at = statement.as_ptr() as usize - text.as_ptr() as usize;
            out.extend_from_slice(&text[from..at]);
            out.extend_from_slice(&other);
            from = at + statement.len();
        }
    }
    (from > 0).then(|| [&out[..], &text[from..]].concat())
}

/// Why a setting of the proxy's must not be made, as the value of a setting that no server takes; `None` if it may be
/// made. A value of `None` is no constant.
fn refuses(name: &str, value: Option<&str>, ground: Ground) -> Option<String> {
    if !name.starts_with(PREFIX) {
        return None;
    }
    let kind = if ground.hints == Hints::Ignore {
        FORBIDDEN
    } else if !matches!(name, ROUTE | CONSISTENCY | MAX_LAG) {
        UNKNOWN
    } else if value.is_none_or(|value| !is_good(name, value)) {
        INVALID
    } else {
        return None;
    };
    let value = value.unwrap_or("?");
    Some(format!("{MARK}{kind} {}={}", tame(name), tame(value)))
}

/// What the values of stand-ins begin with.
const MARK: &str = "pgweir refuses ";
const FORBIDDEN: &str = "the setting";
const UNKNOWN: &str = "the name";
const INVALID: &str = "the value";

/// So much of a name or value is repeated to the client.
const REPEATED: usize = 60;

/// Text that means nothing to anybody, neither in SQL nor in a message.
fn tame(text: &str) -> String {
    let plain = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '+' | ' ' | '(' | ')' | ',')
    };
    text.chars()
        .take(REPEATED)
        .map(|c| if plain(c) { c } else { '?' })
        .collect()
}

fn notice(refused: &str) -> Option<Notice> {
    let refused = refused.strip_prefix(MARK)?;
    let (told, value) = refused.split_once('=')?;
    let (kind, name) = told.rsplit_once(' ')?;
    let notice = match kind {
        FORBIDDEN => Notice::error(
            SqlState::InsufficientPrivilege,
            format!("permission denied to set parameter \"{name}\""),
        )
        .hint("The proxy's configuration forbids it for this database or user."),
        UNKNOWN => Notice::error(
            SqlState::UndefinedObject,
            format!("unrecognized configuration parameter \"{name}\""),
        )
        .hint("The proxy has pgweir.route, pgweir.consistency and pgweir.max_lag."),
        INVALID => Notice::error(
            SqlState::InvalidParameterValue,
            format!("invalid value for parameter \"{name}\": \"{value}\""),
        )
        .hint(match name {
            ROUTE => "Available values: split, primary, standby.",
            CONSISTENCY => "Available values: eventual, session.",
            _ => "A whole number with a unit, at most 1d: ms, s, min, h or d, as in 5s.",
        }),
        _ => return None,
    };
    Some(notice)
}

fn is_good(name: &str, value: &str) -> bool {
    match name {
        ROUTE => route(value).is_some(),
        CONSISTENCY => consistency(value).is_some(),
        _ => max_lag(value).is_some(),
    }
}

fn route(value: &str) -> Option<Route> {
    let is = |route: &Route| route.as_str().eq_ignore_ascii_case(value);
    ROUTES.into_iter().find(is)
}

fn consistency(value: &str) -> Option<Consistency> {
    let is = |one: &Consistency| one.as_str().eq_ignore_ascii_case(value);
    CONSISTENCIES.into_iter().find(is)
}

fn max_lag(value: &str) -> Option<std::time::Duration> {
    parse_duration(value)
        .ok()
        .filter(|bound| *bound <= MOST_LAG)
}

/// What a session's settings say, on this ground.
fn policy(params: &Params, ground: Ground) -> Policy {
    let value = |name| match params.get(name)? {
        Value::Plain(text) => Some(text.to_string()),
        Value::Sql(sql) => setting::constant(sql),
    };
    let of_session = value(ROUTE).and_then(|value| route(&value));
    let consistency = value(CONSISTENCY).and_then(|value| consistency(&value));
    let max_lag = value(MAX_LAG).and_then(|value| max_lag(&value));
    Policy {
        route: ground.fixed.or(of_session).unwrap_or(ground.policy.route),
        consistency: consistency.unwrap_or(ground.policy.consistency),
        max_lag: max_lag.or(ground.policy.max_lag),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Classifier;
    use crate::sql::catalog::TABLES;

    fn session(ground: Ground) -> Session {
        Session::new(Default::default(), Default::default(), false).with_ground(ground)
    }

    /// The code that a statement is refused with, by way of what its server would say.
    fn check(ground: Ground, text: &str, expected: Option<(&str, &str)>) {
        let class = Classifier::new(1 << 16).classify(text.as_bytes(), Default::default(), &TABLES);
        let sent = session(ground).stand_in(class, text.as_bytes());
        let said = sent.as_deref().map(|sql| {
            let sql = std::str::from_utf8(sql).expect("ASCII");
            let from = sql.find(MARK).expect("a mark");
            let value = &sql[from..];
            let value = &value[..value.find('\'').expect("a quote")];
            let said = format!(
                "SERROR\0VERROR\0C22023\0Minvalid value for parameter \"bytea_output\": \"{value}\"\0\0"
            );
            let body = in_words(said.as_bytes()).expect("a stand-in's error");
            let field = |name| {
                let field = crate::wire::backend::error_field(&body, name);
                String::from_utf8_lossy(field.unwrap_or_default()).into_owned()
            };
            (field(b'C'), field(b'M'))
        });
        let said = said
            .as_ref()
            .map(|(code, text)| (code.as_str(), text.as_str()));
        assert_eq!(said, expected, "{text}");
    }

    #[test]
    fn values_are_checked_before_they_are_sent() {
        let ground = Ground::default();
        for good in [
            "SET pgweir.route = 'primary'",
            "set PGWEIR.Route TO Standby",
            "SET LOCAL pgweir.route = \"split\" -- so",
            "SET pgweir.consistency = eventual;",
            "SET SESSION pgweir.max_lag = '500ms'",
            "SET pgweir.max_lag = '1d'",
            "RESET pgweir.route",
            "SET pgweir.route TO DEFAULT",
            "RESET ALL",
            "SET work_mem = '1MB'",
            "SET my.route = 'pgweir.route'",
            "SELECT set_config('pgweir.route', 'standby', false)",
            "SET pgweir.route = 'primary'; SET pgweir.max_lag = '5s'",
        ] {
            check(ground, good, None);
        }
        let invalid = |text: &str, name: &str, value: &str| {
            let message = format!("invalid value for parameter \"{name}\": \"{value}\"");
            check(ground, text, Some(("22023", &message)));
        };
        invalid("SET pgweir.route = 'observe'", ROUTE, "observe");
        invalid("SET pgweir.route = master", ROUTE, "master");
        invalid("SET pgweir.route = ''", ROUTE, "");
        invalid("SET pgweir.route = 'a''b\"c'", ROUTE, "a?b?c");
        invalid("SET pgweir.route = E'primary'", ROUTE, "?");
        invalid("SET pgweir.route = 'primary', 'split'", ROUTE, "?");
        invalid(
            "SET LOCAL pgweir.consistency TO strong",
            CONSISTENCY,
            "strong",
        );
        invalid("SET pgweir.max_lag = 5", MAX_LAG, "5");
        invalid("SET pgweir.max_lag = '2d'", MAX_LAG, "2d");
        invalid(
            "SELECT set_config('pgweir.route', 'x=y', false)",
            ROUTE,
            "x?y",
        );
        invalid(
            "SET a.b = 1; SET pgweir.route = nowhere; SET c.d = 2",
            ROUTE,
            "nowhere",
        );
        let message = "unrecognized configuration parameter \"pgweir.rout\"";
        check(
            ground,
            "SET pgweir.rout = 'primary'",
            Some(("42704", message)),
        );
    }

    #[test]
    fn what_is_forbidden_is_refused() {
        let ground = Ground {
            hints: Hints::Ignore,
            ..Ground::default()
        };
        let message = "permission denied to set parameter \"pgweir.route\"";
        check(
            ground,
            "SET pgweir.route = 'primary'",
            Some(("42501", message)),
        );
        check(ground, "SET pgweir.route TO DEFAULT", None);
        check(ground, "RESET pgweir.route", None);
        let mut params = Params::default();
        assert!(check_startup(&params, ground).is_ok());
        params.set(ROUTE, Value::Plain("primary".into()));
        let refused = check_startup(&params, ground).expect_err("forbidden");
        assert_eq!(
            (refused.severity, refused.state.code()),
            (Severity::Fatal, "42501")
        );
        assert!(check_startup(&params, Ground::default()).is_ok());
        params.set(ROUTE, Value::Plain("nearest".into()));
        let refused = check_startup(&params, Ground::default()).expect_err("no such route");
        assert_eq!(refused.state.code(), "22023");
    }

    #[test]
    fn other_statements_of_several_stay_as_they_are() {
        let text = b"SET a.b = 1; SET pgweir.route = x ; SET c.d = 2";
        let class = Classifier::new(1 << 16).classify(text, Default::default(), &TABLES);
        let sent = session(Ground::default()).stand_in(class, text);
        assert_eq!(
            String::from_utf8_lossy(&sent.expect("a stand-in")),
            "SET a.b = 1; SET bytea_output TO 'pgweir refuses the value pgweir.route=x'; SET c.d = 2"
        );
    }

    #[test]
    fn settings_decide_unless_the_listener_does() {
        let mut params = Params::default();
        params.set(ROUTE, Value::Sql(b"'Standby'".as_slice().into()));
        params.set(CONSISTENCY, Value::Plain("eventual".into()));
        params.set(MAX_LAG, Value::Sql(b"'5s' /* so */".as_slice().into()));
        let ground = Ground::default();
        let now = policy(&params, ground);
        assert_eq!(
            now,
            Policy {
                route: Route::Standby,
                consistency: Consistency::Eventual,
                max_lag: Some(std::time::Duration::from_secs(5)),
            }
        );
        assert_eq!(policy(&Params::default(), ground), ground.policy);
        let ground = ground.of_listener(Route::Primary);
        assert_eq!(policy(&params, ground).route, Route::Primary);
    }

    #[test]
    fn errors_of_others_are_left_alone() {
        assert_eq!(in_words(b"SERROR\0C22023\0Minvalid value\0\0"), None);
        assert_eq!(in_words(b"SERROR\0Mpgweir refuses nothing\0\0"), None);
        assert_eq!(in_words(b"pgweir refuses "), None);
    }
}
