//! Results of the proxy's own: descriptions, rows, and what the extended protocol says around them.
//!
//! PostgreSQL manual, "Message Formats", protocol-message-formats.html; "Extended Query",
//! protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY.

use bytes::{BufMut, BytesMut};
use pgwire::messages::data::{
    DataRow, FORMAT_CODE_BINARY, FieldDescription, NoData, ParameterDescription, RowDescription,
};
use pgwire::messages::extendedquery::{
    BindComplete, CloseComplete, ParseComplete, PortalSuspended,
};
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse};

use super::reply::put;

/// A type of a result's column, with what PostgreSQL's catalog has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `boolean`.
    Bool,
    /// `bigint`.
    Int8,
    /// `integer`.
    Int4,
    /// `text`.
    Text,
    /// `double precision`.
    Float8,
}

impl Type {
    /// OID and length, `pg_type.typlen`.
    fn in_catalog(self) -> (u32, i16) {
        match self {
            Type::Bool => (16, 1),
            Type::Int8 => (20, 8),
            Type::Int4 => (23, 4),
            Type::Text => (TEXT, -1),
            Type::Float8 => (701, 8),
        }
    }
}

/// OID of `text`.
pub const TEXT: u32 = 25;

/// A column of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
}

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// A truth value.
    Bool(bool),
    /// A number of 64 bits.
    Int8(i64),
    /// A number of 32 bits.
    Int4(i32),
    /// Text.
    Text(String),
    /// A number with a fraction.
    Float8(f64),
}

impl Value {
    /// Its type; NULL is of any.
    pub fn kind(&self) -> Option<Type> {
        match self {
            Value::Null => None,
            Value::Bool(_) => Some(Type::Bool),
            Value::Int8(_) => Some(Type::Int8),
            Value::Int4(_) => Some(Type::Int4),
            Value::Text(_) => Some(Type::Text),
            Value::Float8(_) => Some(Type::Float8),
        }
    }

    fn put_text(&self, out: &mut BytesMut) {
        match self {
            Value::Null => {}
            Value::Bool(value) => out.put_u8(if *value { b't' } else { b'f' }),
            Value::Int8(value) => out.put_slice(value.to_string().as_bytes()),
            Value::Int4(value) => out.put_slice(value.to_string().as_bytes()),
            Value::Text(value) => out.put_slice(value.as_bytes()),
            Value::Float8(value) => out.put_slice(value.to_string().as_bytes()),
        }
    }

    fn put_binary(&self, out: &mut BytesMut) {
        match self {
            Value::Null => {}
            Value::Bool(value) => out.put_u8(u8::from(*value)),
            Value::Int8(value) => out.put_i64(*value),
            Value::Int4(value) => out.put_i32(*value),
            Value::Text(value) => out.put_slice(value.as_bytes()),
            Value::Float8(value) => out.put_f64(*value),
        }
    }
}

/// The formats of a result's columns, as a Bind asks for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Formats(Vec<i16>);

impl Formats {
    /// Those of a Bind for a result of so many columns. `None` if there is neither none, nor one, nor one for each, or
    /// one that is not known.
    pub fn new(codes: Vec<i16>, columns: usize) -> Option<Formats> {
        let counted = codes.len() <= 1 || codes.len() == columns;
        (counted && codes.iter().all(|code| matches!(code, 0 | 1))).then_some(Formats(codes))
    }

    fn of(&self, column: usize) -> i16 {
        match self.0.as_slice() {
            [all] => *all,
            each => each.get(column).copied().unwrap_or_default(),
        }
    }
}

/// Appends a RowDescription.
pub fn row_description(columns: &[Column], formats: &Formats, out: &mut Vec<u8>) {
    let field = |(at, column): (usize, &Column)| {
        let (oid, length) = column.kind.in_catalog();
        FieldDescription::new(
            column.name.to_owned(),
            0,
            0,
            oid,
            length,
            -1,
            formats.of(at),
        )
    };
    let fields = columns.iter().enumerate().map(field).collect();
    put(&RowDescription::new(fields), out);
}

/// Appends a DataRow.
pub fn data_row(values: &[Value], formats: &Formats, out: &mut Vec<u8>) {
    let mut data = BytesMut::new();
    for (at, value) in values.iter().enumerate() {
        if *value == Value::Null {
            data.put_i32(-1);
            continue;
        }
        let mut bytes = BytesMut::new();
        if formats.of(at) == FORMAT_CODE_BINARY {
            value.put_binary(&mut bytes);
        } else {
            value.put_text(&mut bytes);
        }
        data.put_i32(i32::try_from(bytes.len()).expect("values are far below 2 GiB"));
        data.put_slice(&bytes);
    }
    let count = i16::try_from(values.len()).expect("results have a few dozen columns");
    put(&DataRow::new(data, count), out);
}

/// Appends a CommandComplete.
pub fn command_complete(tag: &str, out: &mut Vec<u8>) {
    put(&CommandComplete::new(tag.to_owned()), out);
}

/// Appends an EmptyQueryResponse.
pub fn empty_query(out: &mut Vec<u8>) {
    put(&EmptyQueryResponse::new(), out);
}

/// Appends a ParseComplete.
pub fn parse_complete(out: &mut Vec<u8>) {
    put(&ParseComplete::new(), out);
}

/// Appends a BindComplete.
pub fn bind_complete(out: &mut Vec<u8>) {
    put(&BindComplete::new(), out);
}

/// Appends a CloseComplete.
pub fn close_complete(out: &mut Vec<u8>) {
    put(&CloseComplete::new(), out);
}

/// Appends a NoData.
pub fn no_data(out: &mut Vec<u8>) {
    put(&NoData::new(), out);
}

/// Appends a PortalSuspended.
pub fn portal_suspended(out: &mut Vec<u8>) {
    put(&PortalSuspended::new(), out);
}

/// Appends a ParameterDescription.
pub fn parameter_description(types: Vec<u32>, out: &mut Vec<u8>) {
    put(&ParameterDescription::new(types), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_in_both_formats() {
        let row = [
            Value::Text("a".to_owned()),
            Value::Null,
            Value::Int4(-2),
            Value::Int8(3),
            Value::Float8(0.5),
            Value::Bool(true),
        ];
        let mut out = Vec::new();
        data_row(&row, &Formats::default(), &mut out);
        assert_eq!(
            out,
            b"D\0\0\0\x26\0\x06\0\0\0\x01a\xff\xff\xff\xff\0\0\0\x02-2\0\0\0\x013\0\0\0\x030.5\0\0\0\x01t"
        );
        out.clear();
        let formats = Formats::new(vec![1], row.len()).expect("one for all");
        data_row(&row, &formats, &mut out);
        let expected = [
            &b"D\0\0\0\x34\0\x06\0\0\0\x01a\xff\xff\xff\xff\0\0\0\x04\xff\xff\xff\xfe"[..],
            b"\0\0\0\x08\0\0\0\0\0\0\0\x03\0\0\0\x08\x3f\xe0\0\0\0\0\0\0\0\0\0\x01\x01",
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn a_description_tells_types_and_formats() {
        let columns = [
            Column {
                name: "a",
                kind: Type::Text,
            },
            Column {
                name: "b",
                kind: Type::Int8,
            },
        ];
        let mut out = Vec::new();
        let formats = Formats::new(vec![0, 1], 2).expect("one for each");
        row_description(&columns, &formats, &mut out);
        let expected = [
            &b"T\0\0\0\x2e\0\x02a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"[..],
            b"b\0\0\0\0\0\0\0\0\0\0\x14\0\x08\xff\xff\xff\xff\0\x01",
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn formats_fit_the_columns() {
        for (codes, columns, fits) in [
            (vec![], 3, true),
            (vec![1], 3, true),
            (vec![0, 1, 1], 3, true),
            (vec![0, 1], 3, false),
            (vec![2], 3, false),
        ] {
            assert_eq!(
                Formats::new(codes.clone(), columns).is_some(),
                fits,
                "{codes:?}"
            );
        }
    }
}
