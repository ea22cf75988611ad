//! Constructs of PostgreSQL that the parser does not know, put into words that it does.
//!
//! What is written is never sent anywhere: it only has to have the same class. So every function, type, operator,
//! relation and sub-query of the text must stand in what is made of it; what is left out names nothing that is looked at.
//! Each rule rests on a word that PostgreSQL reserves, or on a sequence that no other statement of PostgreSQL's has. A
//! text that PostgreSQL refuses may become anything. PostgreSQL manual, "SQL Key Words", sql-keywords-appendix.html.

use std::collections::HashMap;

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};

use super::types;

/// Rewrites the tokens of a text where a rule applies. It may be one statement, `alone`, or several.
pub(super) fn rewrite(tokens: Vec<TokenWithSpan>, alone: bool) -> Vec<TokenWithSpan> {
    if !may_apply(&tokens) {
        return tokens;
    }
    let is_space = |token: &TokenWithSpan| matches!(token.token, Token::Whitespace(_));
    let words: Vec<usize> = (0..tokens.len())
        .filter(|at| !is_space(&tokens[*at]))
        .collect();
    let mut rewriter = Rewriter {
        to: Vec::with_capacity(tokens.len()),
        from: tokens,
        words,
        at: 0,
        subscripts: Vec::new(),
        edits: HashMap::new(),
        alone,
    };
    // White space stays where it is: it joins strings, and parts `@` from what follows.
    let mut copied = 0;
    while let Some(&word) = rewriter.words.get(rewriter.at) {
        rewriter.to.extend_from_slice(&rewriter.from[copied..word]);
        let taken = rewriter.rule();
        if taken == 0 {
            rewriter.to.push(rewriter.from[word].clone());
        }
        rewriter.at += taken.max(1);
        copied = rewriter.words[rewriter.at - 1] + 1;
    }
    rewriter.to
}

/// Whether some rule may apply: most texts have none of these.
fn may_apply(tokens: &[TokenWithSpan]) -> bool {
    let mut before = &Token::EOF;
    for TokenWithSpan { token, .. } in tokens {
        let applies = match (before, token) {
            (_, Token::Whitespace(_)) => continue,
            (_, Token::Word(word)) => {
                word.quote_style.is_none()
                    && matches!(
                        word.keyword,
                        Keyword::TABLE
                            | Keyword::VARIADIC
                            | Keyword::OPERATOR
                            | Keyword::ROWS
                            | Keyword::COLLATE
                            | Keyword::SEARCH
                            | Keyword::CYCLE
                            | Keyword::USING
                            | Keyword::DISTINCT
                            | Keyword::EXCLUDE
                            | Keyword::ONLY
                            | Keyword::FETCH
                            | Keyword::SYMMETRIC
                            | Keyword::ASYMMETRIC
                            | Keyword::ROLLUP
                            | Keyword::CUBE
                            | Keyword::DECLARE
                            | Keyword::WINDOW
                            | Keyword::FOR
                    )
                    || is_xml(word)
                    || (word.keyword == Keyword::FROM && may_begin_trim(before))
                    || is_document(before, word)
                    || is_array_suffix(before, word)
                    || (is_quantifier(word) && takes_quantifier(before))
                    || (word.keyword == Keyword::VALUES && *before == Token::LParen)
            }
            (Token::Word(word), Token::Mul) => is_plain(word),
            (Token::Word(_), Token::SingleQuotedString(_) | Token::Assignment)
            | (Token::RParen, Token::Period) => true,
            (before, Token::LBracket) => is_subscripted(before),
            _ => false,
        };
        if applies {
            return true;
        }
        before = token;
    }
    false
}

struct Rewriter {
    from: Vec<TokenWithSpan>,
    /// Where the tokens that are not white space are.
    words: Vec<usize>,
    to: Vec<TokenWithSpan>,
    /// The place in `words`.
    at: usize,
    /// Where subscripts end that have been put into parentheses, the innermost last.
    subscripts: Vec<usize>,
    /// Tokens further on that are to be others, by the place in `words`: how many, and by what.
    edits: HashMap<usize, (usize, Option<Token>)>,
    /// There is one statement.
    alone: bool,
}

impl Rewriter {
    /// Applies the rule that begins here, if one does, and tells how many tokens it has taken.
    fn rule(&mut self) -> usize {
        if let Some((length, token)) = self.edits.remove(&self.at) {
            self.write(token);
            return length;
        }
        let Some(token) = self.token(0) else {
            return 0;
        };
        match token {
            Token::Period => self.all_fields(),
            Token::Assignment => self.named_argument(),
            Token::Mul => self.with_children(),
            Token::LBracket => self.subscript(),
            Token::RBracket => self.end_of_subscript(),
            Token::Word(word) if word.quote_style.is_none() && !self.is_name() => {
                match word.keyword {
                    Keyword::TABLE => self.table(),
                    Keyword::VARIADIC => self.variadic(),
                    Keyword::OPERATOR => self.operator(),
                    Keyword::FETCH => self.fetch(),
                    Keyword::ROW => self.fetched_rows(),
                    Keyword::ROWS if self.before(1) == Some(&Token::RParen) => self.fetched_rows(),
                    Keyword::ROWS => self.rows_from(),
                    Keyword::COLLATE => self.collate(),
                    Keyword::SEARCH => self.search(),
                    Keyword::CYCLE => self.cycle(),
                    Keyword::USING => self.using(),
                    Keyword::DISTINCT => self.group_by_distinct(),
                    Keyword::EXCLUDE => self.exclude(),
                    Keyword::ONLY => self.only(),
                    Keyword::ARRAY => self.array_suffix(),
                    Keyword::ANY | Keyword::ALL | Keyword::SOME => self.quantifier(),
                    Keyword::ROLLUP | Keyword::CUBE => self.grouped(),
                    Keyword::VALUES => self.values(),
                    Keyword::SYMMETRIC | Keyword::ASYMMETRIC => self.symmetric(),
                    Keyword::WINDOW => self.window(),
                    Keyword::FROM => self.trim_from(),
                    Keyword::FOR => self.for_read_only(),
                    Keyword::AS => self.join_alias(),
                    _ if self.is_word(0, &["document"]) => self.document(),
                    _ if is_xml(word) => self.xml(),
                    Keyword::DECLARE => self.cursor(),
                    _ => self.constant(),
                }
            }
            _ => 0,
        }
    }

    /// The token so many places further on.
    fn token(&self, ahead: usize) -> Option<&Token> {
        let at = *self.words.get(self.at + ahead)?;
        Some(&self.from[at].token)
    }

    fn before(&self, back: usize) -> Option<&Token> {
        let at = self.words[self.at.checked_sub(back)?];
        Some(&self.from[at].token)
    }

    fn is_keyword(&self, ahead: usize, keyword: Keyword) -> bool {
        self.token(ahead).is_some_and(|token| is(token, keyword))
    }

    fn after_keyword(&self, keywords: &[Keyword]) -> bool {
        self.before(1)
            .is_some_and(|token| keywords.iter().any(|keyword| is(token, *keyword)))
    }

    /// Where a reserved word is a name nevertheless: behind AS, and behind a period.
    fn is_name(&self) -> bool {
        self.before(1) == Some(&Token::Period) || self.after_keyword(&[Keyword::AS])
    }

    fn write(&mut self, tokens: impl IntoIterator<Item = Token>) {
        self.to
            .extend(tokens.into_iter().map(|token| TokenWithSpan {
                token,
                span: Span::empty(),
            }));
    }

    /// `TABLE t` is `SELECT * FROM t`. In SELECT INTO the word means something else.
    fn table(&mut self) -> usize {
        if self.after_keyword(&[
            Keyword::INTO,
            Keyword::TEMP,
            Keyword::TEMPORARY,
            Keyword::UNLOGGED,
        ]) || self.token(1) == Some(&Token::LParen)
        {
            return 0;
        }
        self.write([
            word("SELECT", Keyword::SELECT),
            Token::Mul,
            word("FROM", Keyword::FROM),
        ]);
        1
    }

    /// `DECLARE c CURSOR FOR` before a query: the cursor runs it, and ends with its transaction. One that outlives it is no
    /// affair of the parser's.
    fn cursor(&self) -> usize {
        if self.at > 0 || !self.alone || !matches!(self.token(1), Some(Token::Word(_))) {
            return 0;
        }
        let options = ["no", "scroll", "binary", "insensitive", "asensitive"];
        let mut end = 2;
        while self.is_word(end, &options) {
            end += 1;
        }
        if !self.is_word(end, &["cursor"]) {
            return 0;
        }
        end += 1;
        if self.is_word(end, &["without"]) && self.is_word(end + 1, &["hold"]) {
            end += 2;
        }
        if self.is_keyword(end, Keyword::FOR) {
            end + 1
        } else {
            0
        }
    }

    /// `ONLY t` and `ONLY (t)` are less of `t`.
    fn only(&mut self) -> usize {
        let begins = matches!(self.before(1), Some(Token::Comma | Token::LParen))
            || self.after_keyword(&[Keyword::FROM, Keyword::JOIN, Keyword::TABLE]);
        if !begins {
            return 0;
        }
        if self.is_plain_name(1) {
            return 1;
        }
        let mut end = 2;
        while self.is_plain_name(end) && self.token(end + 1) == Some(&Token::Period) {
            end += 2;
        }
        if self.token(1) != Some(&Token::LParen)
            || !self.is_plain_name(end)
            || self.token(end + 1) != Some(&Token::RParen)
        {
            return 0;
        }
        let name: Vec<Token> = (2..=end)
            .filter_map(|ahead| self.token(ahead).cloned())
            .collect();
        self.write(name);
        end + 2
    }

    /// `FROM t*` is `FROM t`. Behind a factor, and before none, `*` is nothing else.
    fn with_children(&self) -> usize {
        let behind_name = matches!(self.before(1), Some(Token::Word(word)) if is_plain(word));
        let before_none = match self.token(1) {
            None | Some(Token::Comma | Token::RParen | Token::SemiColon) => true,
            Some(Token::Word(word)) => {
                word.quote_style.is_none()
                    && matches!(
                        word.keyword,
                        Keyword::AS
                            | Keyword::WHERE
                            | Keyword::JOIN
                            | Keyword::INNER
                            | Keyword::CROSS
                            | Keyword::NATURAL
                            | Keyword::ON
                            | Keyword::GROUP
                            | Keyword::ORDER
                            | Keyword::LIMIT
                            | Keyword::UNION
                    )
            }
            _ => false,
        };
        usize::from(behind_name && before_none)
    }

    /// `f(VARIADIC a)` calls what `f(a)` calls, or an overload.
    fn variadic(&self) -> usize {
        usize::from(matches!(self.before(1), Some(Token::LParen | Token::Comma)))
    }

    /// `f(a := 1)` is an older way to write `f(a => 1)`.
    fn named_argument(&mut self) -> usize {
        if !matches!(self.before(1), Some(Token::Word(_)))
            || !matches!(self.before(2), Some(Token::LParen | Token::Comma))
        {
            return 0;
        }
        self.write([Token::RArrow]);
        1
    }

    /// `a OPERATOR(pg_catalog.+) b` is `a + b`. Not for `*`, which may be all arguments of a function of that name.
    fn operator(&mut self) -> usize {
        let Some((operator, length)) = self.qualified_operator() else {
            return 0;
        };
        self.write([operator]);
        length
    }

    fn qualified_operator(&self) -> Option<(Token, usize)> {
        if self.token(1) != Some(&Token::LParen) {
            return None;
        }
        let schema = match (self.token(2)?, self.token(3)?) {
            (Token::Word(schema), Token::Period) if folded(schema) == "pg_catalog" => 2,
            _ => 0,
        };
        let operator = self.token(2 + schema)?;
        if !is_operator(operator) || self.token(3 + schema) != Some(&Token::RParen) {
            return None;
        }
        Some((operator.clone(), 4 + schema))
    }

    /// `ROWS FROM (f(), g())` becomes a sub-query that calls them.
    fn rows_from(&mut self) -> usize {
        let begins = |token: Option<&Token>| {
            token.is_some_and(|token| {
                let keywords = [Keyword::FROM, Keyword::JOIN, Keyword::LATERAL];
                *token == Token::Comma || keywords.iter().any(|keyword| is(token, *keyword))
            })
        };
        let joined = self.before(1) == Some(&Token::LParen) && begins(self.before(2));
        if !(begins(self.before(1)) || joined)
            || !self.is_keyword(1, Keyword::FROM)
            || self.token(2) != Some(&Token::LParen)
            || !matches!(self.token(3), Some(Token::Word(_)))
        {
            return 0;
        }
        self.write([Token::LParen, word("SELECT", Keyword::SELECT)]);
        3
    }

    /// `FETCH FIRST (a) ROWS ONLY` is `LIMIT (a)`: the parser takes nothing but a number there. What stands in parentheses
    /// stays, and its end is the other rule's.
    fn fetch(&mut self) -> usize {
        let begins = self.is_keyword(1, Keyword::FIRST) || self.is_keyword(1, Keyword::NEXT);
        if !begins || self.token(2) != Some(&Token::LParen) {
            return 0;
        }
        self.write([word("LIMIT", Keyword::LIMIT)]);
        2
    }

    /// `ROWS ONLY` and `ROWS WITH TIES` behind a parenthesis end nothing but FETCH.
    fn fetched_rows(&self) -> usize {
        if self.before(1) != Some(&Token::RParen) {
            0
        } else if self.is_keyword(1, Keyword::ONLY) {
            2
        } else if self.is_keyword(1, Keyword::WITH) && self.is_keyword(2, Keyword::TIES) {
            3
        } else {
            0
        }
    }

    /// A collation is no function, and all that differs is the order of strings.
    fn collate(&self) -> usize {
        let is_name = |token: Option<&Token>| matches!(token, Some(Token::Word(word)) if word.quote_style.is_some() || word.keyword == Keyword::NoKeyword);
        if self.before(1).is_none() || !is_name(self.token(1)) {
            return 0;
        }
        if self.token(2) != Some(&Token::Period) {
            return 2;
        }
        if self.is_plain_name(3) { 4 } else { 0 }
    }

    /// `SEARCH DEPTH FIRST BY a, b SET c`, behind a query of WITH.
    fn search(&self) -> usize {
        if self.before(1) != Some(&Token::RParen)
            || !self.is_word(1, &["depth", "breadth"])
            || !self.is_keyword(2, Keyword::FIRST)
            || !self.is_keyword(3, Keyword::BY)
        {
            return 0;
        }
        let Some(end) = self.names(4) else {
            return 0;
        };
        if self.is_keyword(end, Keyword::SET) && self.is_plain_name(end + 1) {
            end + 2
        } else {
            0
        }
    }

    /// `CYCLE a, b SET c [TO d DEFAULT e] USING f`, behind a query of WITH or its SEARCH.
    fn cycle(&self) -> usize {
        let behind_query = self.written() == Some(&Token::RParen);
        let Some(mut end) = self.names(1).filter(|_| behind_query) else {
            return 0;
        };
        if !self.is_keyword(end, Keyword::SET) || !self.is_plain_name(end + 1) {
            return 0;
        }
        end += 2;
        if self.is_keyword(end, Keyword::TO) {
            if !self.is_literal(end + 1)
                || !self.is_keyword(end + 2, Keyword::DEFAULT)
                || !self.is_literal(end + 3)
            {
                return 0;
            }
            end += 4;
        }
        if self.is_keyword(end, Keyword::USING) && self.is_plain_name(end + 1) {
            end + 2
        } else {
            0
        }
    }

    /// Where a list of names that begins at `ahead` has ended.
    fn names(&self, mut ahead: usize) -> Option<usize> {
        while self.is_plain_name(ahead) {
            if self.token(ahead + 1) != Some(&Token::Comma) {
                return Some(ahead + 1);
            }
            ahead += 2;
        }
        None
    }

    fn is_plain_name(&self, ahead: usize) -> bool {
        matches!(self.token(ahead), Some(Token::Word(word)) if is_plain(word))
    }

    fn is_word(&self, ahead: usize, words: &[&str]) -> bool {
        matches!(self.token(ahead), Some(Token::Word(word))
            if word.quote_style.is_none() && words.iter().any(|other| word.value.eq_ignore_ascii_case(other)))
    }

    fn is_literal(&self, ahead: usize) -> bool {
        matches!(
            self.token(ahead),
            Some(Token::SingleQuotedString(_) | Token::Number(..))
        ) || self.is_keyword(ahead, Keyword::TRUE)
            || self.is_keyword(ahead, Keyword::FALSE)
    }

    /// `ORDER BY a USING <` becomes `ORDER BY a < NULL`, so that the operator is seen. The parser knows the clause, and
    /// shows its operator to nobody: each operator that is no plain one becomes one that nobody knows.
    fn using(&mut self) -> usize {
        let unknown = |text: String| Token::CustomBinaryOperator(text);
        let (operator, length) = match self.token(1) {
            Some(Token::LParen) | None => return 0,
            Some(token) if is(token, Keyword::OPERATOR) => {
                self.at += 1;
                let known = self.qualified_operator();
                self.at -= 1;
                let (operator, length) = known.unwrap_or_else(|| self.unknown_operator());
                (operator, length + 1)
            }
            // `CYCLE … USING name`, and what is no operator.
            Some(Token::Word(_)) => return 0,
            Some(token) if is_operator(token) => (token.clone(), 2),
            Some(token) => (unknown(token.to_string()), 2),
        };
        self.write([operator, word("NULL", Keyword::NULL)]);
        length
    }

    /// `OPERATOR(schema.op)` behind USING, by its text.
    fn unknown_operator(&self) -> (Token, usize) {
        let mut text = String::new();
        let mut length = 1;
        while let Some(token) = self.token(1 + length) {
            length += 1;
            match token {
                Token::LParen => {}
                Token::RParen => break,
                token => text.push_str(&token.to_string()),
            }
        }
        (Token::CustomBinaryOperator(text), length)
    }

    /// `(f(a)).*` names nothing that `(f(a))` does not.
    fn all_fields(&self) -> usize {
        let all = self.before(1) == Some(&Token::RParen) && self.token(1) == Some(&Token::Mul);
        if all { 2 } else { 0 }
    }

    /// `GROUP BY DISTINCT` leaves out grouping sets that are there twice.
    fn group_by_distinct(&self) -> usize {
        let group_by = self.after_keyword(&[Keyword::BY])
            && self
                .before(2)
                .is_some_and(|token| is(token, Keyword::GROUP));
        usize::from(group_by)
    }

    /// The end of a window's frame.
    fn exclude(&self) -> usize {
        let length = if self.is_word(1, &["ties", "group"]) {
            2
        } else if self.is_word(1, &["current"]) && self.is_word(2, &["row"])
            || self.is_word(1, &["no"]) && self.is_word(2, &["others"])
        {
            3
        } else {
            return 0;
        };
        let behind_bound = self.after_keyword(&[Keyword::ROW])
            || self.before(1).is_some_and(
                |token| matches!(token, Token::Word(word) if matches!(word.value.to_ascii_lowercase().as_str(), "preceding" | "following")),
            );
        if behind_bound && self.token(length) == Some(&Token::RParen) {
            length
        } else {
            0
        }
    }

    /// `int ARRAY` is `int[]`, whose elements are what is looked at. Behind a name or a bound the word is nothing else.
    fn array_suffix(&self) -> usize {
        let constructs = matches!(self.token(1), Some(Token::LBracket | Token::LParen));
        let behind_type = matches!(self.before(1), Some(Token::Word(_) | Token::RParen));
        usize::from(behind_type && !constructs)
    }

    /// `a @> ANY (b)` is made of what `a @> (b)` is made of. The parser knows comparisons only.
    fn quantifier(&self) -> usize {
        let applies = self.written().is_some_and(takes_quantifier);
        usize::from(applies && self.token(1) == Some(&Token::LParen))
    }

    /// `GROUP BY ROLLUP (a, b)` and CUBE name what `GROUP BY ROW (a, b)` names. The parser takes what begins with a parenthesis
    /// there for a list. Anywhere else it may be a function's name, as `cube` is in an extension.
    fn grouped(&mut self) -> usize {
        let by = if self.after_keyword(&[Keyword::DISTINCT, Keyword::ALL]) {
            2
        } else {
            1
        };
        let is_before = |back, keyword| self.before(back).is_some_and(|token| is(token, keyword));
        let groups = is_before(by, Keyword::BY) && is_before(by + 1, Keyword::GROUP);
        if !groups || self.token(1) != Some(&Token::LParen) {
            return 0;
        }
        self.write([word("ROW", Keyword::ROW)]);
        1
    }

    /// `(VALUES (a), (b))` names what `(SELECT (a), (b))` names. In an expression the parser takes it for a call.
    fn values(&mut self) -> usize {
        let begins = self.before(1) == Some(&Token::LParen);
        if !begins || self.token(1) != Some(&Token::LParen) {
            return 0;
        }
        self.write([word("SELECT", Keyword::SELECT)]);
        1
    }

    /// `BETWEEN SYMMETRIC a AND b` compares as BETWEEN does, and also the other way round.
    fn symmetric(&self) -> usize {
        usize::from(self.after_keyword(&[Keyword::BETWEEN]))
    }

    /// `a[b & c]` becomes `a[(b & c)]`: the parser takes a slice's bound for what stands there.
    fn subscript(&mut self) -> usize {
        let (mut depth, mut end) = (0_usize, 1);
        loop {
            match self.token(end) {
                Some(Token::LParen | Token::LBracket) => depth += 1,
                Some(Token::RBracket) if depth == 0 => break,
                Some(Token::RParen | Token::RBracket) if depth > 0 => depth -= 1,
                Some(Token::Comma | Token::Colon) if depth == 0 => return 0,
                None | Some(Token::RParen) => return 0,
                Some(_) => {}
            }
            end += 1;
            if end > MAX_SUBSCRIPT {
                return 0;
            }
        }
        // A number or a name is none the worse, and `int[3]` is a type.
        if end <= 2 || !self.before(1).is_some_and(is_subscripted) {
            return 0;
        }
        self.subscripts.push(self.at + end);
        self.write([Token::LBracket, Token::LParen]);
        1
    }

    fn end_of_subscript(&mut self) -> usize {
        if self.subscripts.last() != Some(&self.at) {
            return 0;
        }
        self.subscripts.pop();
        self.write([Token::RParen, Token::RBracket]);
        1
    }

    /// `a IS DOCUMENT` asks no more of `a` than `a IS NULL`.
    fn document(&mut self) -> usize {
        let behind_is = self.after_keyword(&[Keyword::IS])
            || self.after_keyword(&[Keyword::NOT])
                && self.before(2).is_some_and(|token| is(token, Keyword::IS));
        if !behind_is {
            return 0;
        }
        self.write([word("NULL", Keyword::NULL)]);
        1
    }

    /// `SELECT f() OVER w WINDOW w AS (…)`: without FROM the parser takes WINDOW for the name of a column, unless that has one.
    fn window(&mut self) -> usize {
        let defines = self.is_plain_name(1)
            && self.is_keyword(2, Keyword::AS)
            && self.token(3) == Some(&Token::LParen);
        let is_named = self.before(2).is_some_and(|token| is(token, Keyword::AS));
        if !defines || is_named || !self.is_in_select_list() {
            return 0;
        }
        self.write([
            word("AS", Keyword::AS),
            word("x", Keyword::NoKeyword),
            word("WINDOW", Keyword::WINDOW),
        ]);
        1
    }

    /// Whether what stands before belongs to the columns of a SELECT, as far as can be seen from here.
    fn is_in_select_list(&self) -> bool {
        let mut depth = 0_usize;
        for back in 1..=MAX_ARGUMENTS {
            match self.before(back) {
                None => return false,
                Some(Token::RParen | Token::RBracket) => depth += 1,
                Some(Token::LParen | Token::LBracket) if depth == 0 => return false,
                Some(Token::LParen | Token::LBracket) => depth -= 1,
                Some(Token::Word(word)) if depth == 0 && word.quote_style.is_none() => {
                    match word.keyword {
                        Keyword::SELECT => return true,
                        Keyword::FROM | Keyword::WHERE | Keyword::GROUP | Keyword::HAVING => {
                            return false;
                        }
                        _ => {}
                    }
                }
                Some(_) => {}
            }
        }
        false
    }

    /// `trim(BOTH FROM a)` and `trim(FROM a)` trim what `trim(a)` does.
    fn trim_from(&self) -> usize {
        let side = usize::from(self.after_keyword(&TRIM_SIDES));
        let begins = self.before(1 + side) == Some(&Token::LParen)
            && self
                .before(2 + side)
                .is_some_and(|token| is(token, Keyword::TRIM));
        usize::from(begins)
    }

    /// `FOR READ ONLY` locks nothing.
    fn for_read_only(&self) -> usize {
        if self.is_word(1, &["read"]) && self.is_word(2, &["only"]) {
            3
        } else {
            0
        }
    }

    /// `JOIN u USING (a, b) AS j` gives a name to what is there without it.
    fn join_alias(&self) -> usize {
        if self.before(1) != Some(&Token::RParen) || !self.is_plain_name(1) {
            return 0;
        }
        for back in 2..=MAX_SUBSCRIPT {
            match self.before(back) {
                Some(Token::Word(_) | Token::Comma) => {}
                Some(Token::LParen) => {
                    let using = self.before(back + 1);
                    return if using.is_some_and(|token| is(token, Keyword::USING)) {
                        2
                    } else {
                        0
                    };
                }
                _ => return 0,
            }
        }
        0
    }

    /// The functions over XML that have a grammar of their own become rows of what they are made of, and XMLSERIALIZE
    /// the cast that it is. Without quotes these words name nothing else before a parenthesis.
    fn xml(&mut self) -> usize {
        let Some(end) = self.end_of_arguments() else {
            return 0;
        };
        let mut call = word("ROW", Keyword::ROW);
        let mut taken = 2;
        let is_content = self.is_word(2, &["document", "content"]);
        let mut first = None;
        if self.is_word(0, &["xmlelement", "xmlpi"]) {
            let named = self.is_word(2, &["name"])
                && matches!(self.token(3), Some(Token::Word(_)))
                && matches!(self.token(4), Some(Token::Comma | Token::RParen));
            if !named {
                return 0;
            }
            taken = 4;
            first = Some(word("NULL", Keyword::NULL));
        } else if self.is_word(0, &["xmlparse"]) && is_content {
            taken = 3;
            if self.is_word(end - 2, &["preserve", "strip"])
                && self.is_word(end - 1, &["whitespace"])
            {
                self.edit(end - 2, 2, None);
            }
        } else if self.is_word(0, &["xmlserialize"]) && is_content {
            taken = 3;
            call = word("CAST", Keyword::CAST);
            if self.is_word(end - 1, &["indent"]) {
                let length = 1 + usize::from(self.is_word(end - 2, &["no"]));
                self.edit(end - length, length, None);
            }
        } else if self.is_word(0, &["xmlroot"]) {
            self.root(end);
        } else if self.is_word(0, &["xmlexists"]) {
            self.passing(end);
        } else if !self.is_word(0, &["xmlattributes"]) {
            return 0;
        }
        self.write([call, Token::LParen]);
        self.write(first);
        taken
    }

    /// `XMLROOT(a, VERSION b, STANDALONE YES)` is made of `a` and `b`.
    fn root(&mut self, end: usize) {
        for at in self.top_level(end) {
            if self.token(at - 1) != Some(&Token::Comma) {
                continue;
            }
            let no_value = self.is_word(at + 1, &["no"]) && self.is_word(at + 2, &["value"]);
            let null = Some(word("NULL", Keyword::NULL));
            if self.is_word(at, &["version", "standalone"]) && no_value {
                self.edit(at, 3, null);
            } else if self.is_word(at, &["standalone"]) && self.is_word(at + 1, &["yes", "no"]) {
                self.edit(at, 2, null);
            } else if self.is_word(at, &["version"]) {
                self.edit(at, 1, None);
            }
        }
    }

    /// `XMLEXISTS(a PASSING BY VALUE b BY REF)` is made of `a` and `b`.
    fn passing(&mut self, end: usize) {
        let by = |rewriter: &Self, at| {
            rewriter.is_word(at, &["by"]) && rewriter.is_word(at + 1, &["ref", "value"])
        };
        for at in self.top_level(end) {
            if self.is_word(at, &["passing"]) {
                let length = if by(self, at + 1) { 3 } else { 1 };
                self.edit(at, length, Some(Token::Comma));
            }
        }
        if by(self, end - 2) && !self.is_word(end - 3, &["passing"]) {
            self.edit(end - 2, 2, None);
        }
    }

    /// What stands further on becomes something else when it is reached.
    fn edit(&mut self, ahead: usize, length: usize, token: Option<Token>) {
        self.edits.insert(self.at + ahead, (length, token));
    }

    /// Where the parenthesis behind this word is closed, if that is near, and something stands before it.
    fn end_of_arguments(&self) -> Option<usize> {
        if self.token(1) != Some(&Token::LParen) {
            return None;
        }
        let mut depth = 0_usize;
        for ahead in 2..MAX_ARGUMENTS {
            match self.token(ahead)? {
                Token::LParen => depth += 1,
                Token::RParen if depth == 0 => return (ahead > 3).then_some(ahead),
                Token::RParen => depth -= 1,
                _ => {}
            }
        }
        None
    }

    /// The places of words among the arguments up to `end` that stand in no further parentheses.
    fn top_level(&self, end: usize) -> Vec<usize> {
        let mut depth = 0_usize;
        let mut places = Vec::new();
        for ahead in 2..end {
            match self.token(ahead) {
                Some(Token::LParen) => depth += 1,
                Some(Token::RParen) => depth = depth.saturating_sub(1),
                Some(Token::Word(_)) if depth == 0 => places.push(ahead),
                _ => {}
            }
        }
        places
    }

    /// The last token that has been written.
    fn written(&self) -> Option<&Token> {
        let mut written = self.to.iter().rev().map(|token| &token.token);
        written.find(|token| !matches!(token, Token::Whitespace(_)))
    }

    /// Whether an expression may begin here. `PATH 'x'` behind a column's type in XMLTABLE is no constant.
    fn begins_expression(&self) -> bool {
        match self.before(1) {
            Some(Token::Word(_)) => self.after_keyword(&BEFORE_EXPRESSIONS),
            Some(Token::RParen | Token::RBracket) => false,
            _ => true,
        }
    }

    /// `float8 'x'` is `CAST('x' AS float8)`. The parser takes the word for a column.
    fn constant(&mut self) -> usize {
        let (Some(Token::Word(name)), Some(Token::SingleQuotedString(text))) =
            (self.token(0), self.token(1))
        else {
            return 0;
        };
        // These have more to them, and the parser knows them.
        if matches!(
            name.keyword,
            Keyword::INTERVAL | Keyword::DATE | Keyword::TIME | Keyword::TIMESTAMP
        ) || !types::is_built_in(&folded(name))
            || (name.keyword == Keyword::PATH && !self.begins_expression())
        {
            return 0;
        }
        let (name, text) = (name.clone(), text.clone());
        self.write([
            word("CAST", Keyword::CAST),
            Token::LParen,
            Token::SingleQuotedString(text),
            word("AS", Keyword::AS),
            Token::Word(name),
            Token::RParen,
        ]);
        2
    }
}

/// Most tokens that are looked through for the end of arguments, or the beginning of a SELECT.
const MAX_ARGUMENTS: usize = 256;

/// What `trim` may begin with.
const TRIM_SIDES: [Keyword; 3] = [Keyword::BOTH, Keyword::LEADING, Keyword::TRAILING];

fn may_begin_trim(before: &Token) -> bool {
    *before == Token::LParen || TRIM_SIDES.iter().any(|side| is(before, *side))
}

/// Functions with a grammar of their own.
fn is_xml(word: &Word) -> bool {
    let is = |name: &str| word.value.eq_ignore_ascii_case(name);
    word.quote_style.is_none()
        && word.value.len() > 4
        && word.value.as_bytes()[..3].eq_ignore_ascii_case(b"xml")
        && (is("xmlelement")
            || is("xmlattributes")
            || is("xmlpi")
            || is("xmlparse")
            || is("xmlserialize")
            || is("xmlroot")
            || is("xmlexists"))
}

/// Words before an expression, wherever else they stand.
const BEFORE_EXPRESSIONS: [Keyword; 14] = [
    Keyword::SELECT,
    Keyword::DISTINCT,
    Keyword::ALL,
    Keyword::WHERE,
    Keyword::ON,
    Keyword::AND,
    Keyword::OR,
    Keyword::NOT,
    Keyword::CASE,
    Keyword::WHEN,
    Keyword::THEN,
    Keyword::ELSE,
    Keyword::BY,
    Keyword::HAVING,
];

fn is(token: &Token, keyword: Keyword) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.keyword == keyword)
}

/// Whether a word may be the end of `IS [NOT] DOCUMENT`.
fn is_document(before: &Token, word: &Word) -> bool {
    word.value.eq_ignore_ascii_case("document")
        && (is(before, Keyword::IS) || is(before, Keyword::NOT))
}

/// Whether `[` behind it begins a subscript, and no array.
fn is_subscripted(before: &Token) -> bool {
    match before {
        Token::RParen | Token::RBracket => true,
        Token::Word(word) => is_plain(word),
        _ => false,
    }
}

/// Most tokens of a subscript. Each is looked through to its end, and one may stand in another.
const MAX_SUBSCRIPT: usize = 64;

/// Whether a word may end the name of a type.
fn is_array_suffix(before: &Token, word: &Word) -> bool {
    word.keyword == Keyword::ARRAY && matches!(before, Token::Word(_) | Token::RParen)
}

fn is_quantifier(word: &Word) -> bool {
    matches!(word.keyword, Keyword::ANY | Keyword::ALL | Keyword::SOME)
}

/// What stands before ANY, ALL and SOME, where the parser does not know it there: it knows comparisons.
fn takes_quantifier(before: &Token) -> bool {
    is(before, Keyword::LIKE)
        || is(before, Keyword::ILIKE)
        || is_operator(before) && !is_comparison(before)
}

fn is_comparison(operator: &Token) -> bool {
    matches!(
        operator,
        Token::Eq
            | Token::Neq
            | Token::Lt
            | Token::Gt
            | Token::LtEq
            | Token::GtEq
            | Token::Tilde
            | Token::TildeAsterisk
            | Token::ExclamationMarkTilde
            | Token::ExclamationMarkTildeAsterisk
            | Token::DoubleTilde
            | Token::DoubleTildeAsterisk
            | Token::ExclamationMarkDoubleTilde
            | Token::ExclamationMarkDoubleTildeAsterisk
    )
}

/// A word that is a name wherever it stands.
fn is_plain(word: &Word) -> bool {
    word.quote_style.is_some() || word.keyword == Keyword::NoKeyword
}

fn word(text: &str, keyword: Keyword) -> Token {
    Token::Word(Word {
        value: text.to_owned(),
        quote_style: None,
        keyword,
    })
}

fn folded(word: &Word) -> String {
    if word.quote_style.is_some() {
        word.value.clone()
    } else {
        word.value.to_ascii_lowercase()
    }
}

/// Operators that stand for nothing else, unlike `*`.
fn is_operator(token: &Token) -> bool {
    let is_other = matches!(
        token,
        Token::Plus
            | Token::Minus
            | Token::Div
            | Token::Mod
            | Token::StringConcat
            | Token::Ampersand
            | Token::Pipe
            | Token::Caret
            | Token::Sharp
            | Token::ShiftLeft
            | Token::ShiftRight
            | Token::Overlap
            | Token::AtArrow
            | Token::ArrowAt
            | Token::Arrow
            | Token::LongArrow
            | Token::HashArrow
            | Token::HashLongArrow
            | Token::CustomBinaryOperator(_)
    );
    is_other || is_comparison(token)
}

#[cfg(test)]
mod tests {
    use super::super::catalog::TABLES;
    use super::super::{Access, Classifier, Lexing};

    fn access(expected: Access, texts: &[&str]) {
        for text in texts {
            let said =
                Classifier::new(1 << 12).explain(text.as_bytes(), Lexing::default(), &TABLES);
            assert_eq!(said.class.access, expected, "{text}: {said:?}");
        }
    }

    #[test]
    fn what_the_parser_does_not_know_is_read_nevertheless() {
        access(
            Access::Read,
            &[
                "table t",
                "TABLE public.t ORDER BY a LIMIT 1",
                "with x as (select 1) table x",
                "select 1 union all table t",
                "select exists (table t), array(table t)",
                "select concat_ws(',', variadic array['a', 'b'])",
                "select 1 operator(pg_catalog.+) 2, 1 operator(=) 2",
                "select * from rows from (generate_series(1, 2), unnest(array[1])) as x",
                "select a collate \"C\", b collate pg_catalog.\"default\" from t order by a collate c",
                "select 'a'::text collate \"C\" < 'b'",
                "with recursive x as (select 1 as a union all select a + 1 from x) search depth first by a set o select * from x",
                "with recursive x as (select 1 as a) search breadth first by a, b set o cycle a, b set c using p select * from x",
                "with recursive x as (select 1 as a) cycle a set c to 'Y' default 'N' using p select * from x",
                "with recursive x as (select 1 as a) cycle a set c to true default false using p, y as (select 1) select * from x",
                "select * from t order by a using <, b using operator(pg_catalog.>) nulls last",
                "select (jsonb_each(a)).*, (t).* from t",
                "select a from t group by distinct rollup (a), cube (b)",
                "select sum(a) over (order by b rows between 1 preceding and current row exclude ties) from t",
                "select sum(a) over (order by b rows unbounded preceding exclude no others) from t",
                "select float8 '1.5', point '(1,2)' <-> point '(0,0)', json '{}'",
                "select make_interval(years := 1, months := 6)",
                "select a from t order by a fetch first (3) rows only",
                "select a from t offset (1) rows fetch next ($1::int) row only",
                "select a from t order by a fetch first (1 + $1) rows with ties",
                "select a from (select a from t fetch first ((select 2)) rows only) x",
                "select box '((1,1),(0,0))' # box '((2,2),(0,0))'",
                "select a::int array, b::numeric(10, 2) array, cast(c as text array) from t",
                "select * from unnest(a) as x (b int array, c text)",
                "select a from t where b @> any (array['{}'::jsonb]) or c && all (select d from u)",
                "select a from t where b operator(pg_catalog.@>) some ($1)",
                "select a from t where b between symmetric 1 and c and d not between asymmetric 2 and 1",
                "select a like all (array['x', 'y']), b not like all (select 'x'), c ilike any ($1) from t",
                "select a, sum(b) from t group by rollup ((a) + 1, (b, c))",
                "select a, sum(b) from t group by distinct cube ((a)::int, b), rollup (c)",
                "select (values (1)) + 1, a in (values (1), (2)) from t where b < (values (2) limit 1)",
                "select * from (values (1, 'a'), (2, 'b')) as v (a, b) join (values (1)) w (a) using (a)",
                "select * from (rows from (lower('a'), upper('b')) as x full join t using (a))",
                "select a[b & 1], (c)[d is null], e[(f[g + 1] - 1) % 2][h], a[1:2], array[array[1 + 1]] from t",
                "select a is document, (b)::xml is not document from t",
                "select xmlforest(a, lower(b) as c) from t",
                "select xmlelement(name a), xmlelement(name \"B c\", xmlattributes(a as b, lower(c)), 'd', xmlelement(name e)) from t",
                "select xmlpi(name php), xmlpi(name php, 'echo' || lower(a)) from t",
                "select xmlparse(document '<a/>'), xmlparse(content a::text preserve whitespace), xmlparse(content lower(a) strip whitespace) from t",
                "select xmlserialize(content a as text), xmlserialize(document a as varchar(10) no indent), xmlserialize(content a as text indent) from t",
                "select xmlroot(a, version '1.0'), xmlroot(xmlparse(document b), version no value, standalone no value) from t",
                "select xmlroot(a, version lower(b), standalone yes), xmlroot(a, version no value, standalone no) from t",
                "select xmlexists('//a' passing a), xmlexists(lower(b) passing by ref a by value) from t where xmlexists('//b' passing by value c)",
                "select row_number() over w window w as (order by 1)",
                "select 1 as a, sum(1) over w as b window w as (), v as (order by lower('a'))",
                "select (select sum(1) over w window w as ()) from t window w as (order by a)",
                "select trim(both from a), trim(from b), trim(leading from lower(c)) from t",
                "select a from t for read only",
                "select j.a from t join u using (a, b) as j where j.a > 1",
            ],
        );
    }

    #[test]
    fn what_it_names_is_still_judged() {
        access(
            Access::Write,
            &[
                "table pg_temp.t",
                "select f(variadic a) from t",
                "select f(a := 1)",
                "select make_interval(years := f(1))",
                "select 1 operator(public.+) 2",
                "select operator(*)",
                "select a from t where operator(pg_catalog.*) is null",
                "select 1 operator(<<<>>>) 2",
                "select * from rows from (generate_series(1, 2), f()) as x",
                "select f() collate \"C\"",
                "select a from t fetch first (f()) rows only",
                "select a from t fetch first (nextval('s')) rows with ties",
                "select a from t fetch first (3) rows only for update",
                "select fetch first (3) rows only",
                "select * from t order by a using <<<>>>",
                "select * from t order by a using operator(public.<)",
                "select (f()).*",
                "select mytype 'x'",
                "select public.float8 'x'",
                "select \"float8\" 'x'",
                "with x as (insert into t values (1) returning a) search depth first by a set o select 1",
                "select a into table x from t",
                "select a into temp table x from t",
                "select a::mytype array",
                "select a @> any (select f())",
                "select a @> any (array[nextval('s')])",
                "select a @> any (select b from t for update)",
                "select a <<<>>> any (b)",
                "select a operator(public.@>) any (b)",
                "select a between symmetric f() and 1",
                "select collation for (a) from t",
                "select a[f() is null]",
                "select a like all (select f())",
                "select a from t group by rollup ((f()) + 1)",
                "select my.rollup(a), f(a) from t group by cube (a)",
                "select f_cube(a) from t group by cube (f_cube(a))",
                "select (values (f()))",
                "select * from (rows from (f()) as x join t using (a))",
                "select f() is document",
                "select not document(a)",
                "select a is document(b)",
                "select xmlforest(f() as a)",
                "select xmlforest(a as b, mytype 'x' as c)",
                "select xmlelement(name a, f())",
                "select xmlelement(name a, xmlattributes(f() as b))",
                "select xmlelement(name a, xmlelement(name b, xmlpi(name c, f())))",
                "select xmlparse(document f())",
                "select xmlparse(content f() preserve whitespace)",
                "select xmlserialize(content f() as text)",
                "select xmlserialize(content a as mytype) from t",
                "select xmlserialize(content a as mytype no indent) from t",
                "select xmlroot(f(), version '1.0')",
                "select xmlroot(a, version f(), standalone yes) from t",
                "select xmlexists(f() passing a) from t",
                "select xmlexists('//a' passing by ref f())",
                "select \"xmlelement\"(a) from t",
                "select public.xmlparse(a) from t",
                "select xmlelement(name a, (select preserve from f() whitespace))",
                "select (select 1 from f() preserve)",
                "select sum(1) over w window w as (order by f())",
                "select f() over w window w as ()",
                "select trim(both from f())",
                "select trim(f() from a) from t",
                "select a from t for update for read only",
                "select a from t for read only for update",
                "select j.a from t join f() using (a) as j",
            ],
        );
        access(
            Access::Primary,
            &[
                "table pg_class",
                "select 1 as collate from pg_class",
                "select t.collate from pg_class t",
                "select 1 collate \"C\" from pg_class",
            ],
        );
    }
}
