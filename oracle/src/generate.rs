//! Statements from a grammar: every construct of a query, at any depth, with or without something in it that must not
//! run on a standby.

use crate::function::STANDBY;
use crate::types::TYPES;

/// Random numbers that are the same for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True once in `of` times.
    pub fn once_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    /// One of several.
    pub fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// Makes statements.
#[derive(Debug)]
pub struct Generator {
    random: Random,
    /// Nesting that is left.
    depth: usize,
    /// One in so many places gets something that must not run on a standby; 0 for none.
    taint: usize,
}

impl Generator {
    /// A generator for a seed.
    pub fn new(seed: u64) -> Generator {
        Generator {
            random: Random::new(seed),
            depth: 0,
            taint: 0,
        }
    }

    /// A statement; every second one has nothing in it that must not run on a standby.
    pub fn statement(&mut self) -> String {
        self.depth = 1 + self.random.below(5);
        self.taint = match self.random.below(4) {
            0 | 1 => 0,
            2 => 12,
            _ => 60,
        };
        let query = match self.random.below(20) {
            0 if self.taint > 0 => self.dml(),
            1 if self.taint > 0 => self.utility(),
            2 => self.values(),
            3 => format!("({})", self.query()),
            4 => format!("table {}", self.relation()),
            _ => self.query(),
        };
        self.disguise(&query)
    }

    /// What every program has, or now and then what few have: the parser does not know all of it.
    fn mostly<'a>(&mut self, common: &[&'a str], rare: &[&'a str]) -> &'a str {
        let rarely = self.random.once_in(RARE);
        self.random.pick(if rarely { rare } else { common })
    }

    fn tainted(&mut self) -> bool {
        self.taint > 0 && self.random.once_in(self.taint)
    }

    fn deeper<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.depth;
        self.depth = before.saturating_sub(1);
        let made = make(self);
        self.depth = before;
        made
    }

    /// Other white space, comments and case outside of quotes.
    fn disguise(&mut self, text: &str) -> String {
        let kind = self.random.below(6);
        if kind > 2 {
            return text.to_owned();
        }
        let mut quote = None;
        let mut out = String::with_capacity(text.len() * 2);
        for c in text.chars() {
            match (quote, c) {
                (None, '\'' | '"') => quote = Some(c),
                (Some(open), _) if open == c => quote = None,
                (None, ' ') if kind == 0 => {
                    let space = self.random.pick(&[
                        " ",
                        "\n",
                        "\t",
                        " /* ' ; */ ",
                        " -- \"\n",
                        "  ",
                        "/**/",
                    ]);
                    out.push_str(space);
                    continue;
                }
                (None, _) if kind == 1 => {
                    out.push(c.to_ascii_uppercase());
                    continue;
                }
                (None, _) if kind == 2 && self.random.once_in(2) => {
                    out.push(c.to_ascii_uppercase());
                    continue;
                }
                _ => {}
            }
            out.push(c);
        }
        out
    }

    fn query(&mut self) -> String {
        self.deeper(|g| {
            let with = if g.depth > 0 && g.random.once_in(6) {
                g.with()
            } else {
                String::new()
            };
            let body = match g.random.below(12) {
                0 if g.depth > 0 => {
                    let op = g.random.pick(&[
                        "union",
                        "union all",
                        "except",
                        "intersect",
                        "except all",
                        "union distinct",
                    ]);
                    format!("{} {op} {}", g.arm(), g.arm())
                }
                1 if g.depth > 0 => g.values(),
                2 if g.random.once_in(3) => format!("table {}", g.relation()),
                _ => g.select(),
            };
            let tail = g.tail();
            format!("{with}{body}{tail}")
        })
    }

    fn arm(&mut self) -> String {
        match self.random.below(5) {
            0 => format!("({})", self.query()),
            1 => self.values(),
            _ => self.deeper(Self::select),
        }
    }

    fn values(&mut self) -> String {
        let row = format!("({})", self.list(2));
        if self.random.once_in(2) {
            format!("values {row}, ({})", self.list(2))
        } else {
            format!("values {row}")
        }
    }

    fn with(&mut self) -> String {
        let recursive = if self.random.once_in(3) {
            "recursive "
        } else {
            ""
        };
        let materialized = self
            .random
            .pick(&["", "", "materialized ", "not materialized "]);
        let inner = if self.tainted() {
            self.dml()
        } else {
            self.query()
        };
        let columns = self.random.pick(&["", "", "(a, b)"]);
        let tail = if recursive.is_empty() {
            ""
        } else {
            self.mostly(
                &[""],
                &[
                    " search depth first by a set ordering",
                    " search breadth first by a, b set ordering",
                    " cycle a set is_cycle using path",
                    " cycle a set is_cycle to true default false using path",
                ],
            )
        };
        let second = if self.random.once_in(3) {
            format!(", w2 as ({})", self.query())
        } else {
            String::new()
        };
        format!("with {recursive}w{columns} as {materialized}({inner}){tail}{second} ")
    }

    fn tail(&mut self) -> String {
        let mut tail = String::new();
        if self.random.once_in(5) {
            let order = if self.tainted() {
                "using <<<"
            } else {
                self.random.pick(&[
                    "",
                    "asc",
                    "desc",
                    "nulls first",
                    "desc nulls last",
                    "using <",
                    "using >",
                ])
            };
            tail.push_str(&format!(" order by {} {order}", self.expression()));
        }
        match self.random.below(12) {
            0 => tail.push_str(&format!(" limit {}", self.expression())),
            1 => tail.push_str(&format!(" limit all offset {}", self.expression())),
            2 => tail.push_str(" fetch first 3 rows only"),
            3 => tail.push_str(&format!(
                " offset {} rows fetch next ({}) rows with ties",
                self.primary(),
                self.expression()
            )),
            _ => {}
        }
        if self.tainted() {
            tail.push_str(self.random.pick(&[
                " for update",
                " for share",
                " for no key update",
                " for key share",
                " for update of t nowait",
                " for share skip locked",
                " for update of t, u",
                " for update for share",
            ]));
        }
        tail
    }

    fn select(&mut self) -> String {
        let distinct = match self.random.below(10) {
            0 => "distinct ".to_owned(),
            1 => format!("distinct on ({}) ", self.expression()),
            2 => "all ".to_owned(),
            _ => String::new(),
        };
        let targets = self.targets();
        let into = if self.tainted() {
            self.random.pick(&[
                " into x",
                " into temp x",
                " into unlogged table x",
                " into temporary table x",
            ])
        } else {
            ""
        };
        let mut text = format!("select {distinct}{targets}{into}");
        if self.random.below(8) > 0 {
            text.push_str(&format!(" from {}", self.from()));
        }
        if self.random.once_in(2) {
            text.push_str(&format!(" where {}", self.expression()));
        }
        match self.random.below(10) {
            0 => text.push_str(&format!(" group by {}", self.list(2))),
            1 => text.push_str(&format!(" group by grouping sets (({}), ())", self.list(2))),
            2 => text.push_str(&format!(" group by rollup ({})", self.list(2))),
            3 => text.push_str(&format!(" group by distinct cube ({}), a", self.list(2))),
            _ => {}
        }
        if self.random.once_in(9) {
            text.push_str(&format!(" having {}", self.expression()));
        }
        if self.random.once_in(12) {
            text.push_str(&format!(" window win as ({})", self.window()));
        }
        text
    }

    fn targets(&mut self) -> String {
        match self.random.below(8) {
            0 => "*".to_owned(),
            1 => "t.*, u.a".to_owned(),
            2 => format!(
                "{} as x, {} \"Y y\", {} z",
                self.expression(),
                self.expression(),
                self.expression()
            ),
            3 => format!("({}).*", self.primary()),
            _ => self.list(3),
        }
    }

    fn relation(&mut self) -> String {
        if self.tainted() {
            return self
                .random
                .pick(&[
                    "pg_class",
                    "pg_catalog.pg_type",
                    "information_schema.tables",
                    "pg_temp.t",
                    "\"pg_settings\"",
                ])
                .to_owned();
        }
        self.mostly(
            &["t", "t", "u", "public.t", "\"T t\"", "w", "only t", "t"],
            &["t*", "only (t)", "db.public.t"],
        )
        .to_owned()
    }

    fn from(&mut self) -> String {
        let first = self.factor();
        match self.random.below(8) {
            0 => format!("{first}, {}", self.factor()),
            1 => format!("{first} join {} on {}", self.factor(), self.expression()),
            2 => format!("{first} left outer join {} using (id)", self.factor()),
            3 => format!("{first} cross join lateral ({}) l", self.query()),
            4 => format!("({first} full join {} using (id))", self.factor()),
            5 => format!("{first} natural join {}", self.factor()),
            _ => first,
        }
    }

    fn factor(&mut self) -> String {
        let alias = self.random.pick(&["", " as t", " u", " as u (a, b)"]);
        if self.depth == 0 {
            return format!("{}{alias}", self.relation());
        }
        match self.random.below(16) {
            0 => format!("({}) s", self.query()),
            1 => format!("lateral ({}) as s (a, b)", self.query()),
            2 => format!("{} f", self.table_call()),
            3 => format!("{} with ordinality as f (a, n)", self.table_call()),
            4 => format!(
                "{} as f (a {}, b {})",
                self.table_call(),
                self.type_name(),
                self.type_name()
            ),
            5 => format!(
                "rows from ({}, {}) as r (a, b)",
                self.table_call(),
                self.table_call()
            ),
            6 => {
                let method = if self.tainted() {
                    "mymethod"
                } else {
                    self.random.pick(&["bernoulli", "system"])
                };
                let repeatable = self.random.pick(&["", " repeatable (1)"]);
                format!(
                    "t{alias} tablesample {method} ({}){repeatable}",
                    self.expression()
                )
            }
            7 => format!("(values ({}), ({})) v (a)", self.list(1), self.list(1)),
            8 => format!("lateral {} f", self.table_call()),
            _ => format!("{}{alias}", self.relation()),
        }
    }

    fn list(&mut self, most: usize) -> String {
        let count = 1 + self.random.below(most);
        let items: Vec<String> = (0..count).map(|_| self.expression()).collect();
        items.join(", ")
    }

    fn window(&mut self) -> String {
        let frame = self.random.pick(&[
            "",
            " rows between unbounded preceding and current row",
            " range between 1 preceding and 1 following",
            " groups between 1 preceding and unbounded following exclude ties",
        ]);
        format!(
            "partition by {} order by {}{frame}",
            self.expression(),
            self.expression()
        )
    }

    /// A call in FROM, where the server takes no aggregate and no window function: nothing but arguments.
    fn table_call(&mut self) -> String {
        self.call_with(false)
    }

    fn call(&mut self) -> String {
        self.call_with(true)
    }

    fn call_with(&mut self, aggregates: bool) -> String {
        let name = if self.tainted() {
            self.random.pick(BAD_CALLS).to_owned()
        } else {
            let plain = STANDBY[self.random.below(STANDBY.len())];
            let plain = if KEYWORDS.contains(&plain) {
                "lower"
            } else {
                plain
            };
            match self.random.below(6) {
                0 => format!("pg_catalog.{plain}"),
                1 => format!("\"{plain}\""),
                _ => self
                    .random
                    .pick(&[
                        plain,
                        "lower",
                        "count",
                        "sum",
                        "coalesce",
                        "now",
                        "jsonb_agg",
                    ])
                    .to_owned(),
            }
        };
        let mut arguments = if self.depth == 0 || self.random.once_in(4) && name != "coalesce" {
            if name == "coalesce" {
                "1".to_owned()
            } else {
                String::new()
            }
        } else {
            self.deeper(|g| g.list(3))
        };
        if name == "coalesce" {
            return format!("coalesce({arguments})");
        }
        let mut tail = String::new();
        if self.depth > 0 {
            let form = self.random.below(60);
            match form {
                0..=2 | 5..=9 if !aggregates => {}
                0 => arguments = format!("distinct {}", self.expression()),
                1 => arguments = format!("{} order by {}", self.expression(), self.expression()),
                2 => arguments = "*".to_owned(),
                3 => arguments = format!("a => {}, b => {}", self.expression(), self.expression()),
                4 => arguments = format!("variadic {}", self.expression()),
                5 => arguments = format!("all {}", self.expression()),
                6 => tail = format!(" filter (where {})", self.expression()),
                7 => tail = format!(" over ({})", self.window()),
                8 => tail = " over win".to_owned(),
                9 => {
                    tail = format!(" within group (order by {})", self.expression());
                }
                _ => {}
            }
        }
        format!("{name}({arguments}){tail}")
    }

    fn type_name(&mut self) -> String {
        if self.tainted() {
            return self
                .random
                .pick(&[
                    "mytype",
                    "public.mytype",
                    "\"Int\"",
                    "mytype[]",
                    "uint8",
                    "string",
                    "datetime",
                    "public.int4",
                ])
                .to_owned();
        }
        let plain = TYPES[self.random.below(TYPES.len())];
        let plain = if matches!(plain, "char" | "bit" | "interval" | "character") {
            "int"
        } else {
            plain
        };
        let name = match self.random.below(12) {
            0 => "timestamp with time zone",
            1 => "double precision",
            2 => "numeric(10, 2)",
            3 => "varchar(20)",
            4 => "character varying",
            5 => "time without time zone",
            6 => self.mostly(
                &["interval"],
                &["interval day to second", "time (3) without time zone"],
            ),
            7 => "\"char\"",
            8 => "pg_catalog.int4",
            9 => "bit varying(5)",
            _ => plain,
        };
        let suffix = self.mostly(&["", "", "", "[]"], &["[3]", "[][]", " array"]);
        format!("{name}{suffix}")
    }

    fn operator(&mut self) -> String {
        if self.tainted() {
            return self
                .random
                .pick(&[
                    "<<<>>>",
                    "operator(public.+)",
                    "=>>",
                    "operator(my.=)",
                    "#^",
                    "&&&",
                    "operator(<<<)",
                ])
                .to_owned();
        }
        self.mostly(
            &[
                "+",
                "-",
                "*",
                "/",
                "%",
                "^",
                "=",
                "<>",
                "!=",
                "<",
                ">",
                "<=",
                ">=",
                "||",
                "and",
                "or",
                "and",
                "=",
                "->",
                "->>",
                "#>",
                "#>>",
                "@>",
                "<@",
                "?",
                "&&",
                "~",
                "~*",
                "!~",
                "!~*",
                "<<",
                ">>",
                "&",
                "|",
                "#",
                "@@",
                "<->",
                "is distinct from",
                "is not distinct from",
                "like",
                "ilike",
                "not like",
            ],
            &[
                "-|-",
                "&<",
                "&>",
                "^@",
                "operator(pg_catalog.+)",
                "<<=",
                ">>=",
                "~~",
                "!~~*",
                "~=",
                "|>>",
                "##",
                "?|",
                "?&",
                "similar to",
                "@?",
            ],
        )
        .to_owned()
    }

    fn expression(&mut self) -> String {
        if self.depth == 0 {
            return self.primary();
        }
        self.deeper(|g| match g.random.below(34) {
            0..=6 => g.primary(),
            7..=10 => format!("{} {} {}", g.primary(), g.operator(), g.primary()),
            11..=13 => g.call(),
            14 => format!("({}) {} ({})", g.expression(), g.operator(), g.expression()),
            15 => format!("({})::{}", g.expression(), g.type_name()),
            16 => format!("cast({} as {})", g.expression(), g.type_name()),
            17 => format!(
                "case when {} then {} else {} end",
                g.expression(),
                g.expression(),
                g.expression()
            ),
            18 => format!(
                "case {} when {} then {} end",
                g.expression(),
                g.expression(),
                g.expression()
            ),
            19 => format!("({})", g.query()),
            20 => format!("exists ({})", g.query()),
            21 => format!("{} in ({})", g.primary(), g.list(3)),
            22 => format!("{} not in ({})", g.primary(), g.query()),
            23 => {
                let op = if g.tainted() {
                    "operator(public.=)"
                } else {
                    g.mostly(&["=", "<>", "<", ">="], &["like", "~", "@>"])
                };
                let quantifier = g.random.pick(&["any", "all", "some"]);
                format!(
                    "{} {op} {quantifier} ({})",
                    g.primary(),
                    if g.random.once_in(2) {
                        g.query()
                    } else {
                        g.expression()
                    }
                )
            }
            24 => {
                let not = g.random.pick(&["", "not "]);
                format!(
                    "{} {not}between {} and {}",
                    g.primary(),
                    g.primary(),
                    g.primary()
                )
            }
            25 => {
                let test = if g.random.once_in(40) {
                    g.random
                        .pick(&["is document", "is json", "is normalized", "isnull"])
                } else {
                    g.random.pick(&[
                        "is null",
                        "is not null",
                        "is true",
                        "is not false",
                        "is unknown",
                        "notnull",
                    ])
                };
                format!("({}) {test}", g.expression())
            }
            26 => format!("array[{}]", g.list(3)),
            27 => format!("row({}, {})", g.expression(), g.expression()),
            28 => format!("({})[{}]", g.expression(), g.expression()),
            29 => g.special(),
            30 => format!("not ({})", g.expression()),
            31 => {
                let sign = g.mostly(&["-", "+"], &["~", "@", "|/ ", "||/ ", "!! "]);
                format!("{sign}({})", g.expression())
            }
            32 => format!("array({})", g.query()),
            _ => format!("({}) collate \"C\"", g.expression()),
        })
    }

    /// The forms that have a grammar of their own. The first are in every program; the others are rare there, and here.
    fn special(&mut self) -> String {
        let a = self.expression();
        let b = self.expression();
        let t = self.type_name();
        let form = if self.random.once_in(40) {
            18 + self.random.below(16)
        } else {
            self.random.below(18)
        };
        match form {
            0 => format!("extract(year from {a})"),
            1 => format!("position(({a}) in ({b}))"),
            2 => format!("substring({a} from {b} for 3)"),
            3 => format!("trim(both 'x' from {a})"),
            4 => format!("overlay({a} placing {b} from 1 for 2)"),
            5 => format!("nullif({a}, {b})"),
            6 => format!("greatest({a}, {b})"),
            7 => format!("least({a}, {b})"),
            8 => format!("({a}) at time zone ({b})"),
            9 => format!("(a, b) = ({a}, {b})"),
            10 => format!("({a}) like ({b}) escape 'x'"),
            11 => format!("extract(epoch from {a})"),
            12 => format!("trim({a})"),
            13 => format!("substring({a} from {b})"),
            14 => format!("ltrim({a}, {b})"),
            15 => format!("ceil({a}) + floor({b})"),
            16 => format!("row({a}, {b}) < row({b}, {a})"),
            17 => format!("({a}, {b}) in (select {b}, {a})"),
            18 => format!("xmlforest({a} as b)"),
            19 => format!("normalize({a}, NFC)"),
            20 => format!("({a}, {b}) overlaps ({b}, {a})"),
            21 => format!("({a}) between symmetric ({b}) and ({a})"),
            22 => format!("collation for ({a})"),
            23 => format!("grouping({a}, {b})"),
            24 => format!("({a})[1:({b})]"),
            25 => format!("(({a}).f)"),
            26 => format!("substring({a} similar {b} escape '#')"),
            27 => format!("xmlconcat({a}, {b})"),
            28 => format!("json_object('a': {a})"),
            29 => format!("json_array({a}, {b})"),
            30 => format!("json_value({a}, '$.x' returning {t})"),
            31 => format!("xmlparse(document {a})"),
            32 => format!("xmlserialize(content {a} as {t})"),
            _ => format!("xmlelement(name foo, {a})"),
        }
    }

    fn primary(&mut self) -> String {
        if self.tainted() {
            return self
                .random
                .pick(&[
                    "mytype '1'",
                    "public.mytype 'x'",
                    "nextval('s')",
                    "f(1)",
                    "u&\"nextv\\0061l\"('s')",
                ])
                .to_owned();
        }
        self.random
            .pick(&[
                "1",
                "42",
                "1.5e10",
                "'x'",
                "'it''s'",
                "E'a\\nb'",
                "$$x$$",
                "$1",
                "$2",
                "a",
                "t.a",
                "\"Order\"",
                "null",
                "true",
                "false",
                "current_timestamp",
                "current_date",
                "localtime",
                "current_user",
                "date '2020-01-01'",
                "b'101'",
                "interval '1 day'",
                "timestamp '2020-01-01 00:00'",
                "x'1F'",
                "s.t.a",
                "0.5",
                ".5",
                "interval '1' year",
                "float8 '1'",
                "json '{}'",
                "current_timestamp(3)",
                "current_schema",
                "user",
                "1_000",
                "a.b",
                "session_user",
                "n'x'",
                "a::text",
                "b::int",
                "c::jsonb",
                "t",
                "'{1}'::int[]",
            ])
            .to_owned()
    }

    fn dml(&mut self) -> String {
        let value = self.expression();
        match self.random.below(8) {
            0 => format!("insert into t values ({value}) returning *"),
            1 => format!("insert into t select {value} on conflict do nothing"),
            2 => format!(
                "update t set a = {value} where {} returning a",
                self.expression()
            ),
            3 => format!("delete from only t using u where {value}"),
            4 => format!("insert into t (a) {} returning a", self.query()),
            5 => format!("merge into t using u on {value} when matched then do nothing"),
            6 => format!(
                "with i as (delete from u returning *) update t set (a, b) = ({})",
                self.query()
            ),
            _ => "insert into t default values".to_owned(),
        }
    }

    fn utility(&mut self) -> String {
        let query = self.query();
        match self.random.below(16) {
            0 => format!("explain {query}"),
            1 => format!("explain analyze {query}"),
            2 => format!("explain (analyze, verbose) {}", self.dml()),
            3 => format!("copy ({query}) to stdout"),
            4 => format!("copy ({}) to stdout", self.dml()),
            5 => format!("copy ({query}) to program 'x'"),
            6 => format!("create table x as {query}"),
            7 => format!("declare c cursor for {query}"),
            8 => format!("declare c cursor with hold for {query}"),
            9 => format!("prepare p as {query}"),
            10 => format!("create view v as {query}"),
            11 => format!("explain (analyze off) {}", self.dml()),
            12 => format!("execute p({})", self.list(2)),
            13 => format!("call p({})", self.list(2)),
            14 => format!("create materialized view v as {query}"),
            _ => self
                .random
                .pick(&[
                    "lock table t",
                    "notify c",
                    "commit prepared 'x'",
                    "prepare transaction 'x'",
                    "explain execute p",
                    "show all",
                    "vacuum",
                    "set x = 1",
                    "refresh materialized view v",
                    "checkpoint",
                    "do 'x'",
                ])
                .to_owned(),
        }
    }
}

/// A rare form is chosen once in so many times.
const RARE: usize = 150;

/// Functions that are not on the list, and names that only look as if they were.
const BAD_CALLS: &[&str] = &[
    "nextval",
    "f",
    "public.lower",
    "\"Lower\"",
    "setval",
    "pg_notify",
    "pg_advisory_lock",
    "set_config",
    "txid_current",
    "dblink",
    "lo_create",
    "\"nextval\"",
    "pg_catalog.nextval",
    "pg_catalog.\"nextval\"",
    "db.public.lower",
    "\"pg_catalog\".setval",
    "u&\"nextv\\0061l\"",
    "pg_is_in_recovery",
    "mytype",
    "public.now",
    "query_to_xml",
    "isnull",
    "ifnull",
    "string_to_date",
    "top",
    "convert_tz",
    "pg_sleep_until_",
    "lower_",
    "\"lower \"",
];

/// Names in the list of functions that the grammar does not take as such.
const KEYWORDS: &[&str] = &[
    "bit",
    "char",
    "interval",
    "time",
    "timestamp",
    "numeric",
    "float4",
    "int4",
    "overlay",
    "position",
    "substring",
    "normalize",
    "extract",
    "trim",
    "nullif",
    "coalesce",
    "greatest",
    "least",
    "xmlexists",
    "overlaps",
    "like",
    "notlike",
    "grouping",
    "row",
    "array",
    "exists",
    "current_schema",
    "current_user",
    "session_user",
    "values",
    "is_normalized",
    "json_object",
    "json_array",
    "xmlconcat",
    "user",
    "varchar",
    "dec",
    "decimal",
    "int",
    "smallint",
    "bigint",
    "real",
    "float",
    "boolean",
    "character",
    "nchar",
    "national",
    "setof",
    "out",
    "inout",
    "precision",
    "none",
    "treat",
    "merge_action",
    "json_scalar",
    "json_serialize",
    "json",
    "json_query",
    "json_value",
    "json_exists",
    "json_table",
    "json_arrayagg",
    "json_objectagg",
    "xmlagg_",
    "xmlattributes",
    "xmlelement",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
    "any",
    "some",
    "all",
    "current_catalog",
    "current_role",
    "system_user",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_makes_the_same_statements() {
        let make = |seed| {
            let mut generator = Generator::new(seed);
            (0..50).map(|_| generator.statement()).collect::<Vec<_>>()
        };
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }
}
