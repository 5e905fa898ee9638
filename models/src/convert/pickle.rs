//! A pickle reader for state dictionaries and nothing else. It builds plain values; it never calls, imports or
//! constructs anything.
//!
//! Enters: bytes and a position. Leaves: one [`Value`] and the position after it. Fails with [`ConvertError`] at the
//! byte of the first opcode, name or shape that a state dictionary does not have. Every value costs at least one
//! byte of input, shared values are shared, and nesting is bounded, so memory is bounded by the input.

use std::collections::HashMap;
use std::rc::Rc;

use super::error::ConvertError;
use super::value::{Element, Name, Storage, Tensor, Value};

/// Deepest nesting of tuples: a state dictionary needs three.
const MAX_DEPTH: usize = 16;

/// Most dimensions of a tensor.
const MAX_RANK: usize = 8;

/// Reads one pickle.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the opcode being read begins.
    opcode_at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    dicts: Vec<Vec<(Value, Value)>>,
    lists: Vec<Vec<Value>>,
}

impl<'a> Reader<'a> {
    /// A reader at byte `at` of `bytes`.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self {
            bytes,
            at,
            opcode_at: at,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            dicts: Vec::new(),
            lists: Vec::new(),
        }
    }

    /// The byte after what was read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The entries of a dictionary, in their order.
    pub(super) fn dict(&self, number: usize) -> &[(Value, Value)] {
        &self.dicts[number]
    }

    /// The items of a list.
    pub(super) fn list(&self, number: usize) -> &[Value] {
        &self.lists[number]
    }

    /// Reads up to the end of the pickle.
    pub(super) fn read(&mut self) -> Result<Value, ConvertError> {
        loop {
            self.opcode_at = self.at;
            match self.take(1, "an opcode")?[0] {
                b'.' => return self.pop("the value of the pickle"),
                opcode => self.step(opcode)?,
            }
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), ConvertError> {
        match opcode {
            0x80 => {
                let version = self.take(1, "the protocol")?[0];
                if !(2..=4).contains(&version) {
                    return Err(ConvertError::NotACheckpoint {
                        offset: self.opcode_at,
                        what: "the pickle protocol",
                        found: version.to_string(),
                        expected: "2 to 4",
                    });
                }
            }
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'K' => {
                let n = self.take(1, "an integer")?[0];
                self.stack.push(Value::Int(n.into()));
            }
            b'M' => {
                let n = u16::from_le_bytes(self.fixed("an integer")?);
                self.stack.push(Value::Int(n.into()));
            }
            b'J' => {
                let n = i32::from_le_bytes(self.fixed("an integer")?);
                self.stack.push(Value::Int(n.into()));
            }
            b'G' => {
                self.take(8, "a float")?;
                self.stack.push(Value::Float);
            }
            0x8a => self.long()?,
            b'X' => {
                let n = u32::from_le_bytes(self.fixed("a length")?) as usize;
                self.text(n)?;
            }
            0x8c => {
                let n = self.take(1, "a length")?[0] as usize;
                self.text(n)?;
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                let name = self.name(module, name)?;
                self.stack.push(Value::Name(name));
            }
            b')' => self.stack.push(Value::Tuple(Rc::new([]), 0)),
            0x85 => self.tuple_of(1)?,
            0x86 => self.tuple_of(2)?,
            0x87 => self.tuple_of(3)?,
            b't' => {
                let mark = self.mark()?;
                self.tuple_of(self.stack.len() - mark)?;
            }
            b'}' => self.new_dict(),
            b']' => {
                self.lists.push(Vec::new());
                self.stack.push(Value::List(self.lists.len() - 1));
            }
            b's' => self.set_items(self.stack.len().saturating_sub(2))?,
            b'u' => {
                let mark = self.mark()?;
                self.set_items(mark)?;
            }
            b'a' => self.append(self.stack.len().saturating_sub(1))?,
            b'e' => {
                let mark = self.mark()?;
                self.append(mark)?;
            }
            b'q' => {
                let slot = self.take(1, "a memo number")?[0].into();
                self.remember(slot)?;
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.fixed("a memo number")?);
                self.remember(slot)?;
            }
            b'h' => {
                let slot = self.take(1, "a memo number")?[0].into();
                self.recall(slot)?;
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.fixed("a memo number")?);
                self.recall(slot)?;
            }
            b'R' => self.reduce()?,
            b'Q' => self.persistent()?,
            // A state dictionary carries its module versions as attributes; they do not concern the tensors.
            b'b' => {
                self.pop("the state")?;
                match self.stack.last() {
                    Some(Value::Dict(_)) => {}
                    other => {
                        return Err(self.unexpected(other.map_or("nothing", Value::kind), "a dictionary"));
                    }
                }
            }
            _ => {
                return Err(ConvertError::Opcode {
                    offset: self.opcode_at,
                    opcode,
                });
            }
        }
        Ok(())
    }

    fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], ConvertError> {
        let left = self.bytes.len().saturating_sub(self.at);
        if n > left {
            return Err(ConvertError::Truncated {
                offset: self.bytes.len(),
                what,
                needed: n - left,
            });
        }
        let taken = &self.bytes[self.at..self.at + n];
        self.at += n;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], ConvertError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N, what)?);
        Ok(bytes)
    }

    fn unexpected(&self, found: &'static str, expected: &'static str) -> ConvertError {
        ConvertError::Unexpected {
            offset: self.opcode_at,
            found,
            expected,
        }
    }

    fn pop(&mut self, what: &'static str) -> Result<Value, ConvertError> {
        // A value below the last mark belongs to what was begun before it.
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return Err(self.unexpected("nothing", what));
        }
        self.stack.pop().ok_or_else(|| self.unexpected("nothing", what))
    }

    fn mark(&mut self) -> Result<usize, ConvertError> {
        self.marks
            .pop()
            .ok_or_else(|| self.unexpected("nothing", "a mark"))
    }

    fn long(&mut self) -> Result<(), ConvertError> {
        let n = self.take(1, "a length")?[0] as usize;
        let bytes = self.take(n, "a long integer")?;
        let value = if n <= 8 {
            let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
            let mut wide = if negative { [0xff; 8] } else { [0; 8] };
            wide[..n].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(wide))
        } else {
            Value::Long(bytes.into())
        };
        self.stack.push(value);
        Ok(())
    }

    fn text(&mut self, n: usize) -> Result<(), ConvertError> {
        let bytes = self.take(n, "a text")?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.unexpected("other bytes", "UTF-8 text"))?;
        self.stack.push(Value::Text(text.into()));
        Ok(())
    }

    /// A line of a name, without its end.
    fn line(&mut self) -> Result<&'a str, ConvertError> {
        let rest = &self.bytes[self.at..];
        let end = rest
            .iter()
            .take(256)
            .position(|&b| b == b'\n')
            .ok_or(ConvertError::Limit {
                offset: self.opcode_at,
                what: "a name",
                limit: 256,
            })?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| self.unexpected("other bytes", "UTF-8 text"))
    }

    fn name(&self, module: &str, name: &str) -> Result<Name, ConvertError> {
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Name::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Name::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Name::RebuildParameter,
            ("torch", "DoubleStorage") => Name::Storage(Element::F64),
            ("torch", "FloatStorage") => Name::Storage(Element::F32),
            ("torch", "HalfStorage") => Name::Storage(Element::F16),
            ("torch", "BFloat16Storage") => Name::Storage(Element::BF16),
            ("torch", "LongStorage") => Name::Storage(Element::I64),
            ("torch", "IntStorage") => Name::Storage(Element::I32),
            ("torch", "ShortStorage") => Name::Storage(Element::I16),
            ("torch", "CharStorage") => Name::Storage(Element::I8),
            ("torch", "ByteStorage") => Name::Storage(Element::U8),
            ("torch", "BoolStorage") => Name::Storage(Element::Bool),
            _ => {
                let name = format!("{module}.{name}");
                return Err(ConvertError::Global {
                    offset: self.opcode_at,
                    name,
                });
            }
        })
    }

    fn tuple_of(&mut self, n: usize) -> Result<(), ConvertError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let Some(start) = self.stack.len().checked_sub(n).filter(|&start| start >= floor) else {
            return Err(self.unexpected("nothing", "the items of a tuple"));
        };
        let items: Rc<[Value]> = self.stack.drain(start..).collect();
        let inner = items
            .iter()
            .map(|v| if let Value::Tuple(_, depth) = v { *depth } else { 0 })
            .max();
        let depth = inner.unwrap_or(0) + 1;
        if depth > MAX_DEPTH {
            return Err(ConvertError::Limit {
                offset: self.opcode_at,
                what: "the nesting of tuples",
                limit: MAX_DEPTH as u64,
            });
        }
        self.stack.push(Value::Tuple(items, depth));
        Ok(())
    }

    fn new_dict(&mut self) {
        self.dicts.push(Vec::new());
        self.stack.push(Value::Dict(self.dicts.len() - 1));
    }

    /// Moves what lies above `start` into the dictionary below it.
    fn set_items(&mut self, start: usize) -> Result<(), ConvertError> {
        let number = match start.checked_sub(1).and_then(|below| self.stack.get(below)) {
            Some(Value::Dict(number)) => *number,
            other => return Err(self.unexpected(other.map_or("nothing", Value::kind), "a dictionary")),
        };
        if !(self.stack.len() - start).is_multiple_of(2) || self.marks.last().is_some_and(|&m| m >= start) {
            return Err(self.unexpected("a key alone", "keys and values"));
        }
        let mut items = self.stack.drain(start..);
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            self.dicts[number].push((key, value));
        }
        Ok(())
    }

    /// Moves what lies above `start` to the list below it.
    fn append(&mut self, start: usize) -> Result<(), ConvertError> {
        let number = match start.checked_sub(1).and_then(|below| self.stack.get(below)) {
            Some(Value::List(number)) => *number,
            other => return Err(self.unexpected(other.map_or("nothing", Value::kind), "a list")),
        };
        if self.marks.last().is_some_and(|&m| m >= start) {
            return Err(self.unexpected("a mark", "the items of a list"));
        }
        self.lists[number].extend(self.stack.drain(start..));
        Ok(())
    }

    fn remember(&mut self, slot: u32) -> Result<(), ConvertError> {
        let value = self
            .stack
            .last()
            .cloned()
            .ok_or_else(|| self.unexpected("nothing", "a value to keep"))?;
        self.memo.insert(slot, value);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<(), ConvertError> {
        let value = self.memo.get(&slot).cloned();
        self.stack
            .push(value.ok_or_else(|| self.unexpected("an empty memo number", "a kept value"))?);
        Ok(())
    }

    fn reduce(&mut self) -> Result<(), ConvertError> {
        let arguments = self.pop("arguments")?;
        let name = self.pop("a name")?;
        let Value::Tuple(arguments, _) = &arguments else {
            return Err(self.unexpected(arguments.kind(), "arguments"));
        };
        match (name, &arguments[..]) {
            (Value::Name(Name::OrderedDict), []) => self.new_dict(),
            (
                Value::Name(Name::RebuildTensor),
                [
                    Value::Storage(storage),
                    Value::Int(first),
                    shape,
                    strides,
                    Value::Bool(_),
                    _hooks,
                ],
            ) => {
                let tensor = Tensor {
                    offset: self.opcode_at,
                    storage: (**storage).clone(),
                    first: self.natural(*first)?,
                    shape: self.naturals(shape)?,
                    strides: self.naturals(strides)?,
                };
                self.stack.push(Value::Tensor(Rc::new(tensor)));
            }
            // A parameter is a tensor that training changes.
            (Value::Name(Name::RebuildParameter), [Value::Tensor(tensor), Value::Bool(_), _hooks]) => {
                self.stack.push(Value::Tensor(tensor.clone()));
            }
            (Value::Name(_), _) => return Err(self.unexpected("other arguments", "those of the name called")),
            (other, _) => return Err(self.unexpected(other.kind(), "a name to call")),
        }
        Ok(())
    }

    fn persistent(&mut self) -> Result<(), ConvertError> {
        let id = self.pop("a storage description")?;
        let Value::Tuple(parts, _) = &id else {
            return Err(self.unexpected(id.kind(), "a storage description"));
        };
        let (key, element, elements) = match &parts[..] {
            [
                Value::Text(tag),
                Value::Name(Name::Storage(element)),
                Value::Text(key),
                Value::Text(_place),
                Value::Int(elements),
                rest @ ..,
            ] if &**tag == "storage" && matches!(rest, [] | [Value::None]) => {
                (key.clone(), *element, self.natural(*elements)?)
            }
            _ => return Err(self.unexpected("another tuple", "a storage of its own, not a view")),
        };
        self.stack.push(Value::Storage(Rc::new(Storage {
            key,
            element,
            elements,
        })));
        Ok(())
    }

    fn natural(&self, n: i64) -> Result<u64, ConvertError> {
        u64::try_from(n).map_err(|_| self.unexpected("a negative number", "a size"))
    }

    fn naturals(&self, value: &Value) -> Result<Vec<u64>, ConvertError> {
        let Value::Tuple(items, _) = value else {
            return Err(self.unexpected(value.kind(), "a tuple of sizes"));
        };
        if items.len() > MAX_RANK {
            return Err(ConvertError::Limit {
                offset: self.opcode_at,
                what: "the number of dimensions",
                limit: MAX_RANK as u64,
            });
        }
        let size = |v: &Value| match v {
            Value::Int(n) => self.natural(*n),
            other => Err(self.unexpected(other.kind(), "a size")),
        };
        items.iter().map(size).collect()
    }
}
