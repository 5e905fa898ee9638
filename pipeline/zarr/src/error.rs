//! Why a plane of an array cannot be read.

/// Why a document is not used, or a plane not read.
#[derive(Debug, thiserror::Error)]
pub enum ZarrError {
    /// The document is no JSON.
    #[error("the document is no JSON")]
    Json {
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// The document is not that of an array.
    #[error(
        "the document is not that of a Zarr array of version 2 or 3 (zarr_format {version}, node_type {node})"
    )]
    NotAnArray {
        /// `zarr_format` as it stands there.
        version: String,
        /// `node_type` as it stands there.
        node: String,
    },
    /// The document is that of an array, and something in it is wrong.
    #[error("the document of the array cannot be used: {reason}")]
    Malformed {
        /// What, in the words of the parser.
        reason: String,
    },
    /// Pixels that are no grey levels of 8 or 16 bits.
    #[error("the array's pixels are {found}; unsigned 8 and 16 bits (uint8, uint16) are read")]
    Pixels {
        /// The data type as the document has it.
        found: String,
    },
    /// Too few or too many axes.
    #[error("the array has {axes} axes; 2 to {limit} are read")]
    Axes {
        /// How many.
        axes: usize,
        /// The most.
        limit: usize,
    },
    /// Planes larger than any camera's, or of no pixel.
    #[error("the array's planes are {width} x {height} pixels; between 1 and {limit} pixels are read")]
    PlaneSize {
        /// Width in pixels.
        width: u64,
        /// Height in pixels.
        height: u64,
        /// Pixels at most.
        limit: u64,
    },
    /// More planes than can be counted.
    #[error("the array of shape {shape:?} has no plane, or more than can be counted")]
    Planes {
        /// The array's shape.
        shape: Vec<u64>,
    },
    /// Chunks that are too large to be unpacked.
    #[error("the array's chunks of {shape:?} pixels are larger than the {limit} pixels that are read")]
    ChunkSize {
        /// Shape of what is unpacked at once.
        shape: Vec<u64>,
        /// Pixels at most.
        limit: u64,
    },
    /// A plane in very many pieces.
    #[error("a plane of the array is cut into {tiles} chunks; at most {limit} are read")]
    Tiles {
        /// Chunks of a plane.
        tiles: u64,
        /// The most.
        limit: u64,
    },
    /// A grid that is not regular.
    #[error("the array's chunk grid is '{name}'; 'regular' is read")]
    Grid {
        /// Its name.
        name: String,
    },
    /// A codec or filter that is not read.
    #[error(
        "the array's chunks are encoded with '{name}'; blosc, zstd, gzip, zlib, crc32c, transposed axes and shards are read"
    )]
    Codec {
        /// Its name.
        name: String,
    },
    /// Storage transformers, of which none is known.
    #[error("the array has the storage transformer '{name}', which is not read")]
    Transformer {
        /// Its name.
        name: String,
    },
    /// Shards that do not consist of whole chunks, or of too many.
    #[error("shards of {shard:?} pixels with chunks of {chunk:?} pixels: {reason}")]
    Shards {
        /// Shape of a shard.
        shard: Vec<u64>,
        /// Shape of the chunks in it.
        chunk: Vec<u64>,
        /// What is wrong.
        reason: &'static str,
    },
    /// A plane that the array does not have.
    #[error("the array has {planes} planes, and plane {page} is asked for")]
    NoPlane {
        /// The number, from 0.
        page: u32,
        /// How many there are.
        planes: u64,
    },
    /// The index of a shard is damaged.
    #[error("the index of the shard cannot be used: {reason}")]
    Index {
        /// In words.
        reason: String,
    },
    /// An index that points to a place that cannot be.
    #[error(
        "the index of the shard says that chunk {chunk} has bytes {start} to {end}, which cannot be: the shard has \
         {length} bytes, and a chunk at most {limit}"
    )]
    Range {
        /// Which chunk of the shard.
        chunk: u64,
        /// First byte.
        start: u64,
        /// One past the last.
        end: u64,
        /// Bytes of the shard.
        length: u64,
        /// Bytes of an encoded chunk at most.
        limit: u64,
    },
    /// A chunk that cannot be unpacked.
    #[error("chunk {object} cannot be unpacked")]
    Chunk {
        /// The object below the array's folder, and which chunk of the shard.
        object: String,
        /// Why.
        source: UnpackError,
    },
    /// The buffer is not one of this plane.
    #[error("a buffer of {found} pixels was given for a plane of {expected}")]
    Buffer {
        /// Its pixels.
        found: usize,
        /// Pixels of the plane.
        expected: usize,
    },
}

/// Why a chunk cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It would become far more than images become.
    #[error(
        "its {encoded} bytes would become {decoded}; at most {limit} are unpacked from so few, since images do not shrink so far"
    )]
    Bomb {
        /// Bytes as they are stored.
        encoded: usize,
        /// Bytes that they should become.
        decoded: u64,
        /// The most.
        limit: u64,
    },
    /// It is longer than a chunk can be.
    #[error("it has {bytes} bytes; a chunk of this array has at most {limit}")]
    TooLong {
        /// Its bytes.
        bytes: u64,
        /// The most.
        limit: u64,
    },
    /// A codec finds it damaged.
    #[error("{codec} finds it damaged: {reason}")]
    Damaged {
        /// The codec.
        codec: &'static str,
        /// In the words of the library.
        reason: String,
    },
    /// It becomes more bytes than the array's chunks have.
    #[error("{codec} says that it becomes more than the {limit} bytes that the array's document allows")]
    TooMuch {
        /// The codec.
        codec: &'static str,
        /// Bytes that it may become.
        limit: usize,
    },
    /// It becomes another number of bytes than the array's chunks have.
    #[error("it becomes {found} bytes; a chunk of this array has {expected}")]
    Size {
        /// What it becomes.
        found: usize,
        /// What it should.
        expected: usize,
    },
}
