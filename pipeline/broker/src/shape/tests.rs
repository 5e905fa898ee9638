//! The outlines agree with the protocol crate, for every version served, and nothing makes them panic.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{self as m, ApiKey};
use kafka_protocol::protocol::{Decodable, Encodable};
use proptest::prelude::*;

use super::check;
use crate::frame::{Frame, SERVED};

/// A request of each kind with one element in each array, encoded in `version`.
fn sample(api: ApiKey, version: i16) -> Bytes {
    fn encode<R: Encodable>(request: R, version: i16) -> Bytes {
        let mut bytes = BytesMut::new();
        request.encode(&mut bytes, version).unwrap();
        bytes.freeze()
    }
    macro_rules! build {
        ($kind:ident { $($field:ident : $value:expr),* $(,)? }) => {{
            let mut request = m::$kind::default();
            $( request.$field = $value; )*
            encode(request, version)
        }};
    }
    macro_rules! one {
        ($module:ident :: $kind:ident { $($field:ident : $value:expr),* $(,)? }) => {{
            let mut element = m::$module::$kind::default();
            $( element.$field = $value; )*
            vec![element]
        }};
    }
    let name = || m::TopicName("topic".into_str());
    match api {
        ApiKey::Produce => build!(ProduceRequest {
            topic_data: one!(produce_request::TopicProduceData {
                name: name(),
                partition_data: one!(produce_request::PartitionProduceData {
                    records: Some(Bytes::from_static(b"abc"))
                }),
            })
        }),
        ApiKey::Fetch => {
            let forgotten = one!(fetch_request::ForgottenTopic {
                topic: name(),
                partitions: vec![1, 2]
            });
            build!(FetchRequest {
                topics: one!(fetch_request::FetchTopic {
                    topic: name(),
                    partitions: one!(fetch_request::FetchPartition { fetch_offset: 5 }),
                }),
                forgotten_topics_data: if version >= 7 { forgotten } else { vec![] },
            })
        }
        ApiKey::ListOffsets => build!(ListOffsetsRequest {
            topics: one!(list_offsets_request::ListOffsetsTopic {
                name: name(),
                partitions: one!(list_offsets_request::ListOffsetsPartition { timestamp: 5 }),
            })
        }),
        ApiKey::Metadata => build!(MetadataRequest {
            allow_auto_topic_creation: true,
            topics: Some(one!(metadata_request::MetadataRequestTopic {
                name: Some(name())
            })),
        }),
        ApiKey::OffsetCommit => build!(OffsetCommitRequest {
            topics: one!(offset_commit_request::OffsetCommitRequestTopic {
                name: name(),
                partitions: one!(offset_commit_request::OffsetCommitRequestPartition { committed_offset: 5 }),
            })
        }),
        ApiKey::OffsetFetch => build!(OffsetFetchRequest {
            topics: Some(one!(offset_fetch_request::OffsetFetchRequestTopic {
                name: name(),
                partition_indexes: vec![0, 1]
            })),
        }),
        ApiKey::FindCoordinator => build!(FindCoordinatorRequest {
            key: "group".into_str()
        }),
        ApiKey::JoinGroup => build!(JoinGroupRequest {
            protocols: one!(join_group_request::JoinGroupRequestProtocol {
                metadata: Bytes::from_static(b"abc")
            }),
        }),
        ApiKey::Heartbeat => build!(HeartbeatRequest { generation_id: 3 }),
        ApiKey::LeaveGroup => {
            let members = one!(leave_group_request::MemberIdentity {
                member_id: "m".into_str()
            });
            build!(LeaveGroupRequest {
                members: if version >= 3 { members } else { vec![] }
            })
        }
        ApiKey::SyncGroup => build!(SyncGroupRequest {
            assignments: one!(sync_group_request::SyncGroupRequestAssignment {
                assignment: Bytes::from_static(b"abc")
            }),
        }),
        ApiKey::DescribeGroups => build!(DescribeGroupsRequest {
            groups: vec![m::GroupId("g".into_str())]
        }),
        ApiKey::ListGroups => {
            build!(ListGroupsRequest {
                states_filter: if version >= 4 {
                    vec!["Stable".into_str()]
                } else {
                    vec![]
                }
            })
        }
        ApiKey::ApiVersions => build!(ApiVersionsRequest {
            client_software_name: "test".into_str()
        }),
        ApiKey::CreateTopics => build!(CreateTopicsRequest {
            topics: one!(create_topics_request::CreatableTopic {
                name: name(),
                assignments: one!(create_topics_request::CreatableReplicaAssignment {
                    broker_ids: vec![m::BrokerId(1)]
                }),
                configs: one!(create_topics_request::CreatableTopicConfig { value: None }),
            })
        }),
        ApiKey::DeleteTopics => build!(DeleteTopicsRequest {
            topic_names: vec![name(), name()]
        }),
        ApiKey::DeleteRecords => build!(DeleteRecordsRequest {
            topics: one!(delete_records_request::DeleteRecordsTopic {
                name: name(),
                partitions: one!(delete_records_request::DeleteRecordsPartition { offset: 5 }),
            })
        }),
        ApiKey::InitProducerId => build!(InitProducerIdRequest {
            transaction_timeout_ms: 5
        }),
        ApiKey::OffsetForLeaderEpoch => build!(OffsetForLeaderEpochRequest {
            topics: one!(offset_for_leader_epoch_request::OffsetForLeaderTopic {
                topic: name(),
                partitions: one!(offset_for_leader_epoch_request::OffsetForLeaderPartition { partition: 2 }),
            })
        }),
        ApiKey::AddPartitionsToTxn => build!(AddPartitionsToTxnRequest {
            v3_and_below_topics: one!(add_partitions_to_txn_request::AddPartitionsToTxnTopic {
                name: name(),
                partitions: vec![0, 1],
            })
        }),
        ApiKey::AddOffsetsToTxn => build!(AddOffsetsToTxnRequest {
            group_id: m::GroupId("g".into_str())
        }),
        ApiKey::EndTxn => build!(EndTxnRequest { committed: true }),
        ApiKey::TxnOffsetCommit => build!(TxnOffsetCommitRequest {
            topics: one!(txn_offset_commit_request::TxnOffsetCommitRequestTopic {
                name: name(),
                partitions: one!(txn_offset_commit_request::TxnOffsetCommitRequestPartition {
                    committed_offset: 5
                }),
            })
        }),
        ApiKey::DescribeConfigs => build!(DescribeConfigsRequest {
            resources: one!(describe_configs_request::DescribeConfigsResource {
                configuration_keys: Some(vec!["a".into_str()]),
            })
        }),
        ApiKey::AlterConfigs => build!(AlterConfigsRequest {
            resources: one!(alter_configs_request::AlterConfigsResource {
                configs: one!(alter_configs_request::AlterableConfig { value: None }),
            })
        }),
        ApiKey::CreatePartitions => build!(CreatePartitionsRequest {
            topics: one!(create_partitions_request::CreatePartitionsTopic {
                name: name(),
                assignments: Some(one!(create_partitions_request::CreatePartitionsAssignment {
                    broker_ids: vec![m::BrokerId(1)],
                })),
            })
        }),
        ApiKey::DeleteGroups => build!(DeleteGroupsRequest {
            groups_names: vec![m::GroupId("g".into_str())]
        }),
        ApiKey::IncrementalAlterConfigs => build!(IncrementalAlterConfigsRequest {
            resources: one!(incremental_alter_configs_request::AlterConfigsResource {
                configs: one!(incremental_alter_configs_request::AlterableConfig { value: None }),
            })
        }),
        other => panic!("no sample for {other:?}"),
    }
}

trait IntoStr {
    fn into_str(self) -> kafka_protocol::protocol::StrBytes;
}

impl IntoStr for &'static str {
    fn into_str(self) -> kafka_protocol::protocol::StrBytes {
        kafka_protocol::protocol::StrBytes::from_static_str(self)
    }
}

#[test]
fn outlines_fit_every_request_in_every_version_served() {
    for (api, min, max) in SERVED {
        for version in *min..=*max {
            let body = sample(*api, version);
            assert_eq!(check(*api, version, &body), Ok(()), "{api:?} version {version}");
            for cut in 0..body.len() {
                assert!(
                    check(*api, version, &body[..cut]).is_err(),
                    "{api:?} version {version} cut at {cut}"
                );
            }
        }
    }
}

#[test]
fn a_false_array_count_is_refused_before_memory_is_reserved() {
    // Metadata version 1, announcing 2^31 - 1 topics.
    assert!(check(ApiKey::Metadata, 1, &i32::MAX.to_be_bytes()).is_err());
    // The same in the compact form of version 9.
    assert!(check(ApiKey::Metadata, 9, &[0xff, 0xff, 0xff, 0xff, 0x07]).is_err());
}

fn decode_anything(frame: &Frame) {
    macro_rules! decode {
        ($($api:ident => $request:ident),* $(,)?) => {
            match frame.api {
                $( ApiKey::$api => { let _ = frame.decode::<m::$request>(); } )*
                _ => {}
            }
        };
    }
    decode!(Produce => ProduceRequest, Fetch => FetchRequest, ListOffsets => ListOffsetsRequest,
        Metadata => MetadataRequest, OffsetCommit => OffsetCommitRequest, OffsetFetch => OffsetFetchRequest,
        JoinGroup => JoinGroupRequest, SyncGroup => SyncGroupRequest, LeaveGroup => LeaveGroupRequest,
        CreateTopics => CreateTopicsRequest, TxnOffsetCommit => TxnOffsetCommitRequest,
        AddPartitionsToTxn => AddPartitionsToTxnRequest, DescribeConfigs => DescribeConfigsRequest,
        ApiVersions => ApiVersionsRequest, DeleteTopics => DeleteTopicsRequest);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(frame) = Frame::parse(Bytes::from(bytes)) {
            decode_anything(&frame);
        }
    }

    #[test]
    fn damaged_requests_never_panic(
        which in 0..SERVED.len(),
        at in 0usize..200,
        byte in any::<u8>(),
        newest in any::<bool>(),
    ) {
        let (api, min, max) = SERVED[which];
        let version = if newest { max } else { min };
        let mut body = sample(api, version).to_vec();
        let at = at % body.len().max(1);
        if let Some(there) = body.get_mut(at) {
            *there = byte;
        }
        let frame = Frame { api, version, correlation: 1, client_id: String::new(), body: Bytes::from(body) };
        decode_anything(&frame);
    }
}

#[test]
fn responses_of_the_newest_version_can_be_decoded() {
    // The header of an ApiVersions answer is always in version 0, for the client cannot know better.
    let frame = Frame {
        api: ApiKey::ApiVersions,
        version: 3,
        correlation: 7,
        client_id: String::new(),
        body: Bytes::new(),
    };
    let mut reply = frame
        .reply(&m::ApiVersionsResponse::default())
        .unwrap()
        .slice(4..);
    let header = m::ResponseHeader::decode(&mut reply, 0).unwrap();
    assert_eq!(header.correlation_id, 7);
    assert_eq!(
        m::ApiVersionsResponse::decode(&mut reply, 3).unwrap(),
        m::ApiVersionsResponse::default()
    );
}
