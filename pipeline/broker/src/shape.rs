//! The outline of every request served, walked before a request is decoded.
//!
//! Enters: the body of a request. Leaves: nothing, if lengths and counts fit the bytes that are
//! there. The decoder reserves memory for as many elements as an array announces, so a false count
//! of a few bytes could otherwise end the process; here it is an error like any other.
//!
//! An outline is a line of fields: `c h i q` are integers of 1, 2, 4, 8 bytes, `s` a string, `b`
//! bytes, `[ ... ]` an array of structures, `<x>` an array of plain fields; `3+` or `2-4` before a
//! field limits it to those versions. Source: the message definitions of the Kafka protocol.

use kafka_protocol::messages::ApiKey;

/// Elements of all arrays of one request together.
const MAX_ELEMENTS: usize = 100_000;

/// What does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misfit {
    #[error("a field is cut short or has a negative length")]
    Cut,
    #[error("arrays of more than {MAX_ELEMENTS} elements in all")]
    TooMany,
    #[error("{0} bytes are left over")]
    Left(usize),
    #[error("no outline of this request is known")]
    Unknown,
}

fn outline(api: ApiKey) -> Option<&'static str> {
    Some(match api {
        ApiKey::Produce => "s h i [ s [ i b ] ]",
        ApiKey::Fetch => "i i i i c 7+i 7+i [ s [ i 9+i q 12+i 5+q i ] ] 7+[ s <i> ] 11+s",
        ApiKey::ListOffsets => "i 2+c [ s [ i 4+i q ] ]",
        ApiKey::Metadata => "[ s ] 4+c 8+c 8+c",
        ApiKey::OffsetCommit => "s i s 7+s 2-4q [ s [ i q 6+i s ] ]",
        ApiKey::OffsetFetch => "s [ s <i> ] 7+c",
        ApiKey::FindCoordinator => "s 1+c",
        ApiKey::JoinGroup => "s i 1+i s 5+s s [ s b ]",
        ApiKey::Heartbeat => "s i s 3+s",
        ApiKey::LeaveGroup => "s 0-2s 3+[ s s ]",
        ApiKey::SyncGroup => "s i s 3+s 5+s 5+s [ s b ]",
        ApiKey::DescribeGroups => "<s> 3+c",
        ApiKey::ListGroups => "4+<s>",
        ApiKey::ApiVersions => "3+s 3+s",
        ApiKey::CreateTopics => "[ s i h [ i <i> ] [ s s ] ] i c",
        ApiKey::DeleteTopics => "<s> i",
        ApiKey::DeleteRecords => "[ s [ i q ] ] i",
        ApiKey::InitProducerId => "s i 3+q 3+h",
        ApiKey::OffsetForLeaderEpoch => "3+i [ s [ i i i ] ]",
        ApiKey::AddPartitionsToTxn => "s q h [ s <i> ]",
        ApiKey::AddOffsetsToTxn => "s q h s",
        ApiKey::EndTxn => "s q h c",
        ApiKey::TxnOffsetCommit => "s s q h 3+i 3+s 3+s [ s [ i q 2+i s ] ]",
        ApiKey::DescribeConfigs => "[ c s <s> ] c 3+c",
        ApiKey::AlterConfigs => "[ c s [ s s ] ] c",
        ApiKey::CreatePartitions => "[ s i [ <i> ] ] i c",
        ApiKey::DeleteGroups => "<s>",
        ApiKey::IncrementalAlterConfigs => "[ c s [ s c s ] ] c",
        _ => return None,
    })
}

struct Walk<'a> {
    bytes: &'a [u8],
    version: i16,
    /// Whether lengths are varints and structures end in tagged fields.
    flexible: bool,
    elements: usize,
}

/// Checks that a request body fits its outline exactly.
pub(crate) fn check(api: ApiKey, version: i16, body: &[u8]) -> Result<(), Misfit> {
    let fields: Vec<&str> = outline(api).ok_or(Misfit::Unknown)?.split(' ').collect();
    let flexible = api.request_header_version(version) >= 2;
    let mut walk = Walk {
        bytes: body,
        version,
        flexible,
        elements: 0,
    };
    walk.structure(&fields)?;
    // librdkafka writes four bytes for the null list that asks for all topics, where one is meant. Kafka does not mind.
    let padding = if api == ApiKey::Metadata && flexible { 3 } else { 0 };
    match walk.bytes.len() {
        left if left <= padding => Ok(()),
        left => Err(Misfit::Left(left)),
    }
}

/// Splits `7+i` or `2-4q` into its versions and its kind.
fn versions(field: &str) -> (i16, i16, &str) {
    let Some(sign) = field.find(['+', '-']) else {
        return (0, i16::MAX, field);
    };
    let number = |text: &str| text.parse().unwrap_or(0);
    let (from, rest) = (number(&field[..sign]), &field[sign + 1..]);
    if field.as_bytes()[sign] == b'+' {
        return (from, i16::MAX, rest);
    }
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    (from, number(&rest[..end]), &rest[end..])
}

/// The fields between a `[` at `open` and its `]`, and where that is.
fn inside<'f>(fields: &'f [&'f str], open: usize) -> (&'f [&'f str], usize) {
    let mut depth = 0;
    for (i, field) in fields.iter().enumerate().skip(open) {
        if field.ends_with('[') {
            depth += 1;
        } else if *field == "]" {
            depth -= 1;
            if depth == 0 {
                return (&fields[open + 1..i], i);
            }
        }
    }
    (&fields[open + 1..], fields.len())
}

impl Walk<'_> {
    fn skip(&mut self, count: usize) -> Result<(), Misfit> {
        self.bytes = self.bytes.get(count..).ok_or(Misfit::Cut)?;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Misfit> {
        let taken = self
            .bytes
            .get(..N)
            .and_then(|b| b.try_into().ok())
            .ok_or(Misfit::Cut)?;
        self.skip(N)?;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<usize, Misfit> {
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.take::<1>()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(value).map_err(|_| Misfit::Cut);
            }
        }
        Err(Misfit::Cut)
    }

    /// A length or count; null counts as 0. `short` is the old form of strings.
    fn length(&mut self, short: bool) -> Result<usize, Misfit> {
        if self.flexible {
            return Ok(self.varint()?.saturating_sub(1));
        }
        let length = if short {
            i16::from_be_bytes(self.take()?).into()
        } else {
            i32::from_be_bytes(self.take()?)
        };
        if length == -1 {
            Ok(0)
        } else {
            usize::try_from(length).map_err(|_| Misfit::Cut)
        }
    }

    fn count(&mut self) -> Result<usize, Misfit> {
        let count = self.length(false)?;
        self.elements = self.elements.saturating_add(count);
        if self.elements > MAX_ELEMENTS {
            return Err(Misfit::TooMany);
        }
        // Every element is at least one byte long.
        if count > self.bytes.len() {
            Err(Misfit::Cut)
        } else {
            Ok(count)
        }
    }

    fn plain(&mut self, kind: &str) -> Result<(), Misfit> {
        let count = match kind {
            "c" => 1,
            "h" => 2,
            "i" => 4,
            "q" => 8,
            "s" => self.length(true)?,
            "b" => self.length(false)?,
            _ => return Err(Misfit::Unknown),
        };
        self.skip(count)
    }

    fn structure(&mut self, fields: &[&str]) -> Result<(), Misfit> {
        let mut at = 0;
        while let Some(field) = fields.get(at) {
            let (from, to, kind) = versions(field);
            let present = (from..=to).contains(&self.version);
            if kind == "[" {
                let (inner, end) = inside(fields, at);
                let count = if present { self.count()? } else { 0 };
                for _ in 0..count {
                    self.structure(inner)?;
                }
                at = end;
            } else if present && let Some(kind) = kind.strip_prefix('<').and_then(|k| k.strip_suffix('>')) {
                for _ in 0..self.count()? {
                    self.plain(kind)?;
                }
            } else if present {
                self.plain(kind)?;
            }
            at += 1;
        }
        if self.flexible {
            for _ in 0..self.varint()? {
                self.varint()?;
                let size = self.varint()?;
                self.skip(size)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
