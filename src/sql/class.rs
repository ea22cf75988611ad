//! The verdict on a statement.

use super::hint::Hint;
use super::shapes::ShapeId;

macro_rules! labelled {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every value, in order.
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// The word for metrics, logs and SHOW.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $label,)* }
            }

            /// Its place in `ALL`.
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

labelled! {
    /// Where a statement may run (routing.md §2.1).
    Access {
        /// S: no side effect that lasts, and all inputs are replicated. A standby may run it.
        Read = "read",
        /// P: the primary, though it changes nothing.
        Primary = "primary",
        /// W: the primary, and it may change something.
        Write = "write",
        /// N: goes where its transaction is; outside of one anywhere.
        Neutral = "neutral",
        /// Nothing but comments.
        Empty = "empty",
    }
}

labelled! {
    /// Why a statement has its [`Access`].
    Reason {
        /// A read that calls only what is known to be harmless.
        Read = "read",
        /// FOR UPDATE and its like, LOCK.
        Locking = "locking",
        /// INSERT, UPDATE, DELETE, MERGE, also inside WITH.
        DataModifying = "data_modifying",
        /// CREATE, ALTER, DROP and the like.
        Ddl = "ddl",
        /// A function that is not known to be harmless.
        Function = "function",
        /// A type that is not built in.
        Type = "type",
        /// An operator that is not built in.
        Operator = "operator",
        /// System catalogs, or functions over them.
        Catalog = "catalog",
        /// A relation that reaches something that must not run on a standby, or that standbys do not have.
        Relation = "relation",
        /// A name that the database's catalog does not have.
        UnknownName = "unknown_name",
        /// The database's catalog is not known yet, or not any more.
        NotLoaded = "not_loaded",
        /// SELECT INTO.
        SelectInto = "select_into",
        /// BEGIN and its like: explicit transactions run on the primary.
        Transaction = "transaction",
        /// COPY.
        Copy = "copy",
        /// SET, SHOW, DISCARD, LISTEN and other statements about the session.
        Session = "session",
        /// Any other command.
        Utility = "utility",
        /// A construct that pgweir does not know.
        UnknownConstruct = "unknown_construct",
        /// Text that could not be parsed: PostgreSQL words the error.
        Unparsable = "unparsable",
        /// Text that the server may lex in another way than we do.
        UnsafeText = "unsafe_text",
        /// More text, or more tokens, than are looked at.
        TooLong = "too_long",
        /// More statements in one text than are looked at.
        TooManyStatements = "too_many_statements",
        /// Several statements that do not belong on a standby together.
        SeveralStatements = "several_statements",
        /// A hint in the comment before it.
        Hint = "hint",
        /// A standby has refused it, or a statement of its shape.
        Refused = "refused",
        /// No statement at all.
        Empty = "empty",
    }
}

labelled! {
    /// Why a session must keep its server connection.
    PinReason {
        /// Temporary tables, views, sequences.
        TemporaryObject = "temporary_object",
        /// LISTEN.
        Listen = "listen",
        /// A cursor that outlives its transaction.
        HoldCursor = "hold_cursor",
        /// A session-level advisory lock.
        AdvisoryLock = "advisory_lock",
        /// LOAD.
        Load = "load",
        /// PREPARE among other statements.
        Prepare = "prepare",
        /// Settings that change in a way that is not tracked.
        Settings = "settings",
        /// What a function has left on the connection: another one to elsewhere (dblink), the origin of what is replicated.
        Function = "function",
        /// What sequences gave last, for currval and lastval. It ends with the next unit that does not ask for that.
        Sequence = "sequence",
    }
}

impl Reason {
    /// Whether it tells of something that is not known, or that is of the catalog, and not of something that is known to
    /// be wrong on a standby.
    pub(super) fn is_uncertain(self) -> bool {
        matches!(
            self,
            Reason::Function
                | Reason::Type
                | Reason::Operator
                | Reason::Catalog
                | Reason::UnknownName
                | Reason::NotLoaded
                | Reason::UnknownConstruct
        )
    }
}

/// What a statement does to the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TxEffect {
    /// Nothing.
    None,
    /// Opens a block.
    Begin,
    /// Ends a block.
    End,
    /// One of several statements does something.
    Mixed,
}

/// What a statement leaves behind in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionEffect {
    /// Nothing.
    None,
    /// One setting changes, and [`super::setting::parse`] says how.
    Set,
    /// One setting changes by set_config, and [`super::set_config`] says how.
    SetConfig,
    /// Settings change in several statements, or DEALLOCATE is among them; [`super::statements`] tells them apart.
    SetSeveral,
    /// SAVEPOINT, RELEASE or ROLLBACK TO one: settings may go back with it.
    Savepoint,
    /// DISCARD ALL.
    DiscardAll,
    /// PREPARE; [`super::prepare_target`] tells the name.
    Prepare,
    /// EXECUTE, of the statement that [`super::executed`] names, or somewhere inside of another.
    Execute,
    /// DEALLOCATE of one statement.
    Deallocate,
    /// DEALLOCATE ALL.
    DeallocateAll,
    /// Something that exists on its server connection only.
    Pin(PinReason),
    /// It cannot be told: the server connection must be cleaned before anybody else has it.
    Unknown,
}

/// Which functions over sequences a text calls. PostgreSQL manual, functions-sequence.html.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SequenceCalls {
    /// `currval` or `lastval`: the answer is what nextval gave last in the same session.
    pub values: bool,
    /// `nextval`.
    pub next: bool,
}

impl SequenceCalls {
    /// None.
    pub const NONE: SequenceCalls = SequenceCalls {
        values: false,
        next: false,
    };

    /// Those of both.
    #[must_use]
    pub const fn and(self, other: SequenceCalls) -> SequenceCalls {
        SequenceCalls {
            values: self.values || other.values,
            next: self.next || other.next,
        }
    }
}

/// What a statement, or several that are sent as one, does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Class {
    /// Where it may run.
    pub access: Access,
    /// What it does to the transaction.
    pub tx: TxEffect,
    /// What it leaves behind.
    pub session: SessionEffect,
    /// Why it has its access.
    pub reason: Reason,
    /// How many statements there are; 255 for more.
    pub statements: u8,
    /// It is no read only because something in it is not known, or is of the catalog: a hint may make it one.
    pub uncertain: bool,
    /// What the comments before it ask for, which [`Class::hinted`] follows.
    pub hint: Hint,
    /// What it is counted as.
    pub shape: ShapeId,
    /// What it asks of sequences by name.
    pub sequences: SequenceCalls,
}

impl Class {
    /// One statement without effect on transaction or session.
    pub const fn plain(access: Access, reason: Reason) -> Class {
        Class {
            access,
            tx: TxEffect::None,
            session: SessionEffect::None,
            reason,
            statements: 1,
            uncertain: false,
            hint: Hint::NONE,
            shape: ShapeId::NONE,
            sequences: SequenceCalls::NONE,
        }
    }

    /// Whether the primary is asked for what nextval gave last in the session.
    #[inline]
    pub fn uses_sequence(self) -> bool {
        self.sequences.values
            && matches!(self.access, Access::Primary | Access::Write)
            && self.session != SessionEffect::Prepare
    }

    /// Whether nextval is called, as far as the text tells.
    pub fn calls_nextval(self) -> bool {
        self.sequences.next && self.access == Access::Write && self.reason != Reason::Ddl
    }

    /// The same for what a standby has refused: it may write.
    #[must_use]
    pub const fn refused(self) -> Class {
        Class {
            access: Access::Write,
            reason: Reason::Refused,
            ..self
        }
    }

    /// The same with an effect on the session.
    #[must_use]
    pub const fn with(self, session: SessionEffect) -> Class {
        Class { session, ..self }
    }
}
