//! What a state dictionary is made of: the plain values the pickle reader builds.

use std::rc::Rc;

/// Element types of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl Element {
    /// Bytes per element.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

/// The names a state dictionary may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Element),
}

/// A storage as the pickle describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    pub(super) key: Rc<str>,
    pub(super) element: Element,
    pub(super) elements: u64,
}

/// A tensor as the pickle describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tensor {
    /// Byte of the checkpoint where it is put together.
    pub(super) offset: usize,
    pub(super) storage: Storage,
    pub(super) first: u64,
    pub(super) shape: Vec<u64>,
    pub(super) strides: Vec<u64>,
}

/// A value on the stack. Dictionaries and lists live in the reader and are referred to by number, so that a value
/// may be shared and no chain of them has to be dropped recursively.
#[derive(Debug, Clone)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// A number that only training used.
    Float,
    /// An integer of more than 8 bytes: little-endian.
    Long(Rc<[u8]>),
    Text(Rc<str>),
    Tuple(Rc<[Value]>, usize),
    Name(Name),
    Dict(usize),
    List(usize),
    Storage(Rc<Storage>),
    Tensor(Rc<Tensor>),
}

impl Value {
    /// The kind, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float => "a float",
            Self::Long(_) => "a long integer",
            Self::Text(_) => "a text",
            Self::Tuple(..) => "a tuple",
            Self::Name(_) => "a name",
            Self::Dict(_) => "a dictionary",
            Self::List(_) => "a list",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}
