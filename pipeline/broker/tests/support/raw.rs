//! A client that speaks the protocol by hand, for what librdkafka would never send.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
}

impl Raw {
    pub(crate) fn connect(bootstrap: &str) -> Self {
        let stream = TcpStream::connect(bootstrap).unwrap();
        stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
        Self { stream }
    }

    pub(crate) fn ask<Q: Encodable, A: Decodable>(&mut self, api: ApiKey, version: i16, request: &Q) -> A {
        let mut bytes = BytesMut::new();
        let header = RequestHeader::default()
            .with_request_api_key(api as i16)
            .with_request_api_version(version)
            .with_correlation_id(1)
            .with_client_id(Some(StrBytes::from_static_str("raw")));
        header
            .encode(&mut bytes, api.request_header_version(version))
            .unwrap();
        request.encode(&mut bytes, version).unwrap();
        self.stream
            .write_all(&(bytes.len() as i32).to_be_bytes())
            .unwrap();
        self.stream.write_all(&bytes).unwrap();
        let mut length = [0u8; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0u8; i32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut answer).unwrap();
        let mut answer = Bytes::from(answer);
        ResponseHeader::decode(&mut answer, api.response_header_version(version)).unwrap();
        A::decode(&mut answer, version).unwrap()
    }
}
