//! The statements of `statements.txt` with their verdicts, and the objects that they name.

/// What statements name in the database `postgres`.
pub const OBJECTS: &str = include_str!("objects.sql");

/// Databases with objects of their own.
pub const DATABASES: &[(&str, &str)] = &[
    ("casts", include_str!("casts.sql")),
    ("indexes", include_str!("indexes.sql")),
    ("operators", include_str!("operators.sql")),
    ("plain", include_str!("plain.sql")),
];

/// One way to send a statement (routing.md §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Alone in a Query.
    Alone,
    /// Behind another in one Query.
    Several,
    /// By the extended protocol.
    Extended,
    /// In a transaction.
    Transaction,
    /// First in a read-only transaction.
    ReadOnly,
}

impl Column {
    /// As the file has them.
    pub const ALL: [Column; 5] = [
        Column::Alone,
        Column::Several,
        Column::Extended,
        Column::Transaction,
        Column::ReadOnly,
    ];

    /// Its letter.
    pub fn letter(self) -> char {
        match self {
            Column::Alone => 'A',
            Column::Several => 'M',
            Column::Extended => 'E',
            Column::Transaction => 'T',
            Column::ReadOnly => 'R',
        }
    }
}

/// Statements with one verdict.
#[derive(Debug, Default)]
pub struct Group {
    pub heading: &'static str,
    /// Letters by column.
    verdict: [char; 5],
    pub reason: &'static str,
    /// The verdict rests on objects.
    pub objects: bool,
    /// The server may not know it.
    pub later: bool,
    /// The server refuses it.
    pub fails: bool,
    pub database: Option<&'static str>,
    /// What runs before each of them in the same session.
    pub before: Vec<&'static str>,
    /// Each with the number of its line.
    pub statements: Vec<(usize, &'static str)>,
}

impl Group {
    /// The letter of a column; `-` for none.
    pub fn verdict(&self, column: Column) -> char {
        self.verdict[column as usize]
    }

    fn judge(&mut self, line: &'static str) {
        for word in line.split(' ') {
            match word.split_once(':') {
                Some(("in", database)) => self.database = Some(database),
                Some((column, letter)) => {
                    let place = Column::ALL
                        .iter()
                        .position(|known| known.letter().to_string() == column)
                        .unwrap_or_else(|| panic!("{line}: column {column}"));
                    self.verdict[place] = letter.chars().next().expect("a letter");
                }
                None => match word {
                    "objects" => self.objects = true,
                    "later" => self.later = true,
                    "fails" => self.fails = true,
                    reason => {
                        assert_eq!(self.reason, "", "{line}: one reason");
                        self.reason = reason;
                    }
                },
            }
        }
        assert!(!self.verdict.contains(&'\0'), "{line}: all columns");
    }
}

/// All groups, in order.
pub fn groups() -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (index, line) in include_str!("statements.txt").lines().enumerate() {
        let number = index + 1;
        if let Some(heading) = line.strip_prefix("## ") {
            groups.push(Group {
                heading,
                ..Group::default()
            });
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let group = groups
            .last_mut()
            .unwrap_or_else(|| panic!("line {number} before the first heading"));
        if let Some(verdict) = line.strip_prefix("= ") {
            group.judge(verdict);
        } else if let Some(before) = line.strip_prefix("> ") {
            group.before.push(before);
        } else {
            group.statements.push((number, line));
        }
    }
    groups
}
